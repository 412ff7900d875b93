from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from fewshot.base.errors import BadValue, UnknownName
from fewshot.evaluate.data.files import DataFolder, NeedsData
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import TASKS, list_tasks, make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


H1 = {  # task: sample, row of Table H.1, K, chance, has a development set beside the evaluated one
    "story_cloze": ("story_cloze", "StoryCloze", 70, 1 / 2, True),
    "nq_open": ("nq_open", "NQs", 64, None, False),
    "web_questions": ("web_questions", "WebQs", 64, None, False),
    "trivia_qa": ("trivia_qa", "TriviaQA", 64, None, False),
    "winograd": ("winograd", "Winograd", 7, 1 / 2, False),
    "winogrande": ("winogrande", "Winogrande", 50, 1 / 2, False),
    "piqa": ("piqa", "PIQA", 50, 1 / 2, False),
    "arc_easy": ("arc", "ARC (Easy)", 50, 1 / 4, True),
    "arc_challenge": ("arc", "ARC (Challenge)", 50, 1 / 4, True),
    "openbookqa": ("openbookqa", "OpenBookQA", 100, 1 / 4, True),
    "anli_r1": ("anli", "ANLI R1", 50, 1 / 3, True),
    "anli_r2": ("anli", "ANLI R2", 50, 1 / 3, True),
    "anli_r3": ("anli", "ANLI R3", 50, 1 / 3, True),
    "ptb": ("ptb", "PTB", 0, None, False),
}


HARNESS_METRICS = {
    **{task: ["acc"] for task in ("story_cloze", "winograd", "winogrande", "anli_r1")},
    **{task: ["acc", "acc_norm"] for task in ("piqa", "arc_easy", "openbookqa")},
}


def sampled(task: str) -> DataFolder:
    return DataFolder(SAMPLES / H1[task][0])


PAPER = {"2D+", "2D-", "3D+", "3D-", "4D+", "4D-", "5D+", "5D-", "2Dx", "1DC", "CL", "A1", "A2", "RI", "RW"}


@pytest.fixture(scope="module")
def by_rule() -> dict[str, Task]:
    """The tasks that are made without files."""
    made = {}
    for name in TASKS:
        with suppress(NeedsData):
            made[name] = make_task(name)
    return made


def test_tasks_by_rule_say_so_and_have_their_own_names_and_the_papers_rows(by_rule: dict[str, Task]) -> None:
    assert [name for name, task in by_rule.items() if not task.synthetic] == []
    assert all(name == task.name for name, task in by_rule.items())
    assert {task.paper_name for task in by_rule.values() if task.paper_name} == PAPER
    assert not by_rule.keys() & H1.keys()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_by_rule_gives_what_is_asked_and_any_other_says_which_files_it_needs(
    name: str, by_rule: dict[str, Task]
) -> None:
    if name in by_rule:
        n_shots = [len(episode.demonstrations) for episode in by_rule[name].episodes(7, 5, 0)]
        assert n_shots == [5] * 7
    else:
        with pytest.raises(BadValue, match=f"{name} needs --data FOLDER, the folder that holds "):
            make_task(name)


def test_every_task_is_listed_once_with_its_files_and_the_score_of_a_guess() -> None:
    rows = {row.name: row for row in list_tasks()}
    assert list(rows) == sorted(TASKS)
    assert rows["arithmetic_2d_add"].files == "made by rule"
    assert rows["novel_symbols"].chance == pytest.approx(1 / 16)
    assert (rows["boolq"].files, rows["boolq"].chance) == ("BoolQ/val.jsonl or boolq/dev.jsonl or dev.jsonl", 0.5)
    assert rows["lambada"].chance is None


def test_a_misspelt_task_is_told_the_nearest():
    with pytest.raises(UnknownName, match="nearest: 'novel_symbols'"):
        make_task("novel_symbol")


@pytest.mark.parametrize("name", H1)
def test_k_chance_and_development_set_are_the_papers(name: str) -> None:
    task = make_task(name, data=sampled(name))
    assert (task.name, task.paper_name, task.default_shots) == (name, H1[name][1], H1[name][2])
    assert task.chance == (None if H1[name][3] is None else pytest.approx(H1[name][3]))
    assert (task.dev is not None) == H1[name][4]


@pytest.mark.parametrize("name", HARNESS_METRICS)
def test_measures_are_named_as_the_harness_names_them(name: str) -> None:
    task = make_task(name, data=sampled(name), protocol=HARNESS)
    assert [metric.name for metric in task.metrics] == HARNESS_METRICS[name]
    assert task.answer_context is None
