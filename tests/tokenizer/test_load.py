"""What is no tokenizer is refused with its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.tokenizer.bpe import BPE
from fewshot.tokenizer.load import load_tokenizer


def test_gpt2_folder_is_recognised_by_its_two_files(shared_data: Path) -> None:
    gpt2 = load_tokenizer(shared_data / "vocab" / "gpt2")
    assert isinstance(gpt2, BPE)
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]


def test_gpt2_folder_is_recognised_by_the_names_of_hugging_face(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "vocab" / "gpt2"
    (tmp_path / "vocab.json").symlink_to(original / "encoder.json")
    (tmp_path / "merges.txt").symlink_to(original / "vocab.bpe")
    assert load_tokenizer(tmp_path).fingerprint == load_tokenizer(original).fingerprint


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "holds no tokenizer: tokenizer.json, or encoder.json and vocab.bpe, is needed"),
        ({"tokenizer.json": "{"}, "is not JSON"),
        ({"tokenizer.json": "[]"}, "holds a list, not an object"),
        ({"tokenizer.json": "{}"}, "its pre_tokenizer has type=None"),
        ({"tokenizer.json": '{"type": "chars"}'}, "needs the text 'characters'"),
        ({"encoder.json": "{}"}, "holds no tokenizer"),
        ({"encoder.json": "[]", "vocab.bpe": "#version: 0.2\n"}, "encoder.json must hold tokens and ids"),
        ({"encoder.json": "{}", "vocab.bpe": "#version: 0.2\na b c\n"}, "each merge must be a pair"),
        ({"encoder.json": json.dumps({"a": 0}), "vocab.bpe": "#version: 0.2\n"}, "must hold the 256 bytes"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_refused(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BadFile) as caught:
        load_tokenizer(tmp_path)
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="does not exist"):
        load_tokenizer(tmp_path / "nothing.json")
