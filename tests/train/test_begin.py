"""Runs that begin with the weights of another model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot.base.errors import BadFile, BadValue
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.hugging_face.folder import write_tokenizer
from fewshot.checkpoint.load import find_checkpoint, load_model, load_run
from fewshot.cli.main import main
from fewshot.dataset.prepare import load_tokens
from fewshot.tokenizer.bytes import Bytes
from fewshot.train.build import build, restore
from fewshot.train.run import read_run_config, resume, start


def quiet(line: str) -> None:
    """Nothing is printed."""


@pytest.fixture(scope="module")
def first(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps."""
    run = tmp_path_factory.mktemp("begin") / "first"
    list(start(tiny(), run, say=quiet))
    return run


def further(tiny: Any, source: Path | str, n_steps: int = 10, **sections: Any) -> dict[str, Any]:
    """What is given to train a model further as the tiny runs are trained."""
    given = tiny(n_steps, **sections)
    del given["data"]["tokenizer"], given["optimizer"]
    given["model"] = sections.get("model", {})
    return {**given, "start": str(source)}


def state_of(path: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    return load_model(find_checkpoint(path if step is None else RunFolder(path).checkpoint(step))).state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_begins_with_the_weights_of_a_run_and_its_tokenizer(tiny: Any, first: Path, tmp_path: Path) -> None:
    said: list[str] = []
    given = further(tiny, first, model={"pattern": "alternate(dense, banded(3))"})
    losses = [report.loss for report in start(given, tmp_path / "run", say=said.append)]
    assert equal(state_of(tmp_path / "run", 0), state_of(first))
    config = read_run_config(tmp_path / "run")
    expected = (str(first), given["model"]["pattern"], "adamw")
    assert (config.start, config.model.pattern, config.optimizer.name) == expected
    assert config.optimizer.lr == pytest.approx(3e-4)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    rows = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] < rows[0]["loss"] - 0.05
    (line,) = [line for line in said if line.startswith("start: ")]
    assert "with pattern alternate(dense, banded(3)); adamw at 0.1 of the learning rate of a new model" in line


def test_stopped_before_its_first_checkpoint_it_goes_on_from_its_beginning_with_the_same_bits(
    tiny: Any, first: Path, tmp_path: Path
) -> None:
    list(start(further(tiny, first), tmp_path / "whole", say=quiet))
    reports = start(further(tiny, first), tmp_path / "run", say=quiet)
    for _ in range(3):
        next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert equal(state_of(tmp_path / "run", 0), state_of(first))
    assert [report.step for report in resume(tmp_path / "run", say=quiet)] == list(range(1, 11))
    assert equal(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (tmp_path / "run", tmp_path / "whole")]
    assert [json.loads(line)["loss"] for line in lines[0]] == [json.loads(line)["loss"] for line in lines[1]]


@pytest.mark.parametrize("optimizer", ["adamw", "normuon"])
def test_back_at_its_beginning_moments_are_zero_again(tiny: Any, first: Path, tmp_path: Path, optimizer: str) -> None:
    given = {**further(tiny, first, 2), "optimizer": {"name": optimizer}}
    list(start(given, tmp_path / "run", say=quiet))
    config = read_run_config(tmp_path / "run")
    beginning = find_checkpoint(RunFolder(tmp_path / "run").checkpoint(0))
    setup = build(config, load_tokens(config.data, tmp_path / "run" / "data"), checkpoint=beginning, say=quiet)
    for piece in [*setup.optimizers.state(), *setup.optimizers.weights()]:
        piece.tensor.fill_(3.0)
    restore(setup.optimizers, beginning)
    assert all(piece.tensor.eq(0).all() for piece in setup.optimizers.state())
    assert equal(dict(setup.model.state_dict()), state_of(first))


@pytest.mark.slow
def test_several_processes_begin_with_the_same_weights(tiny: Any, first: Path, tmp_path: Path) -> None:
    list(start(further(tiny, first, 3), tmp_path / "one", say=quiet))
    words = ["--start", str(first), "--text", str(tiny.text), "--n_tokens", "192", "--out", str(tmp_path / "two")]
    words += ["--loop.compile", "never", "--loop.kernel", "sdpa", "--loop.log_every", "1"]
    words += ["--schedule.batch_tokens", "64", "--schedule.batch_start_tokens", "64", "--schedule.warmup_tokens", "0"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fewshot", "--", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *torchrun, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert two[0] == pytest.approx(one[0], abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_gpt2_of_transformers_is_trained_further_and_goes_back(tmp_path: Path, text: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": 257}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, resid_pdrop=0.0)).save_pretrained(tmp_path / "gpt2")
    write_tokenizer(tmp_path / "gpt2", Bytes(), n_ctx=32)
    words = ["train", "--start", f"hf:{tmp_path / 'gpt2'}", "--text", str(text), "--out", str(tmp_path / "run")]
    words += ["--n_tokens", str(200 * 8 * 32), "--optimizer.lr", "3e-3", "--loop.compile", "never"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 200
    assert rows[-1]["loss"] < rows[0]["loss"] - 2
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "back").eval()
    ours, tokenizer, _ = load_run(tmp_path / "run")
    tokens = torch.tensor([tokenizer.encode("the cat sat on a mat")])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "back").encode("the cat") == tokenizer.encode(
        "the cat"
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a preset": ({"preset": "tiny-1m"}, "preset tiny-1m and start .*: leave one out"),
    "a size": ({"model": {"n_layers": 3}}, "model.n_layers is given, but the model's shape is that of start"),
    "a tokenizer": ({"data": {"tokenizer": "bytes"}}, "data.tokenizer is given, but the tokenizer is that of start"),
    "a pattern that is none": ({"model": {"pattern": "bended(3)"}}, "banded"),
    "nothing": ({"start": ""}, "start is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tiny: Any, first: Path, tmp_path: Path, name: str
) -> None:
    changed, message = REFUSED[name]
    with pytest.raises(BadValue, match=message):
        list(start({**further(tiny, first), **changed}, tmp_path / "run", say=quiet))
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="nowhere does not exist"):
        list(start(further(tiny, tmp_path / "nowhere"), tmp_path / "run", say=quiet))
