"""SuperGLUE's sets of choosing, and how all its sets are read, from their original layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from superglue_files import MADE_UP, full, sample

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import PROTOCOLS, EvalProtocol
from fewshot.evaluate.tasks.table import make_task

PAPER = {"boolq": 3270, "cb": 56, "copa": 100, "rte": 277, "wsc": 104, "multirc": 953}  # Table C.1


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("task", PAPER)
def test_validation_files_hold_as_many_questions_as_the_paper_counts(
    task: str, protocol: EvalProtocol, shared_data: Path
) -> None:
    episodes = full(task, shared_data, protocol).episodes(99_999, 31, 0)
    ids = {one.example.id for one in episodes}
    assert len(ids) == len(episodes) == (4848 if task == "multirc" else PAPER[task])  # MultiRC's answers
    assert len({one.split(":")[0] for one in ids}) == PAPER[task]
    assert {len(one.demonstrations) for one in episodes} == {
        31
    }  # the files here hold 32, of which the harness draws one more than it shows


@pytest.mark.parametrize(("task", "n"), [("wic", 2), ("record", 2)])
def test_samples_are_read_whole(task: str, n: int, shared_data: Path) -> None:
    assert len(sample(task, shared_data).episodes(99, 1, 0)) == n


@pytest.mark.parametrize(("task", "n_sets"), [("wsc", 1), ("multirc", 1), ("rte", 277)])
def test_wsc_and_multirc_have_one_set_of_demonstrations_others_one_for_each_question(
    task: str, n_sets: int, shared_data: Path
) -> None:
    sets = {one.demonstrations for one in full(task, shared_data).episodes(99_999, 8, 0)}
    assert len(sets) == n_sets


@pytest.mark.parametrize(
    ("task", "idx", "label", "text"),
    [
        ("BoolQ", 0, True, " yes"),
        ("BoolQ", 1, False, " no"),
        ("CB", 0, "contradiction", " false"),
        ("CB", 1, "neutral", " neither"),
        ("RTE", 0, "entailment", " True"),
        ("RTE", 1, "not_entailment", " False"),
        ("WiC", 1, False, " no"),
        ("COPA", 1, 1, " the keeper lit it again."),
    ],
)
def test_the_right_completion_is_that_of_the_label(task: str, idx: int, label: object, text: str) -> None:
    rows = MADE_UP.require(task, f"{task}/val.jsonl").rows("label")
    assert [row["label"] for row in rows if row["idx"] == idx] == [label]
    episodes = make_task(task.lower(), data=MADE_UP).episodes(99, 0, 0)
    (example,) = (one.example for one in episodes if one.example.id == str(idx))
    assert example.completions[example.gold] == text


def test_boolqs_own_files_give_what_superglues_do(shared_data: Path) -> None:
    own = make_task("boolq", data=DataFolder(shared_data / "eval/format_samples/boolq__0.1.0.zip"))
    theirs = {one.example.context: one.example for one in full("boolq", shared_data).episodes(9999, 0, 0)}
    episodes = own.episodes(99, 1, 0)
    assert len(episodes) == 1
    for one in episodes:
        assert theirs[one.example.context].completions == one.example.completions
        assert theirs[one.example.context].gold == one.example.gold
    assert own.source == "BoolQ/dev.jsonl, demonstrations from train.jsonl"


def test_demonstrations_come_from_the_same_folder_or_from_the_file_itself(tmp_path: Path) -> None:
    rows = [{"premise": f"P{n}.", "hypothesis": "H", "label": "neutral", "idx": n} for n in range(20)]
    for name in ("CB/val.jsonl", "elsewhere/train.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = make_task("cb", data=DataFolder(tmp_path))
    assert task.source == "CB/val.jsonl, demonstrations from a fifth of it, kept apart"
    assert 10 < len(task.episodes(99, 1, 0)) < 20


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    row = {"premise": "P", "hypothesis": "H", "label": "perhaps", "idx": 0}
    (tmp_path / "RTE/val.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(
        BadFile, match=r"RTE/val\.jsonl line 1: label is 'perhaps', must be one of 'entailment', 'not_entailment'"
    ):
        make_task("rte", data=DataFolder(tmp_path))
