"""A tracker and samples beside a run change nothing of it, and end nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.cli.main import main
from fewshot.generate.samples import read_samples

SIZES = [
    *("--model.n_layers", "1", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "16"),
    *("--data.tokenizer", "chars", "--schedule.n_tokens", "640", "--schedule.batch_tokens", "64"),
    *("--schedule.batch_start_tokens", "64", "--loop.log_every", "1", "--model.dropout", "0.1"),
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on a mat and was happy. " * 60)
    return path


def train(text: Path, run: Path, *more: str) -> int:
    return main(["train", "--text", str(text), "--out", str(run), *SIZES, *more])


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_samples_are_told_stored_and_reported_and_the_run_keeps_its_bits(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    assert train(text, tmp_path / "plain") == 0
    watched = tmp_path / "watched"
    assert train(text, watched, "--sample_every", "4", "--sample_prompt", "the cat", "--log", "tensorboard") == 0
    assert losses(watched) == losses(tmp_path / "plain")
    samples = read_samples(watched / "samples.jsonl")
    assert [(sample.step, sample.prompt) for sample in samples] == [(4, "the cat"), (8, "the cat")]
    assert f"step 8 writes: the cat{samples[1].text}" in capsys.readouterr().err
    assert list((watched / "tensorboard").iterdir())
    assert main(["report", str(watched)]) == 0
    page = (watched / "report.html").read_text()
    assert "What it wrote while it was trained" in page
    assert "<p>step 4</p>" in page


@pytest.mark.parametrize("prompt", ["ÄÖÜ", "the cat sat on a mat and was happy"])  # unknown characters; too long
def test_a_prompt_that_cannot_be_read_is_told_once_and_training_goes_on(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: str
) -> None:
    assert train(text, tmp_path / "run", "--sample_every", "2", "--sample_prompt", prompt) == 0
    assert capsys.readouterr().err.count("no samples are written: ") == 1
    assert len(losses(tmp_path / "run")) == 10
    assert not (tmp_path / "run" / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sample_every", "0"], "--sample_every is 0, must be at least 1"),
        (["--log", "tensorbord"], "unknown tracker 'tensorbord'"),
        (["--ladder", "3", "--json"], "--json prints the figures of one run, a ladder has several: leave it out"),
        (["--ladder", "3", "--log", "trackio"], "--log trackio keeps one run a process: leave out --ladder"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run_is_made(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert train(text, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
