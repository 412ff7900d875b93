"""What users get wrong most: each is one clear line with the way out, exit code 2, and no traceback."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.cli.main import main
from fewshot.report.html import write_page
from fewshot.train.run import start


@pytest.fixture
def here(tmp_path: Path, small_run: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad things in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, "run")
    shutil.copy(text_file, "good.txt")
    shutil.copytree(small_run, "damaged")
    weights = next(Path("damaged/checkpoints").glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    shutil.copytree(small_run, "untrained")
    shutil.rmtree("untrained/checkpoints")
    Path("empty.txt").touch()
    Path("short.txt").write_text("too short")
    Path("binary.txt").write_bytes(b"\0\1\2\3")
    Path("latin1.txt").write_bytes("Grüße".encode("latin1"))
    Path("one.txt").write_text("x")
    Path("body.jsonl").write_text('{"body": "text"}')
    Path("broken.jsonl").write_text('{"text": \n')
    Path("book.pdf").write_bytes(b"%PDF")
    Path("nothing").mkdir()
    Path("typo.yaml").write_text("model: {n_layer: 4}\n")
    Path("typo2.yaml").write_text("modell: {n_layers: 4}\n")
    Path("number.yaml").write_text("1: 5\n")
    Path("text5.yaml").write_text("text: 5\n")
    Path("precious/text").mkdir(parents=True)
    Path("precious/thesis.txt").touch()
    shutil.copytree(small_run, "stranger")
    Path("stranger/evaluations").mkdir(exist_ok=True)
    Path("stranger/evaluations/stranger.json").write_text("{}")
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("model: [1\n")
    Path("deep.json").write_text("[" * 200_000)
    Path("long.json").write_text('{"type": ' + "9" * 6000 + "}")
    Path("bomb.yaml").write_text(
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{b}, *{b}]\n" for b, c in zip(*BOMB, strict=True))
    )
    Path("deep.yaml").write_text("model: " + "[" * 1000 + "]" * 1000)
    for name in ("manifest", "tokens", "tokenizer"):
        shutil.copytree(small_run, f"nested_{name}")
    shutil.copy("deep.json", next(Path("nested_manifest/checkpoints").glob("*/manifest.json")))
    shutil.copy("deep.json", "nested_tokens/data/text-train.json")
    shutil.copy("deep.json", "nested_tokenizer/tokenizer.json")
    return tmp_path


BOMB = "abcdefghijklmnopqrst", "bcdefghijklmnopqrstu"
CASES = {
    "train --text good.txt --config bomb.yaml": "bomb.yaml is not usable YAML: it holds more than 20,000 values",
    "train --text good.txt --config deep.yaml": "deep.yaml is not usable YAML: it is nested more than 100 deep",
    "tokenizer encode deep.json x": "deep.json is not usable JSON: it is nested too deeply",
    "tokenizer encode long.json x": "long.json is not usable JSON: it holds a number of thousands of digits",
    "bench attention --show deep.json": "deep.json is not usable JSON",
    "generate nested_manifest x": "manifest.json is not usable JSON",
    "evaluate nested_manifest --tasks novel_symbols": "manifest.json is not usable JSON",
    "report nested_manifest": "manifest.json is not usable JSON",
    "resume nested_tokens": "text-train.json",
    "generate nested_tokenizer x": "tokenizer.json is not usable JSON",
    "meta report deep.json": "deep.json",
    "fewshot trian": "unknown command 'trian', nearest: train",
    "train": "there is no text to train on: give --text PATH",
    "train --text missing.txt": "missing.txt does not exist",
    "train --text empty.txt": "empty.txt is empty",
    "train --text binary.txt": "binary.txt is a binary file",
    "train --text latin1.txt": "latin1.txt is not UTF-8",
    "train --text broken.jsonl": "broken.jsonl line 1 is not JSON",
    "train --text book.pdf": "unsupported suffix '.pdf'",
    "train --text one.txt": "of 1 characters in 1 documents none is training text",
    "train --text body.jsonl": "body.jsonl line 1 has no field 'text'; it has: body; set --data.text_field to one",
    "tokenizer train --text body.jsonl": "body.jsonl line 1 has no field 'text'; it has: body; set --text_field to one",
    "tokenizer train --text body.jsonl --text_field bdy": "line 1 has no field 'bdy'; it has: body; set --text_field",
    "contamination run --tasks arithmetic_2d_add --text body.jsonl": "it has: body; set --text_field to one",
    "tokenizer train --text good.txt --out nothing": "nothing is a folder; give the name of a file",
    "tokenizer train --text missing.txt --out good.txt/t.json": "good.txt is a file, not a folder",  # before any text
    "train --text good.txt --data.tokenizer chars --data.n_vocab 10": "tokenizer chars has its own size",
    "train --text nothing": "nothing holds no readable document",
    "train --text short.txt": "give more text or lower n_ctx",
    "train --text good.txt --preset gpt3-smal": "unknown preset 'gpt3-smal'; nearest: 'gpt3-small'",
    "train --text good.txt --config missing.yaml": "missing.yaml does not exist",
    "train --text good.txt --config typo.yaml": "unknown key in model 'n_layer'; nearest: 'n_layers'",
    "train --text good.txt --config typo2.yaml": "unknown key 'modell'; nearest: 'model'",
    "train --text good.txt --config list.yaml": "must hold keys and values, found list",
    "train --text good.txt --config broken.yaml": "broken.yaml is not YAML",
    "train --text good.txt --optimizer.lr fast": "optimizer.lr is 'fast', a number is needed",
    "train --text good.txt --optimizer.name adam": "unknown optimizer 'adam'; nearest: 'adamw'",
    "train --text good.txt --preset tiny-1m --model.d_qk 16 --optimizer.name normuon": "d_qk is 16 and d_head 32",
    "train --text good.txt --model.block sparse-transformer": "give tied: false",
    "train --text good.txt --model.positions rows(x)": "positions is 'rows(x)', allowed: learned, rows(WIDTH)",
    "train --text good.txt --n_tokens many": "n_tokens is 'many', a number is needed",
    "train --text good.txt --modle.n_layers 3": "unknown key 'modle'; nearest: 'model'",
    "train --text good.txt --model.n_heads 3": "d_model 128 is not a multiple of n_heads 3",
    "train --text good.txt --model.pattern bandet(4)": "nearest",
    "train --text good.txt --loop.kernel flash": "unknown kernel 'flash'",
    "train --text good.txt --out run": "run already holds a run: continue it with 'fewshot resume run'",
    "train --text good.txt --data.tokenizer nowhere.json": "nowhere.json does not exist",
    "resume nowhere": "nowhere does not exist",
    "resume damaged": "its sha256 is not the recorded one",
    "resume run --model.n_ctx 16": "model cannot change when a run is resumed; only loop.checkpoint_every",
    "tokenizer train --te good.txt": "unknown option --te",
    "tokenizer train --kind chars": "--kind chars is trained on text: give --text PATH...",
    "tokenizer train --kind bytes --text good.txt": "--kind bytes is not trained: leave --text out",
    "resume run --loop.seed 3": "loop.seed cannot change when a run is resumed",
    "resume run --loop 3": "loop must hold keys and values, found 3",
    "train --text good.txt --n_tokens 0": "n_tokens is 0, must be at least 1",
    "train --text good.txt --optimizer.lr 1e30 --n_tokens 9000": "start again with a lower optimizer.lr",
    "train --text good.txt --optimizer.weight_decay nan": "optimizer.weight_decay is nan, a finite number is needed",
    "train --text good.txt --model.n_vocab 1e2": "n_vocab",
    "train --text good.txt --data.n_vocab 1000000000000": "n_vocab is 1,000,000,000,000, must be at most 16,777,216",
    "train --text good.txt --data.n_vocab 10": "n_vocab=10 is too small: 256 bytes",
    "train --text good.txt --data.n_vocab 500 --data.tokenizer chars": "tokenizer chars has its own size",
    "train --text good.txt --data.n_vocab 500 --preset st-enwik8": "tokenizer bytes has its own size",
    "tokenizer train --text good.txt --n_vocab 1000000000": "n_vocab is 1,000,000,000, must be at most 16,777,216",
    "train --text good.txt --model.d_model 1000000000": "take a smaller model",
    "train --text good.txt --preset tiny-1m --model.n_layers 100000": "are free: take a smaller model",
    "train --text good.txt --schedule.batch_tokens 1000000000000": "are free: lower --schedule.batch_tokens",
    "train --text good.txt --n_tokens 1000000000000000000": "years on this machine",
    "train --text good.txt --model.n_layers 6": "lacks d_model, n_heads: give all of n_layers, d_model, n_heads, or a",
    "train --text good.txt --n_tokens 60000 --schedule.batch_tokens 3000000": "is above n_tokens 60,000",
    "train --text good.txt --schedule.decay_tokens -5": "decay_tokens is -5, must not be negative",
    "train --text good.txt --n_tokens 64000 --schedule.decay_tokens 0": "must be above schedule.warmup_tokens 0",
    "train --text good.txt --loop.compile no": "compile is 'no', allowed: auto, always, never",
    "train --text good.txt --loop.compile false": "compile is 'false', allowed: auto, always, never",
    "train --text good.txt --loop.kernel off": "unknown kernel 'off'",
    "train --text=~/nowhere.txt": "/nowhere.txt does not exist",
    "train --text good.txt --optimizer.beta2 1.5": "beta1 is 0.9 and beta2 1.5, both must be in [0, 1)",
    "train --text good.txt --model.init_std 1e30": "init_std is 1e+30, must be above 0 and at most 10",
    "train --text good.txt --n_layers 3": "n_layers is a field of model: give --model.n_layers",
    "train --text good.txt --lr 3": "lr is a field of optimizer: give --optimizer.lr",
    "train --text good.txt --model.bogus 3": "unknown key in model 'bogus'",
    "train --text good.txt --preset.x 1": "preset is {'x': 1}, str is needed",
    "train --text good.txt --config number.yaml": "unknown key '1'",
    "train --config text5.yaml": "text is 5, a list is needed",
    "evaluate run --batch_size 0": "--batch_size is 0, must be at least 1",
    "evaluate run --data nowhere": "--data nowhere does not exist",
    "plan gpt3-small --n_tokens inf": "must be at least 1 and below 1e18",
    "demo --out precious": "precious is not empty (it holds text, thesis.txt): give a new folder",
    "generate nowhere": "nowhere does not exist",
    "generate damaged": "its sha256 is not the recorded one",
    "generate untrained": "untrained holds no checkpoint",
    "generate run --temperature -1": "temperature is -1.0, must be at least 0",
    "generate run --top_p 2": "top_p is 2.0, must be in (0, 1]",
    "generate run --n_tokens 0": "--n is 1 and --n_tokens 0, both must be at least 1",
    "generate run --temprature 1": "unknown option --temprature, nearest: --temperature",
    "evaluate run --tasks novel_symbol": "unknown task 'novel_symbol'; nearest: 'novel_symbols'",
    "evaluate run --shots few": "--shots is 'few'; give numbers",
    "evaluate run --tasks lambada": "--data",
    "evaluate run --shots 1 --variant wrong_label": "unknown variant 'wrong_label'; nearest: 'wrong_labels'",
    "evaluate run --shots 1 --variant wrong_labels=2": "wrong_labels is '2', must be a share from 0 to 1",
    "evaluate run --shots 0,1 --variant wrong_labels": "--shots is '0,1': --variant needs 1 or more",
    "evaluate run --shots 4 --variant place=5": "place=5 needs 5 or more demonstrations, K is 4: use more --shots",
    "evaluate run --shots 4 --orders 2 --variant place=1": "--orders and --variant cannot be combined",
    "evaluate run --limit 0": "limit is 0, must be at least 1",
    "plan gpt4": "unknown preset 'gpt4'",
    "plan all --n_tokens 0": "must be at least 1",
    "patterns show banded": "banded takes (window), got 0 argument(s)",
    "patterns show banded(0)": "from 1 to 2147483647, got 0",
    "patterns show dense --n 0": "--n is 0, must be in 1..16384",
    "patterns show dense --json --png a.png": "--json and --png cannot be used together",
    "bench attention --n 0": "--n is 0, must be in 256..1048576",
    "bench attention --rounds 0": "--rounds is 0, must be at least 1",
    "bench attention --show missing.json": "missing.json does not exist",
    "convert nowhere there": "nowhere does not exist",
    "convert run nothing/..": "is not empty",
    "tokenizer train --text good.txt --n_vocab 10": "257",
    "tokenizer encode good.txt hello": "good.txt is not JSON",
    "report nowhere": "nowhere does not exist",
}


@pytest.mark.parametrize("words", CASES)
def test_one_clear_line_and_exit_code_2(here: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words.removeprefix("fewshot ").split())
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("fewshot: ")]
    assert code == 2
    assert len(lines) == 1
    assert not re.search("━ *0/", captured.err)  # no empty progress bar beside the line
    assert "Traceback" not in captured.err
    assert CASES[words] in lines[0]


def test_a_file_of_something_else_among_the_results_is_one_line_and_the_report_is_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "stranger"]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "stranger.json" in line)
    assert "stranger.json cannot be read and is left out: move it away" in line
    assert "holds no results of fewshot evaluate" in line
    assert (here / "stranger" / "report.html").is_file()


@pytest.mark.parametrize(
    "words", [["train"], ["tokenizer", "train"], ["contamination", "run", "--tasks", "arithmetic_2d_add"]]
)
def test_an_empty_path_is_not_the_current_folder(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--text", ""]) == 2
    assert "the path of a text is empty: name a file or a folder; the current folder is ." in capsys.readouterr().err


def test_a_prompt_longer_than_the_context_is_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "run", "cat " * 100]) == 2
    assert "tokens, the model's context holds 32: shorten it" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_loses_nothing(
    here: Path, set_in_module: Callable[[object, str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, os.strerror(28), "run/report.html")

    before = Path("run/metrics.jsonl").read_bytes()
    set_in_module(write_page, "write_text", full)
    assert main(["report", "run"]) == 2
    assert "no space left on the disk (run/report.html)" in capsys.readouterr().err
    assert Path("run/metrics.jsonl").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("closed").mkdir(mode=0o500)
    assert main(["train", "--text", "good.txt", "--out", "closed/run"]) == 2
    assert "permission denied" in capsys.readouterr().err


def test_ctrl_c_before_training_is_130_without_a_traceback(
    here: Path, set_in_module: Callable[[object, str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    set_in_module(start, "resolve", interrupted)
    assert main(["train", "--text", "good.txt", "--out", "new"]) == 130
    assert capsys.readouterr().err.endswith("fewshot: interrupted\n")


@pytest.mark.parametrize(
    "words",
    [
        "train --config=~/a.yaml",
        "train --text=~/a.yaml",
        "train --text good.txt --text ~/a.yaml",
        "train --text good.txt --data.tokenizer=~/a.yaml",
        "train --data.sources [{name:\tx,text:\t[~/a.yaml]}]",
        "generate ~/a.yaml",
        "report ~/a.yaml",
        "resume ~/a.yaml",
        "convert ~/a.yaml there",
        "tokenizer encode ~/a.yaml x",
        "tokenizer train --text ~/a.yaml",
        "bench attention --show=~/a.yaml",
    ],
)
def test_a_tilde_is_the_home_of_the_user_in_every_path(
    here: Path, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/at/home")
    assert main([word.replace("\t", " ") for word in words.split(" ")]) == 2
    assert "/at/home/a.yaml" in capsys.readouterr().err
