from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.checkpoint.run import load_run
from fewshot.checkpoint.save import save
from fewshot.corpus.document import Document
from fewshot.dataset.shards import build_shards
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars


def make_run(run: Path, n_vocab: int = 257) -> Path:
    checkpoint = save(run, GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=7, n_vocab=n_vocab)), step=3)
    Bytes().save(run / "tokenizer.json")
    return checkpoint


def test_a_run_and_a_checkpoint_inside_it_have_the_runs_tokenizer(tmp_path: Path) -> None:
    checkpoint = make_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to(checkpoint)
    for path in (tmp_path / "run", checkpoint, tmp_path / "latest", tmp_path / "latest" / ".." / checkpoint.name):
        model, tokenizer, found = load_run(path)
        assert (tokenizer.n_vocab, found.step, model.config.n_vocab) == (257, 3, 257)


def test_checkpoints_on_another_disk_have_the_tokenizer_of_the_run_that_they_are_reached_through(
    tmp_path: Path,
) -> None:
    checkpoint = make_run(tmp_path / "run")
    (tmp_path / "big").mkdir()
    shutil.move(checkpoint.parent, tmp_path / "big" / "store")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "big" / "store")
    assert load_run(tmp_path / "run")[1].n_vocab == 257
    assert load_run(checkpoint)[1].n_vocab == 257


@pytest.mark.parametrize("at", ["lone", "kept/lone", "kept/checkpoints-old/step-00000003", "kept/step-00000003"])
def test_a_tokenizer_that_merely_lies_above_is_not_taken(tmp_path: Path, at: str) -> None:
    checkpoint = make_run(tmp_path / "run")
    for place in (tmp_path, tmp_path / "kept"):
        place.mkdir(exist_ok=True)
        train_chars(["abc"]).save(place / "tokenizer.json")
    (tmp_path / at).parent.mkdir(exist_ok=True)
    shutil.copytree(checkpoint, tmp_path / at)
    with pytest.raises(BadFile, match=r"has no tokenizer\.json: a run folder"):
        load_run(tmp_path / at)
    shutil.copy(tmp_path / "run" / "tokenizer.json", tmp_path / at)
    assert load_run(tmp_path / at)[1].n_vocab == 257


def test_a_model_may_have_more_rows_than_the_tokenizer_has_entries_and_not_fewer(tmp_path: Path) -> None:
    make_run(tmp_path / "more", n_vocab=300)
    assert load_run(tmp_path / "more")[0].config.n_vocab == 300
    make_run(tmp_path / "fewer", n_vocab=256)
    with pytest.raises(BadFile, match=r"its tokenizer\.json has 257 entries, but the model only knows 256") as caught:
        load_run(tmp_path / "fewer")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_did_not_make_the_tokens_of_the_run_is_refused(tmp_path: Path) -> None:
    checkpoint = make_run(tmp_path / "run")
    texts = [Document(id="a", text="abc", source="text")]
    build_shards(lambda: iter(texts), Bytes(), tmp_path / "run" / "data", name="text-train")
    for path in (tmp_path / "run", checkpoint):
        assert load_run(path)[1].n_vocab == 257
    train_chars(["abc"]).save(tmp_path / "run" / "tokenizer.json")
    for path in (tmp_path / "run", checkpoint):
        with pytest.raises(BadFile, match=r"tokenizer\.json is not the tokenizer that the run was trained with"):
            load_run(path)
    (tmp_path / "run" / "data" / "text-train.json").write_text("damaged")  # which reading the tokens will tell
    load_run(tmp_path / "run")
