"""Whole files in shared/data/eval: they load, with as many questions as the paper's Table C.1 counts.

Where the file is another than the paper's, its own size stands here with the reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import HARNESS, PROTOCOLS
from fewshot.evaluate.tasks.table import make_task

PAPER = {
    "hellaswag": ("hellaswag", 10042),
    "nq_open": ("nq_open", 3610),
    "web_questions": ("webquestions", 2032),
    "piqa": ("piqa", 1838),
    "openbookqa": ("rendered", 500),
    "winograd": ("rendered", 273),
    "winogrande": ("rendered", 1267),
}
OTHERS = {
    "arc_easy": ("rendered", 2376),  # the public test set; the paper counts 2,268 of it
    "arc_challenge": ("rendered", 1172),  # the public test set; the paper counts 1,144 of it
    "trivia_qa": ("rendered", 32),  # a part; the paper has Wikipedia's development set of 7,993
    "wmt16_ro_en": ("wmt16_roen_dev", 1999),  # the development set; the test set has as many
    "wmt16_en_ro": ("wmt16_roen_dev", 1999),
}


@pytest.mark.parametrize(("task", "folder", "n"), [(task, *row) for task, row in (PAPER | OTHERS).items()])
def test_a_whole_file_gives_all_its_questions(task: str, folder: str, n: int, shared_data: Path) -> None:
    made = make_task(task, data=DataFolder(shared_data / "eval" / folder), protocol=HARNESS)
    episodes = made.episodes(99_999, 0, 0)
    assert len(episodes) == n
    assert len({one.example.id for one in episodes}) == n


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_set_is_found_in_the_folder_of_all_sets(protocol, shared_data: Path) -> None:
    data = DataFolder(shared_data / "eval")
    data.names = [name for name in data.names if not name.startswith("format_samples/")]  # type: ignore[misc]
    for task in PAPER | OTHERS:
        assert len(make_task(task, data=data, protocol=protocol).episodes(1, 0, 0)) == 1


def test_in_the_papers_form_nothing_that_is_evaluated_is_shown(shared_data: Path) -> None:
    for task, (folder, n) in (PAPER | OTHERS).items():
        if task == "winograd":
            continue  # a single set, of which others are shown
        episodes = make_task(task, data=DataFolder(shared_data / "eval" / folder)).episodes(99_999, 2, 0)
        asked = {one.example.id for one in episodes}
        assert not asked & {shown.id for one in episodes for shown in one.demonstrations}
        assert len(asked) == n or 0.75 * n <= len(asked) <= 0.85 * n  # all, or without the fifth that is shown


def test_a_winograd_schema_is_never_shown_itself_or_its_twin(shared_data: Path) -> None:
    for one in make_task("winograd", data=DataFolder(shared_data / "eval/rendered")).episodes(273, 7, 0):
        assert len(one.demonstrations) == 7
        assert one.example.contexts not in [shown.contexts for shown in one.demonstrations]


def test_web_questions_training_parts_are_together_the_original_training_set(shared_data: Path) -> None:
    made = make_task("web_questions", data=DataFolder(shared_data / "eval/webquestions"))
    shown = {one.id for episode in made.episodes(2032, 64, 0) for one in episode.demonstrations}
    assert len(shown) == 3778  # every question of it is drawn by some of the 2,032
