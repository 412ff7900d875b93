"""Text that is typed or piped in is UTF-8 in every locale, and anything else is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.cli.text_input import argument
from fewshot.generate.complete import complete
from fewshot.tokenizer.load import load_tokenizer

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {"UTF-8": {"LC_ALL": "C.UTF-8"}, "C": {"LC_ALL": "C"}, "ASCII": ASCII, "UTF-8 mode": {"PYTHONUTF8": "1"}}
TYPED = "caf\u00e9 \u4e16\U0001f642".encode()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "bytes.json"
    path.write_text('{"type": "bytes"}')
    return path


def fewshot(*words: str | bytes | Path, locale: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    command = [sys.executable, "-m", "fewshot", *words]
    return subprocess.run(command, input=data, env={**environment, **LOCALES[locale]}, capture_output=True, check=False)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("way", ["argument", "standard input"])
def test_text_is_utf8_in_every_locale(tokenizer: Path, locale: str, way: str) -> None:
    words, data = ([TYPED], b"") if way == "argument" else ([], TYPED)
    done = fewshot("tokenizer", "encode", tokenizer, *words, locale=locale, data=data)
    assert (done.returncode, done.stdout.split()) == (0, [str(byte).encode() for byte in TYPED]), done.stderr


@pytest.mark.parametrize("locale", ["C", "ASCII"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"one\ntwo \xff\xfe",
            b"standard input is not UTF-8 (byte 0xff in line 2): convert it, for example with: iconv",
        ),
        (b"\xff\xfea\0", b"standard input is UTF-16: convert it, for example with: iconv -f utf-16 -t utf-8"),
        (b"a\0b", b"standard input is a binary file"),
    ],
)
def test_standard_input_that_is_not_utf8_is_refused_like_a_file(
    tokenizer: Path, locale: str, data: bytes, message: bytes
) -> None:
    done = fewshot("tokenizer", "encode", tokenizer, locale=locale, data=data)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"fewshot: " + message)


def test_an_argument_that_is_not_utf8_is_refused(tokenizer: Path) -> None:
    done = fewshot("tokenizer", "encode", tokenizer, b"caf\xe9", locale="UTF-8")
    assert (done.returncode, done.stderr) == (2, b"fewshot: the text is not UTF-8 (byte 0xe9): type it in UTF-8\n")


def test_a_prompt_is_utf8_in_every_locale(
    small_run: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    completed: list[list[int]] = []

    def record(model: object, tokenizer: object, prompts: list[list[int]], **how: object) -> list[object]:
        completed.extend(prompts)
        return []

    set_in_module(complete, "complete", record)
    for typed in ("café", "caf\udcc3\udca9"):  # as Python reads it in UTF-8, and in a locale that knows ASCII alone
        assert main(["generate", str(small_run), "--json", typed]) == 0
    assert completed == [load_tokenizer(small_run / "tokenizer.json").encode("café")] * 2


def test_text_that_no_command_line_can_hold_stays_as_it_is() -> None:
    assert argument("a\ud800", "it") == "a\ud800"
    assert argument("", "it") == ""
    with pytest.raises(BadValue, match=r"it is not UTF-8 .byte 0xe9.: type it in UTF-8"):
        argument(os.fsdecode(b"\xe9"), "it")
