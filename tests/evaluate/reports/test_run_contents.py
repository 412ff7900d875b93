from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import load_run
from fewshot.cli.main import main
from fewshot.evaluate.reports.page import EvaluatedModel
from fewshot.evaluate.reports.run_contents import check_metrics, evaluated_model

ROWS = {
    "no tokens": ({"step": 1, "loss": 2.0, "seconds": 1.0}, "tokens"),
    "tokens in words": ({"step": 1, "tokens": "many", "loss": 2.0, "seconds": 1.0}, "tokens"),
    "no seconds": ({"step": 1, "tokens": 5, "loss": 2.0}, "seconds"),
    "a loss in words": ({"step": 1, "tokens": 5, "loss": "low", "seconds": 1.0}, "loss"),
    "a list for a loss": ({"step": 1, "tokens": 5, "val_loss": [1], "seconds": 1.0}, "val_loss"),
}
METRICS = [
    {"tokens": 512, "seconds": 1.0, "loss": 2.0, "val_loss": None},
    {"tokens": 1024, "seconds": 2.4, "loss": 1.5},
]


@pytest.mark.parametrize(("row", "name"), ROWS.values(), ids=ROWS)
def test_a_row_without_a_number_that_the_page_needs_is_named(row, name):
    with pytest.raises(BadFile, match=f"m.jsonl: row 3 has no number '{name}'"):
        check_metrics([*METRICS, row], Path("m.jsonl"))
    check_metrics(METRICS, Path("m.jsonl"))


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    lines = [f"The cat sat on mat {i}. It looked at the {i * 7 % 13} birds and went home." for i in range(300)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    words = ["train", "--text", str(folder / "text.txt"), "--out", str(folder / "small"), "--data.n_vocab", "300"]
    shape = ["--model.n_layers", "1", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "32"]
    assert main([*words, *shape, "--n_tokens", "1000", "--loop.compile", "never", "--schedule.batch_tokens", "64"]) == 0
    return folder / "small"


def contents(folder: Path) -> EvaluatedModel:
    model, _, checkpoint = load_run(folder)
    training, machine = {"optimizer": "AdamW"}, {"cores": 2}
    return evaluated_model(RunFolder(folder), model, checkpoint, metrics=METRICS, training=training, machine=machine)


def test_a_run_is_told_by_what_its_folder_holds(small_run):
    model = contents(small_run)
    assert model.name == small_run.name
    assert model.summary["parameters"] == f"{model.n_parameters:,}"
    assert list(model.summary)[-3:] == ["optimizer", "training", "machine"]
    assert model.summary["training"] == "1,024 tokens in 2 s"
    assert model.summary["machine"] == "cores 2"
    assert model.positions
    assert [loss.first for loss in model.positions] == sorted(loss.first for loss in model.positions)


def test_a_run_without_its_tokens_has_no_loss_against_position(small_run, tmp_path):
    run = Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("data")))
    assert contents(run).positions == []


def test_a_damaged_checkpoint_beside_the_newest_is_left_out(small_run, tmp_path):
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    newest = max((run / "checkpoints").iterdir())
    for name, content in (("step-00000001", "{"), ("step-00000002", json.dumps({"step": 2}))):
        shutil.copytree(newest, newest.with_name(name))
        (newest.with_name(name) / "manifest.json").write_text(content)
    assert contents(run).n_parameters == contents(small_run).n_parameters
