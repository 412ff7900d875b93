"""The README's commands, run as they stand, on a small folder of books."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from fewshot.bench.harness import save_small_model, write_repositories
from fewshot.cli.main import main
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.data.hub import FILES, Hub

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# What makes an hour of learning to learn a matter of seconds, by kind of tasks
ONCE = ["--outer.n_iterations", "1", "--outer.report_every", "1"]
SHORT = {
    "sinusoid": [*ONCE, "--test_tasks", "3"],
    "regression": [*ONCE, "--learner_outer.n_iterations", "1", "--test_tasks", "3"],
    "omniglot": [*ONCE, "--test.n_tasks", "3", "--data.validation", "0"],
    "text": [
        *ONCE,
        "--seeds",
        "2",
        "--shots",
        "[1]",
        "--test_tasks",
        "2",
        "--finetune.tasks",
        "2",
        "--finetune.steps",
        "[1, 2]",
    ],
    "report": [],
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("fewshot ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def write(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_datasets(folder: Path) -> None:
    """Two questions and one demonstration of each set that the README names, in their original layouts."""
    scene = {"ind": 0, "activity_label": "Sleeping", "ctx_a": "A cat lies by the fire.", "ctx_b": "it", "label": 1}
    scene["endings"] = ["flies away.", "closes its eyes.", "is a stone.", "sings."]
    write(folder / "hellaswag_val.jsonl", scene, {**scene, "ind": 1, "activity_label": "Resting"})
    write(folder / "hellaswag_train.jsonl", {**scene, "ind": 2, "activity_label": "Dreaming"})
    choices = [{"text": text, "label": label} for text, label in (("fire", "A"), ("ice", "B"), ("sea", "C"))]
    question = {"question": {"stem": "What is hot?", "choices": choices}, "answerKey": "A"}
    for part in ("Test", "Dev", "Train"):
        question["question"] = {**question["question"], "stem": f"What is hot in {part}?"}
        write(folder / "ARC-Easy" / f"ARC-Easy-{part}.jsonl", {"id": part, **question})
    for part in ("valid", "train"):
        write(folder / "piqa" / f"{part}.jsonl", {"goal": f"To warm a {part}", "sol1": "light a fire", "sol2": "sleep"})
        (folder / "piqa" / f"{part}-labels.lst").write_text("0\n")
    for part in ("val", "train"):
        passage = {"question": "is fire hot", "passage": f"Fire is hot in {part}.", "label": True, "idx": 0}
        write(folder / "BoolQ" / f"{part}.jsonl", passage)
    write(folder / "lambada_test.jsonl", {"text": "nobody spoke of the sea"}, {"text": "the cat sat by the fire"})
    write(folder / "lambada_development.jsonl", {"text": "it was a dark night"})


def write_hub(folder: Path, hub: Path) -> None:
    """HellaSwag as the hub has it, in a folder that stands for the hub."""
    names = ("hellaswag_val.jsonl", "hellaswag_train.jsonl")
    write_repositories(hub, {FILES[name][0]: DataFolder(folder).require("hellaswag", name).rows() for name in names})


def write_images(folder: Path) -> None:
    """Three pictures of twenty-four things."""
    for label in range(24):
        for number in range(3):
            path = folder / f"thing{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), 10 * label + number).save(path)


TASK = """task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{context}}"
doc_to_target: "{{completion}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""


@pytest.mark.timeout(600)
def test_the_commands_work_one_after_the_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        story = f"Chapter {i}. It was a dark night, and the cat sat by the fire; nobody spoke of the sea any more.\n"
        (tmp_path / "my_books").mkdir(exist_ok=True)
        (tmp_path / "my_books" / f"{i}.txt").write_text(story * 40, encoding="utf-8")
    write_datasets(tmp_path / "DATASETS")
    save_small_model(tmp_path / "PATH", ["It was a dark night, and the cat sat by the fire. " * 40])
    (tmp_path / "my_task.yaml").write_text(TASK)
    write(tmp_path / "rows.jsonl", {"context": "the cat", "completion": " sat"})
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    write_images(tmp_path / "IMAGES")
    write_hub(tmp_path / "DATASETS", tmp_path / "hub")
    set_in_module(Hub, "Hub", partial(Hub, tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub" / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # nothing is to be had there
    words = commands()
    assert [command[0] for command in words] == [
        *("train", "generate", "evaluate", "report", "patterns", "train"),
        *(*["evaluate"] * 5, "contamination", "lm-eval"),
        *["meta"] * 5,
        *(*["convert"] * 3, "train"),
    ]
    for command in words:
        short = SHORT[command[1]] if command[0] == "meta" else []
        assert main([*command, *short]) == 0, command
    printed = capsys.readouterr()
    assert "It was a" in printed.out
    assert "novel_symbols" in printed.out
    assert (tmp_path / "out" / "books" / "report.html").exists()
    assert "model: tiny-1m" in printed.err
    assert "for banded(64)" in printed.err
    assert "on the same questions" in printed.out
    assert "|my_task|" in printed.out
    assert "checked with transformers" in printed.out
    assert (tmp_path / "out" / "books-page" / "index.html").exists()
    assert "start: the weights of hf:out/books-hf" in printed.err
    page = (tmp_path / "meta.html").read_text()
    assert all(
        tasks in page for tasks in ("sinusoid:", "linear regression:", "IMAGES, 5-way 1-shot:", "text: novel_symbols:")
    )
