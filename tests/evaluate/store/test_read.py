"""Which of the stored results are shown: of former files, former trainings and several sets of questions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from opposites import opposites

from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.store.read import read_results, read_steps


def test_former_files_are_read_beside_new_ones_and_never_written(tmp_path, measured):
    root = tmp_path / "evaluations"
    measured(tmp_path / "made", limit=5)
    (made,) = (tmp_path / "made").glob("step-*/opposites.json")
    plain = json.loads(made.read_text())
    del plain["checksums"]
    for one in plain["results"]:
        del one["questions"]
    (root / "steps" / "step-00000005").mkdir(parents=True)
    former = {root / "opposites.json": 10, root / "steps" / "step-00000005" / "opposites.json": 5}
    for path, step in former.items():
        path.write_text(json.dumps(plain | {"step": step}))
    (root / "answers").mkdir()
    (root / "answers" / "opposites.gpt3.jsonl").write_text('{"weights": "w1"}\n')
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {step: [one.n for one in found] for step, found in read_steps(root).items()} == {5: [5, 5], 10: [5, 5]}
    measured(limit=4, shots=(0, 1, 2))
    measured(limit=3, weights="w2", step=20)
    assert {path: path.read_bytes() for path in before} == before
    found = {step: [(one.shots, one.n) for one in found] for step, found in read_steps(root).items()}
    assert found == {5: [(0, 5), (1, 5)], 10: [(0, 5), (1, 5), (2, 4)], 20: [(0, 3), (1, 3)]}
    assert [(one.shots, one.n) for one in read_results(root)] == [(0, 3), (1, 3)]


def of_before_digests(root: Path) -> None:
    """Make every result in the folder one that was stored without a digest of its questions."""
    for path in root.rglob("opposites*.json"):
        plain = json.loads(path.read_text())
        plain.pop("checksums", None)
        for one in plain["results"]:
            one.pop("questions", None)
        path.write_text(json.dumps(plain))


def sets(found) -> list[tuple[int, int, str]]:
    return [(one.shots, one.seed, one.question_set) for one in found]


def test_results_without_a_digest_are_one_set_with_those_that_have_one(tmp_path, measured, capsys):
    root = tmp_path / "evaluations"
    measured(shots=(0, 1, 2), step=10)
    measured(shots=(0, 1), step=20, weights="w2")
    of_before_digests(root)
    capsys.readouterr()
    assert {one.question_set for found in read_steps(root).values() for one in found} == {
        "an unrecorded set of 4 questions of words.txt"
    }
    assert capsys.readouterr().err == ""
    (now, _) = measured(shots=(1, 4), step=20, weights="w2")
    measured(shots=(2,), seed=1, step=20, weights="w2")
    capsys.readouterr()
    found = read_steps(root)
    (digest,) = {one.question_set for results in found.values() for one in results}
    assert digest == now.questions
    assert sets(found[10]) == [(0, 0, digest), (1, 0, digest), (2, 0, digest)]
    assert sorted(sets(found[20])) == [(0, 0, digest), (1, 0, digest), (2, 1, digest), (4, 0, digest)]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "4 results of an older version have no digest of their questions" in said
    assert str(root) in said


def test_of_one_k_and_seed_the_result_with_a_digest_counts(tmp_path, measured):
    root = tmp_path / "evaluations"
    measured(shots=(0, 1))
    of_before_digests(root)
    for path in root.rglob("opposites.json"):
        plain = json.loads(path.read_text())
        for one in plain["results"]:
            one["value"] = 0.125
        path.write_text(json.dumps(plain))
        later = root / "steps" / "step-00000010"
        later.mkdir(parents=True)
        path.rename(later / "opposites.json")
    measured(shots=(1,))
    os.utime(root / "steps" / "step-00000010" / "opposites.json", (2e9, 2e9))  # written last
    zero, one = sorted(read_steps(root)[10], key=lambda result: result.shots)
    assert zero.value == 0.125
    assert one.value != 0.125
    assert zero.question_set == one.question_set


NOT_JOINED = {
    "two sets of that size": [{}, {"task": opposites(gold=1), "shots": (4,)}],
    "another source": [{"task": opposites(source="others.txt"), "shots": (4,)}],
    "another number": [{"limit": 5, "shots": (4,)}],
    "another protocol": [{"task": opposites(protocol=HARNESS), "shots": (4,)}],
    "another task": [{"task": opposites(name="contrasts"), "shots": (4,)}],
}


@pytest.mark.parametrize("others", NOT_JOINED.values(), ids=NOT_JOINED)
def test_results_without_a_digest_join_one_set_of_their_task_source_and_number_alone(tmp_path, measured, others):
    root = tmp_path / "evaluations"
    measured(shots=(7,))
    of_before_digests(root)
    for settings in others:
        measured(**settings)
    (alone,) = (one for one in read_steps(root)[10] if one.shots == 7)
    assert alone.questions == ""


def test_a_folder_that_fewshot_did_not_name_is_no_checkpoints_results(tmp_path, measured):
    root = tmp_path / "evaluations"
    measured()
    (root / "step-00000010").rename(root / "step-00000010-best")
    (root / "step-notes").mkdir()
    (root / "step-notes" / "mine.json").write_text("{}")
    assert read_steps(root) == {}


def test_results_of_a_former_training_are_kept_and_not_drawn_with_the_new(tmp_path, measured, capsys):
    root = tmp_path / "evaluations"
    for step in (10, 20, 30):
        measured(step=step, weights=f"former {step}", limit=6)
    measured(step=10, weights="new 10", limit=3)
    measured(step=20, weights="new 20", limit=3)
    capsys.readouterr()
    found = read_steps(root, {10: "new 10", 20: "new 20"})
    assert {step: {one.n for one in results} for step, results in found.items()} == {10: {3}, 20: {3}}
    assert "3 of 5 files of results are not shown" in capsys.readouterr().err
    assert {step: {one.n for one in results} for step, results in read_steps(root, {20: "new 20"}).items()} == {
        10: {3},  # whose checkpoint is gone: what was measured last
        20: {3},
    }
    assert len(list(root.glob("step-*"))) == 5


def test_of_one_metric_that_on_most_questions_is_read_and_of_as_many_both(tmp_path, measured):
    root = tmp_path / "evaluations"
    measured(limit=3)
    measured(limit=6, shots=(1, 2))
    measured(limit=5, shots=(2,))
    assert [(one.shots, one.n) for one in read_results(root)] == [(0, 3), (1, 6), (2, 6)]
    measured(limit=6, shots=(2,), task=opposites(gold=1))
    found = read_results(root)
    assert [(one.shots, one.n) for one in found] == [(0, 3), (1, 6), (2, 6), (2, 6)]
    assert len({one.questions for one in found[2:]}) == 2
