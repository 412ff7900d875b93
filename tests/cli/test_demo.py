"""The demo's wiring on a few steps, and its verdict on figures that were made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.cli.demo import _make_room
from fewshot.cli.main import main
from fewshot.demo import recipe
from fewshot.demo.texts import repeats, write_texts
from fewshot.evaluate.result import Result
from fewshot.evaluate.tasks.novel import Symbols


def result(task: str, shots: int, value: float, ideal: float) -> Result:
    return Result(
        task=task,
        paper_name="",
        protocol="gpt3",
        metric="accuracy",
        share=True,
        shots=shots,
        shots_used=shots,
        n=1000,
        n_skipped=0,
        value=value,
        low=value - 0.03,
        high=value + 0.03,
        ideal=ideal,
        chance=1 / 16,
        seed=0,
        source="",
    )


def figures(curve: list[float], offset: tuple[float, float] = (0.2, 0.9)) -> list[Result]:
    ideals = [0.0625, 0.125, 0.1875, 0.3125, 0.5625, 1.0]
    symbols = [result("novel_symbols", k, v, i) for k, v, i in zip(recipe.SHOTS, curve, ideals, strict=True)]
    return [*symbols, result("hidden_offset", 0, offset[0], 0.2), result("hidden_offset", 8, offset[1], 1.0)]


GOOD = [0.06, 0.12, 0.18, 0.30, 0.53, 0.99]


def verdicts(results: list[Result], val_loss: float = 1.7) -> list[bool]:
    return [check.holds for check in recipe.check_figures(results, val_loss)]


def test_figures_of_a_learner_hold() -> None:
    assert verdicts(figures(GOOD)) == [True] * 5


@pytest.mark.parametrize(
    ("results", "val_loss", "failing"),
    [
        (figures([0.06, 0.12, 0.12, 0.30, 0.53, 0.99]), 1.7, 0),
        (figures([0.10, 0.12, 0.18, 0.30, 0.53, 0.99]), 1.7, 1),
        (figures([0.05, 0.12, 0.18, 0.30, 0.44, 0.99]), 1.7, 2),
        (figures(GOOD, offset=(0.2, 0.22)), 1.7, 3),
        (figures(GOOD), 5.0, 4),
    ],
)
def test_each_check_can_fail(results: list[Result], val_loss: float, failing: int) -> None:
    assert verdicts(results, val_loss) == [i != failing for i in range(5)]


def test_texts_are_the_same_every_time_and_hold_no_evaluated_rule(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_texts(tmp_path / name, {"repeats": 20, "novel_symbols": 20}, english_chars=20_000)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["english.jsonl", "novel_symbols.jsonl", "repeats.jsonl"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    assert recipe.WEIGHTS.keys() == {"english", *recipe.DOCUMENTS}


def test_repeats_use_the_symbols_of_the_mapping_task() -> None:
    assert set("".join(repeats(30)).replace(" ", "")) <= set(Symbols().symbols)


def test_a_demo_that_learns_nothing_runs_through_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "STEPS", 2)
    monkeypatch.setattr(recipe, "ENGLISH_CHARS", 60_000)
    monkeypatch.setattr(recipe, "DOCUMENTS", dict.fromkeys(recipe.DOCUMENTS, 60))
    monkeypatch.setattr(recipe, "TASKS", dict.fromkeys(recipe.TASKS, 20))
    monkeypatch.setattr(recipe, "COPIED_QUESTIONS", 20)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "FAILS" in printed.out
    assert "not as expected" in printed.err
    page = (out / "report.html").read_text()
    assert "novel_symbols" in page
    assert "The head that copies" in page
    assert main(["demo", "--out", str(out)]) == 1  # it may be run again in its own folder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert main(["demo", "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()


BESIDE = [
    "notes.txt",
    "checkpoints/step-00001500-best/model.safetensors",
    "checkpoints/step-old/manifest.json",
    "checkpoints/notes.txt",
    "checkpoints-2/step-00001500/manifest.json",
    "config.yaml.bak",
    "metrics-first.jsonl",
    ".git/HEAD",
    "lab.html",
    "data.zip",
]


@pytest.mark.parametrize("name", BESIDE)
def test_a_demo_that_is_made_again_deletes_nothing_that_it_did_not_make(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [".fewshot-demo", "config.yaml", "text/english.jsonl", "checkpoints/step-00001500/manifest.json"]
    files = [tmp_path / file for file in [*own, name]]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "which the demo did not make: give a new folder" in capsys.readouterr().err
    assert all(file.read_text() == "mine" for file in files)


def test_results_stay_when_a_demo_is_made_again(tmp_path: Path) -> None:
    made = ("config.yaml", "metrics.jsonl", "probe.html", "checkpoints/step-00001500/manifest.json")
    for name in (*made, "evaluations/lambada.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    _make_room(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "evaluations"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert (tmp_path / "evaluations" / "lambada.json").is_file()
