"""Forms of tasks under both protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.demonstrations import own_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.form import ACC, ACCURACY, Form, form_of
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"
SPLITS = Splits(Split("test", [Example(str(n), f"question {n}", ("a", "b")) for n in range(20)]))


def test_each_protocol_has_its_own_form() -> None:
    forms = {GPT3: Form(metrics=ACCURACY), HARNESS: Form(metrics=ACC)}
    assert [form_of("t", forms, protocol).metrics[0].name for protocol in (GPT3, HARNESS)] == ["accuracy", "acc"]
    with pytest.raises(BadValue, match=r"t is no task of lm-evaluation-harness 0\.4\.13: use --protocol gpt3"):
        form_of("t", {GPT3: Form(metrics=ACCURACY)}, HARNESS)


@pytest.mark.parametrize(
    ("task", "folder"), [("sat_analogies", "sat_analogies"), ("ptb", "ptb"), ("quac", "quac"), ("race_m", "race")]
)
def test_a_task_that_the_harness_has_not_is_refused(task: str, folder: str) -> None:
    with pytest.raises(BadValue, match=f"{task} is no task of lm-evaluation-harness"):
        make_task(task, data=DataFolder(SAMPLES / folder), protocol=HARNESS)


def test_a_form_makes_a_task_of_its_splits() -> None:
    form = Form(metrics=ACC, delimiter="\n", notes=("a note",), chance=lambda examples: 1 / len(examples))
    task = form.task("t", HARNESS, SPLITS, paper_name="T", default_shots=7)
    assert (task.name, task.protocol, task.metrics, task.delimiter) == ("t", HARNESS, ACC, "\n")
    assert (task.notes, task.chance, task.default_shots) == (("a note",), 1 / 20, 7)
    assert task.source == "test, demonstrations from the same set"
    assert [episode.example.id for episode in task.episodes(3, 0, 0)] == ["0", "1", "2"]


def test_a_form_may_draw_its_episodes_itself() -> None:
    form = Form(metrics=ACCURACY, episodes=lambda name, splits: own_episodes(name, splits.evaluated.examples))
    episodes = form.task("t", GPT3, SPLITS).episodes(99, 19, 0)
    assert len(episodes) == 20
    assert all(episode.example not in episode.demonstrations for episode in episodes)
