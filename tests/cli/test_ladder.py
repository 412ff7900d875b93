"""A ladder as a user types it: trained, stopped, resumed, reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot.cli import ladder as ladder_command
from fewshot.cli.main import main
from fewshot.train.ladder.series import measure

SHAPE = {"n_layers": 1, "d_model": 32, "n_heads": 2, "n_ctx": 16}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"the {i % 7} cats sat on {i % 11} mats\n" for i in range(400)))
    shape = [word for name, value in SHAPE.items() for word in (f"--model.{name}", str(value))]
    fast = ["--data.tokenizer", "chars", "--loop.compile", "never", "--loop.kernel", "sdpa", "--n_tokens", "3000"]
    fast += ["--schedule.batch_tokens", "64", "--schedule.batch_start_tokens", "64"]
    return ["train", "--text", str(text), "--ladder", "4", "--out", str(tmp_path / "ladder"), *shape, *fast]


def test_a_ladder_is_trained_and_its_page_says_what_was_predicted_and_what_came(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    page = tmp_path / "ladder" / "report.html"
    assert out == f"{page}\n"
    prediction = json.loads((tmp_path / "ladder" / "prediction.json").read_text())
    assert f"4-of-4 will reach {prediction['loss']['value']:.4f} nats/token" in err
    assert err.index("4-of-4 will reach") < err.index("ladder: run 4-of-4")
    loss = measure(tmp_path / "ladder" / "4-of-4").losses[-1]
    assert f"measured: {loss:.4f} nats/token" in err
    assert f"{loss:.4f} nats/token" in page.read_text()
    assert page.read_text().count("<svg") == 2
    page.unlink()
    assert main(["report", str(tmp_path / "ladder")]) == 0
    assert page.is_file()
    assert main(["generate", str(tmp_path / "ladder" / "1-of-4"), "the", "--n_tokens", "3"]) == 0


def test_a_ladder_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter((2, None, 30))  # in the first run; then in the one after it

    def left_early(reports: Iterator[Any], *args: object) -> Iterator[Any]:
        last = next(stops, None)
        for report in reports:
            yield report
            if report.step == last:
                return

    monkeypatch.setattr(ladder_command, "with_tracker", left_early)
    assert main(words) == 130
    folder = tmp_path / "ladder"
    assert f"continue with: fewshot resume {folder}" in capsys.readouterr().err
    assert main(["report", str(folder)]) == 2
    assert f"{folder} has no prediction yet; go on with: fewshot resume {folder}" in capsys.readouterr().err
    assert main(["resume", str(folder)]) == 130
    assert not (folder / "prediction.json").exists()
    assert main(["resume", str(folder)]) == 0
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 0  # nothing is left to do
    assert "step" not in capsys.readouterr().err
    assert all(measure(folder / f"{i}-of-4").is_complete for i in range(1, 5))


@pytest.mark.parametrize("wrong", [["--ladder", "2"], ["--loop.validate_every", "5"], ["--data.val_fraction", "0"]])
def test_what_cannot_be_a_ladder_is_refused_in_a_line(
    tmp_path: Path, words: list[str], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "ladder").exists()
