"""Whatever is evaluated after what: no result and no answer that was there is gone, or another than it was."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot.base.errors import FewshotError
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.calibration import calibration_error
from fewshot.evaluate.metrics.metric import accuracy, greedy_accuracy
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.store.results import ResultsStore, read_results, read_steps
from fewshot.evaluate.task import Task
from fewshot.evaluate.variation import in_order

WORDS = {"hot": "cold", "up": "down", "big": "small", "old": "new", "wet": "dry", "far": "near", "low": "high"}
SHOWN = [Example(word, f"{word} ->", (f" {other}", " or"), 0) for word, other in {"in": "out", "on": "off"}.items()]


def opposites(words=WORDS, *, shown=SHOWN, name="opposites", source="words.txt", gold=0, **fields) -> Task:
    asked = [Example(word, f"{word} ->", (f" {other}", " or"), gold) for word, other in words.items()]
    episodes = drawn_episodes(name, asked, shown)
    return Task(**{"name": name, "kind": "choose", "episodes": episodes, "metrics": (accuracy(),), "source": source,
                   **fields})  # fmt: skip


@pytest.fixture
def measured(tmp_path, copier, small_tokenizer):
    """A function that evaluates into one folder, as a command would."""
    tokenizer = small_tokenizer()
    lm = copier(tokenizer.n_vocab, 200, 1)

    def evaluated(
        where: Path = tmp_path / "evaluations",
        task: Task | None = None,
        *,
        weights: str = "w1",
        step: int = 10,
        name: str = "",
        keep_results: bool = True,
        **changed,
    ):
        settings = {"shots": (0, 1), "limit": 4, "seed": 0, "batch_size": 4, **changed}
        task = task or opposites()
        store = ResultsStore(root=where, weights=weights, step=step, name=name)
        if keep_results:
            store.check(task)
        answered = evaluate(lm, tokenizer, task, store=store.answers(task), **settings)
        if keep_results:
            store.add(task, answered)
        return answered

    return evaluated


def snapshot(root: Path) -> dict[object, object]:
    """Every result by all that it is of, and every answer, wherever it lies."""
    found: dict[object, object] = {}
    for path in root.rglob("*.json"):
        stored = json.loads(path.read_text())
        for one in stored.get("results", []):
            asked = one["n"] + one["n_skipped"]
            key = (stored["weights"], stored["step"], one["task"], one["protocol"], one["metric"], one["shots"])
            found[*key, one["seed"], asked, one.get("questions", "")] = one
    for path in root.rglob("*.jsonl"):
        weights, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        found |= {(weights["weights"], path.name, row["asked"]): row for row in rows}
    return found


NEIGHBOURS = {
    "fewer questions after more": [{"limit": 6}, {"limit": 3}],
    "another K on more questions": [{"shots": (0, 1), "limit": 4}, {"shots": (2,), "limit": 6}],
    "another K on fewer questions": [{"shots": (0, 1), "limit": 6}, {"shots": (2,), "limit": 2}],
    "one K of several measured again": [{"shots": (0, 1, 2)}, {"shots": (1,)}],
    "another seed on fewer questions": [{"seed": 0, "limit": 6}, {"seed": 1, "limit": 2}],
    "a training done anew in the same folder": [{"weights": "w1"}, {"weights": "w2"}, {"weights": "w1", "limit": 6}],
    "three trainings in turns": [{"weights": w, "limit": n} for n in (2, 5) for w in ("w1", "w2", "w3")],
    "a newer checkpoint on fewer questions": [{"step": 10, "limit": 6}, {"step": 20, "weights": "w2", "limit": 2}],
    "an older checkpoint after a newer one": [{"step": 20, "weights": "w2"}, {"step": 10, "limit": 6}],
    "the same weights at two steps": [{"step": 10}, {"step": 20}],
    "two data sets of one name and size": [{}, {"task": opposites(dict.fromkeys(WORDS, "no")), "shots": (0, 1)}],
    "the same questions with other answers": [{}, {"task": opposites(gold=1)}],
    "the same questions with other demonstrations": [{}, {"task": opposites(shown=SHOWN[:1])}],
    "a corrected set of fewer rows": [{"limit": 99}, {"task": opposites(dict(list(WORDS.items())[:5])), "limit": 99}],
    "the harness's protocol after the paper's": [{}, {"task": opposites(protocol=HARNESS)}],
    "one metric more, then less": [
        {"task": opposites(metrics=(accuracy(), calibration_error()))},
        {"task": opposites(), "limit": 6},
    ],
    "another order of demonstrations": [
        {"shots": (2,)},
        {"task": in_order(opposites(), 1), "shots": (2,), "keep_results": False},
    ],
    "a model of others beside a run": [{}, {"weights": "hf", "step": 0, "name": "gpt2"}],
    "two models of others of one name": [{"weights": w, "step": 0, "name": "m"} for w in ("a", "b", "a")],
    "one model of others under three names": [{"weights": "a", "step": 0, "name": n} for n in ("m", "good", "..")],
}


@pytest.mark.parametrize("steps", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_results_are_never_lost(tmp_path, measured, steps):
    root = tmp_path / "evaluations"
    before: dict[object, object] = {}
    for settings in steps:
        answered = measured(**settings)
        after = snapshot(root)
        assert {key: after.get(key) for key in before} == before
        if settings.get("keep_results", True):
            stored = [one for one in after.values() if "metric" in one]
            assert all(json.loads(json.dumps(one.to_json())) in stored for many in answered for one in many.results())
        before = after
    assert all(path.parent.name != "evaluations" for path in root.rglob("*.json"))


def test_results_of_several_evaluations_at_once_are_merged(tmp_path, measured):
    threads = [threading.Thread(target=measured, kwargs={"shots": (k,), "limit": 7}) for k in (0, 1, 2)]
    threads += [threading.Thread(target=measured, kwargs={"shots": (0,), "seed": seed}) for seed in (1, 2)]
    threads += [threading.Thread(target=measured, kwargs={"shots": (0,), "weights": w}) for w in ("w2", "w3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = snapshot(tmp_path / "evaluations").values()
    of = [(one["shots"], one["seed"], one["n"]) for one in found if "metric" in one]
    assert sorted(of) == sorted([(0, 0, 7), (1, 0, 7), (2, 0, 7), (0, 1, 4), (0, 2, 4), (0, 0, 4), (0, 0, 4)])
    folders = {path.name[:13] for path in (tmp_path / "evaluations").glob("step-*")}
    assert folders == {"step-00000010"}
    assert len(list((tmp_path / "evaluations").glob("step-*"))) == 3  # a folder for each of the three weights


def test_the_results_folder_holds_what_its_docs_say(tmp_path, measured):
    root = tmp_path / "evaluations"
    measured()
    measured(task=opposites(protocol=HARNESS, metrics=(greedy_accuracy("acc"),), kind="perplexity"))
    measured(weights="w2")
    measured(weights="x", step=0, name="gpt2")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    (other,) = {path.name for path in root.glob("step-00000010-*")}
    (foreign,) = {path.name for path in root.glob("gpt2-*")}
    answers = "answers/opposites.gpt3.jsonl"
    assert found == {
        ".lock",
        "step-00000010/opposites.json",
        "step-00000010/opposites.lm-eval.json",
        f"step-00000010/{answers}",
        "step-00000010/answers/opposites.lm-eval.jsonl",
        *(f"{folder}/{file}" for folder in (other, foreign) for file in ("opposites.json", answers)),
    }


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


IDENTITY = {
    "the source's name": {"source": "data/words.txt"},
    "the metrics": {"metrics": (accuracy(), calibration_error())},
    "the paper's name": {"paper_name": "Opposites"},
    "the description": {"description": "Opposites:"},
}


@pytest.mark.parametrize("fields", IDENTITY.values(), ids=IDENTITY)
def test_a_set_of_questions_is_its_content_and_not_what_it_is_called(measured, fields):
    (one, _), (two, _) = measured(), measured(task=opposites(**fields))
    assert one.questions == two.questions != ""


OTHER_SETS = {
    "fewer": {"limit": 3},
    "another question": {"task": opposites({**WORDS, "hot": "cool"})},
    "another context": {"task": opposites({"HOT" if word == "hot" else word: other for word, other in WORDS.items()})},
    "another right answer": {"task": opposites(gold=1)},
    "other demonstrations": {"task": opposites(shown=SHOWN[1:])},
    "no demonstrations": {"task": opposites(shown=[]), "shots": (0,)},
    "another order": {"task": opposites(), "reverse": True},
    "a second right answer": {"also_right": (1,)},
    "another wrong answer": {"wrong": " nor"},
    "one context a completion": {"contexts": True},
    "another family": {"task": opposites(name="contrasts")},  # takes others of the same questions
}


@pytest.mark.parametrize("change", OTHER_SETS.values(), ids=OTHER_SETS)
def test_another_set_of_questions_has_another_digest(measured, change):
    settings = {key: change[key] for key in ("task", "limit", "shots") if key in change}
    task = settings.pop("task", opposites())
    if change.keys() & {"reverse", "also_right", "wrong", "contexts"}:

        def episodes(n, shots, seed, drawn=task.episodes):
            found = list(drawn(n, shots, seed))[:: -1 if "reverse" in change else 1]
            first = found[0].example
            other = replace(
                first,
                also_right=change.get("also_right", ()),
                completions=(first.completions[0], change.get("wrong", " or")),
                contexts=("a", "b") if "contexts" in change else (),
            )
            return [replace(found[0], example=other), *found[1:]]

        task = replace(task, episodes=episodes)
    one, *_ = measured()
    two, *_ = measured(task=task, **settings)
    assert one.questions != two.questions


def test_k_and_seeds_of_one_set_have_one_digest(measured):
    found = {one.questions for seed in (0, 1) for one in measured(seed=seed, shots=(0, 1, 2))}
    assert len(found) == 1


def the_file(root: Path) -> Path:
    (path,) = root.glob("step-*/opposites.json")
    return path


CHANGES = {
    "a value": lambda one: {**one, "value": 0.965},
    "an interval": lambda one: {**one, "low": 0.0, "high": 0.1},
    "the number of questions": lambda one: {**one, "n": 2000},
    "the metric": lambda one: {**one, "metric": "f1"},
    "the questions": lambda one: {**one, "questions": "0" * 16},
    "the seed": lambda one: {**one, "seed": 8},
    "chance": lambda one: {**one, "chance": None if one["chance"] else 0.5},
    "the source": lambda one: {**one, "source": "other.txt"},
    "a sample": lambda one: {**one, "samples": []},
    "the paper's name": lambda one: {**one, "paper_name": "HellaSwag"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_by_hand_is_left_out_and_said_until_it_is_gone(tmp_path, measured, capsys, change):
    root = tmp_path / "evaluations"
    measured()
    plain = json.loads(the_file(root).read_text())
    plain["results"][0] = change(plain["results"][0])
    the_file(root).write_text(json.dumps(plain, indent=7))  # how it is laid out is no change
    for n_measured in (2, 3):
        capsys.readouterr()
        assert [one.shots for one in read_results(root)] == [1, 2][: n_measured - 1]
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "opposites.json: 1 of its results were changed after they were measured and are left out" in said
        assert "measure them again" in said
        measured(shots=(2,))


def test_a_changed_value_that_is_measured_again_is_shown_again(tmp_path, measured, capsys):
    root = tmp_path / "evaluations"
    measured()
    before = read_results(root)
    plain = json.loads(the_file(root).read_text())
    for one in plain["results"]:
        one["value"] = 0.965
    the_file(root).write_text(json.dumps(plain))
    assert read_steps(root) == {}
    assert "2 of its results" in capsys.readouterr().err
    measured()
    assert read_results(root) == before
    assert "left out" not in capsys.readouterr().err


def test_files_as_they_were_written_are_read_without_a_word(tmp_path, measured, capsys):
    measured()
    measured(limit=6)
    capsys.readouterr()
    assert read_results(tmp_path / "evaluations")
    assert capsys.readouterr().err == ""


DAMAGED = {
    "a value that is NaN": lambda text: re.sub(r'"value": [\d.]+', '"value": NaN', text, count=1),
    "an interval that is infinite": lambda text: re.sub(r'"high": [\d.]+', '"high": Infinity', text, count=1),
    "brackets without end": lambda text: "[" * 100_000,
    "a number of thousands of digits": lambda text: text.replace('"step": 10', f'"step": {"9" * 5000}'),
    "no results": lambda text: "{}",
    "a list": lambda text: "[]",
    "nothing": lambda text: "",
    "half of it": lambda text: text[: len(text) // 2],
    "a step in words": lambda text: text.replace('"step": 10', '"step": "ten"'),
    "results that are numbers": lambda text: '{"results": [1, 2]}',
    "fewer checksums than results": lambda text: text.replace('"checksums": [', '"checksums": ["a",'),
    "a text for a number": lambda text: text.replace('"shots": 0', '"shots": "none"'),
    "a field that is missing": lambda text: text.replace('"metric": "accuracy",', "", 1),
    "a binary file": lambda text: "\0\1",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_line_with_its_name_to_read_and_to_write(tmp_path, measured, capsys, damage):
    root = tmp_path / "evaluations"
    measured()
    measured(task=opposites(name="contrasts"))
    path = the_file(root)
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    for n_others in (2, 3):
        capsys.readouterr()
        assert [one.task for one in read_results(root)].count("contrasts") == n_others
        said = capsys.readouterr().err
        assert re.fullmatch(r".*opposites\.json.* left out: (move it away|measure them again).*\n", said)
        with pytest.raises(FewshotError, match=r"opposites\.json"):
            measured(shots=(2,))
        assert path.read_bytes() == before
        measured(task=opposites(name="contrasts"), shots=(2,))
    assert {folder.name for folder in root.glob("step-*")} == {"step-00000010"}


@pytest.mark.parametrize("damage", ["a value that is NaN", "a text for a number", "a field that is missing"])
def test_of_a_file_without_checksums_what_is_no_result_leaves_out_the_file(tmp_path, measured, capsys, damage):
    root = tmp_path / "evaluations"
    measured()
    measured(task=opposites(name="contrasts"))
    path = the_file(root)
    plain = json.loads(path.read_text())
    del plain["checksums"]
    path.write_text(DAMAGED[damage](json.dumps(plain)))
    capsys.readouterr()
    assert {one.task for one in read_results(root)} == {"contrasts"}
    assert re.fullmatch(r".*opposites\.json .* left out: move it away .*\n", capsys.readouterr().err)


def test_answers_that_cannot_be_read_are_named_and_only_their_own_task_is_refused(tmp_path, measured, capsys):
    root = tmp_path / "evaluations"
    measured()
    (path,) = root.glob("step-*/answers/opposites.gpt3.jsonl")
    path.write_bytes(b"no header\n\xff\0\n")
    before = path.read_bytes()
    capsys.readouterr()
    measured(task=opposites(name="contrasts"))
    assert re.fullmatch(r".*opposites\.gpt3\.jsonl .*: move it away .*\n", capsys.readouterr().err)
    with pytest.raises(FewshotError, match=r"opposites\.gpt3\.jsonl is damaged"):
        measured()
    assert path.read_bytes() == before
    assert {one.task for one in read_results(root)} == {"opposites", "contrasts"}


def test_a_damaged_file_is_refused_before_anything_is_asked(tmp_path, measured):
    measured()
    the_file(tmp_path / "evaluations").write_text("{")
    asked = []
    with pytest.raises(FewshotError, match=r"opposites\.json"):
        measured(shots=(2,), on_progress=lambda *done: asked.append(done))
    assert asked == []


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
