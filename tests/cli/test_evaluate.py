from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fewshot.checkpoint.save import save
from fewshot.cli.evaluate import ask
from fewshot.cli.main import main
from fewshot.evaluate.load import load
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.models.transformers import load_transformers
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.store.results import ResultsStore
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SHAPE = GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=96, n_vocab=257, init_std=0.5)
QUICK = ["--tasks", "hidden_letter", "--shots", "0,1", "--limit", "12"]


def make_run(folder: Path, *, seed: int, step: int = 5) -> Path:
    """A run folder with a small model of random weights that reads bytes."""
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    Bytes().save(folder / "tokenizer.json")
    save(folder, GPT(SHAPE), step=step)
    return folder


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two different models."""
    folder = tmp_path_factory.mktemp("models")
    return make_run(folder / "one", seed=1), make_run(folder / "two", seed=4)


@pytest.fixture
def run(tmp_path: Path, two_runs: tuple[Path, Path]) -> Path:
    """A copy of the first, and inside its parent folder."""
    return Path(shutil.copytree(two_runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("evaluations")))


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[dict[str, object]]]:
    assert main(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


FLAGS = {
    "nothing else": [],
    "several seeds": ["--seeds", "0,1"],
    "several orders": ["--orders", "2", "--shots", "2"],
    "calibration": ["--calibration"],
    "all checkpoints": ["--checkpoints", "all"],
    "a folder": ["--out", "elsewhere"],
    "another model": ["--against", "TWO"],
    "two protocols": ["--protocol", "gpt3,lm-eval", "--tasks", "arithmetic_2d_add", "--shots", "0"],
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_json_has_one_shape_whatever_is_asked(run, two_runs, flags, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    other = shutil.copytree(two_runs[1], "two", ignore=shutil.ignore_patterns("evaluations"))
    words = [str(other) if word == "TWO" else word for word in flags]
    given = evaluated(capsys, str(run), *QUICK, "--limit", "4", *words)
    assert given.keys() == {"models", "protocols", "comparison"}
    assert all(model.keys() == {"model", "step", "results", "seeds", "orders"} for model in given["models"])
    assert len(given["models"]) == 1 + ("--against" in flags)
    assert bool(given["comparison"]) == ("--against" in flags)
    assert bool(given["protocols"]) == ("--protocol" in flags)


def test_the_comparison_of_two_different_models_is_that_of_their_answers(two_runs, tmp_path, capsys):
    first_run, second_run = two_runs
    quick = ["--tasks", "novel_symbols", "--shots", "0,1", "--limit", "40"]
    given = evaluated(capsys, str(first_run), *quick, "--against", str(second_run), "--out", str(tmp_path / "out"))
    first, second = given["models"]
    assert first["results"] != second["results"]
    for row, ours, theirs in zip(given["comparison"], first["results"], second["results"], strict=True):
        assert (row["first"], row["second"]) == (ours["value"], theirs["value"])
        assert row["difference"] == pytest.approx(theirs["value"] - ours["value"])
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["only_second"] - row["only_first"] == round(40 * row["difference"])
        assert 0 < row["p_value"] <= 1
    assert any(row["difference"] for row in given["comparison"])
    assert len(list((tmp_path / "out").glob("step-00000005*"))) == 2  # of one step, but not of one training


def test_two_checkpoints_of_one_run_are_compared(run, capsys):
    make_run(run, seed=9, step=7)
    older, newer = sorted((run / "checkpoints").glob("step-*"))
    given = evaluated(capsys, str(newer), *QUICK, "--against", str(older))
    assert [model["step"] for model in given["models"]] == [7, 5]
    assert {path.parent.name for path in run.glob("evaluations/*/hidden_letter.json")} == {older.name, newer.name}
    assert main(["evaluate", str(run), *QUICK, "--against", str(newer)]) == 2
    assert "are the same model in one folder" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["evaluate", str(run), *QUICK, "--against", str(run)]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"--against is {run}, which is the first model itself: give another model")
    )


@contextmanager
def no_place(folder: Path, **how: object) -> Iterator[None]:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    yield


def test_a_run_in_a_folder_that_cannot_be_written_is_measured_and_printed_only(run, capsys, set_in_module):
    before = sorted(run.rglob("*"))
    set_in_module(ResultsStore, "hold", no_place)
    assert main(["evaluate", str(run), *QUICK]) == 0
    seen = capsys.readouterr()
    assert "evaluations cannot be written (read-only file system): results are printed and not stored" in seen.err
    assert "hidden_letter" in seen.out
    assert sorted(run.rglob("*")) == before


def test_an_out_that_cannot_be_written_is_refused_before_the_model_is_asked(run, tmp_path, capsys, set_in_module):
    (tmp_path / "file").write_text("mine")

    def asks(*args: object, **how: object) -> None:
        raise AssertionError("the model was asked")

    set_in_module(evaluate, "evaluate", asks)
    for out in ("file", "file/below"):
        assert main(["evaluate", str(run), *QUICK, "--out", str(tmp_path / out)]) == 2
        assert f"{out} cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_more_questions_than_memory_holds_are_refused(run, capsys):
    assert main(["evaluate", str(run), *QUICK, "--limit", str(10**12)]) == 2
    assert "must be at least 1 and at most 100,000" in capsys.readouterr().err


def test_more_questions_than_there_are_is_all_of_them(run, capsys):
    (model,) = evaluated(capsys, str(run), "--tasks", "arithmetic_2d_add", "--shots", "0", "--limit", str(10**12),
                   "--protocol", "lm-eval")["models"]  # fmt: skip
    assert model["results"][0]["n"] == 2000


def test_a_variant_is_stored_beside_the_plain_scores_and_says_what_it_is(run, capsys):
    words = [str(run), "--tasks", "hidden_letter", "--shots", "2", "--limit", "6"]
    plain = evaluated(capsys, *words)["models"][0]["results"]
    (stored,) = run.glob("evaluations/*/hidden_letter.json")
    before = stored.read_bytes()
    varied = evaluated(capsys, *words, "--variant", "contradiction", "--variant", "wrong_labels=0")
    later, whole = varied["models"][0]["results"]
    assert (later["task"], later["variant"]) == ("hidden_letter+contradiction=later", "contradiction=later")
    assert later["low"] <= later["value"] <= later["high"]
    assert (whole, whole["variant"]) == (plain[0], "")
    assert json.loads(stored.read_bytes())["results"] == json.loads(before)["results"]
    (beside,) = run.glob("evaluations/*/hidden_letter+contradiction=later.json")
    assert json.loads(beside.read_bytes())["results"][0]["variant"] == "contradiction=later"
    assert main(["report", str(run), "--out", str(run / "report.html")]) == 0
    assert "hidden_letter+contradiction=later" in (run / "report.html").read_text()


def test_the_list_names_files_and_chance(capsys):
    assert main(["evaluate", "list"]) == 0
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "hellaswag_val.jsonl" in rows["hellaswag"]
    assert "0.250" in rows["hellaswag"]
    assert "made by rule" in rows["scramble_ri"]
    assert "0.062" in rows["novel_symbols"]


SPELLINGS = ("hf:m", "hf:./m/", "hf:m/", "hf:../HERE/m", "hf:m/sub/..", "hf:.", "hf:sub/..")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_identity_is_content_and_not_the_spelling_of_a_path(tmp_path, spelling, monkeypatch, set_in_module):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m" / "sub").mkdir(parents=True)
    lm, tokenizer = GPTLanguageModel(GPT(SHAPE).eval()), Bytes()

    set_in_module(load_transformers, "load_transformers", lambda path: (lm, tokenizer, "digest"))
    monkeypatch.chdir(tmp_path / "m" if spelling in ("hf:.", "hf:sub/..") else tmp_path)
    out = str(tmp_path / "out")
    for name in (spelling.replace("HERE", tmp_path.name), f"hf:{tmp_path}/m"):
        assert main(["evaluate", name, *QUICK, "--limit", "3", "--out", out]) == 0
    (path,) = Path(out).rglob("*.json")
    assert path.parent.name.startswith("m-")
    assert len(next(Path(out).rglob("*.jsonl")).read_text().splitlines()) == 1 + 2 * 3
    assert load("hf:m").folder == Path("evaluations")


def test_what_does_not_fit_into_the_context_is_said(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(small_run), "--tasks", "novel_symbols,scramble_rw", "--shots", "0,16", "--limit", "5"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert (
        "novel_symbols: not all demonstrations of K = 16 fit into 32 tokens; 'K used' is the mean number that fits"
        in said
    )


def test_a_second_model_that_cannot_be_loaded_is_said_before_anything_is_asked(
    small_run: Path, capsys: pytest.CaptureFixture[str], set_in_module: Callable[[object, str, object], None]
) -> None:
    set_in_module(ask, "ask", lambda *rest: pytest.fail("asked"))
    assert main(["evaluate", str(small_run), "--tasks", "novel_symbols", "--against", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_an_evaluation_that_is_stopped_says_that_answers_are_kept(
    small_run: Path, capsys: pytest.CaptureFixture[str], set_in_module: Callable[[object, str, object], None]
) -> None:
    def stopped(*rest: object) -> None:
        raise KeyboardInterrupt

    set_in_module(ask, "ask", stopped)
    assert main(["evaluate", str(small_run), "--tasks", "novel_symbols"]) == 130
    assert "answers so far are in" in capsys.readouterr().err
