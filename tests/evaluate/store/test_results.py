"""Whatever is evaluated after what: no result and no answer that was there is gone, or another than it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from opposites import SHOWN, WORDS, opposites

from fewshot.base.errors import FewshotError
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.load import load
from fewshot.evaluate.metrics.calibration import calibration_error
from fewshot.evaluate.metrics.metric import accuracy, greedy_accuracy
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.run import _answer, evaluate
from fewshot.evaluate.scoring.answerer import Answerer
from fewshot.evaluate.store.read import read_results
from fewshot.evaluate.store.results import ResultsStore
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.variation import in_order
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SETTINGS = {"shots": (0, 2), "limit": 24, "seed": 0, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder with a small model of random weights that reads bytes."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    tokenizer = Bytes()
    model = GPT(GPTConfig(n_layers=2, d_model=32, n_heads=2, n_ctx=512, n_vocab=tokenizer.n_vocab, init_std=0.3))
    tokenizer.save(folder / "tokenizer.json")
    save(folder, model, step=3)
    return folder


def evaluated(where, folder, **changed):
    loaded = load(str(folder))
    settings = {**SETTINGS, **changed}
    task = settings.pop("task", make_task("novel_letters"))
    store = ResultsStore(root=where, weights="w", step=7)
    store.check(task)
    answered = evaluate(loaded.lm, loaded.tokenizer, task, store=store.answers(task), **settings)
    store.add(task, answered)
    return answered


def test_results_and_answers_are_kept_by_task_and_protocol(tmp_path, folder):
    answered = evaluated(tmp_path, folder)
    evaluated(tmp_path, folder, task=make_task("arithmetic_2d_add", protocol=HARNESS))
    own = tmp_path / "step-00000007"
    assert {file.name for file in own.glob("*.json")} == {"novel_letters.json", "arithmetic_2d_add.lm-eval.json"}
    assert [one for one in read_results(tmp_path) if one.protocol == "gpt3"] == [
        result for one in answered for result in one.results()
    ]
    rows = [json.loads(line) for line in (own / "answers" / "novel_letters.gpt3.jsonl").read_text().splitlines()]
    assert rows[0] == {"weights": "w"}
    assert len(rows) == 1 + 2 * 24
    assert {row["shots"] for row in rows[1:]} == {0, 2}  # how many demonstrations each prompt held


def test_an_evaluation_that_was_cut_off_goes_on_and_ends_the_same(tmp_path, folder, monkeypatch, set_in_module):
    evaluated(tmp_path / "whole", folder)
    answer, calls = _answer, []

    def fails_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(*arguments)

    set_in_module(evaluate, "_answer", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "cut", folder)
    monkeypatch.undo()
    path = tmp_path / "cut" / "step-00000007" / "answers" / "novel_letters.gpt3.jsonl"
    kept = path.read_text()
    assert 1 < kept.count("\n") < 49
    path.write_text(kept + '{"asked": "cut off in the mid')
    asked, plain = [], Answerer.answers

    def counted(self, task, prompts):
        asked.append(len(prompts))
        return plain(self, task, prompts)

    monkeypatch.setattr(Answerer, "answers", counted)
    evaluated(tmp_path / "cut", folder)
    assert sum(asked) == 49 - kept.count("\n")
    for name in ("novel_letters.json", "answers/novel_letters.gpt3.jsonl"):
        cut, whole = (next((tmp_path / way).glob(f"step-*/{name}")) for way in ("cut", "whole"))
        assert cut.read_text() == whole.read_text()


def command(folder, *more: str) -> list[str]:
    return ["evaluate", str(folder), "--tasks", "novel_letters,arithmetic_2d_add", "--shots", "0,2", "--limit", "60",
            "--batch_size", "2", *more]  # fmt: skip


def test_an_evaluation_killed_half_way_and_started_again_gives_the_same_result_files(tmp_path, folder):
    once, twice = tmp_path / "once", tmp_path / "twice"
    base = [sys.executable, "-m", "fewshot.cli.main"]
    subprocess.run([*base, *command(folder, "--out", str(once))], check=True, capture_output=True)
    going = subprocess.Popen([*base, *command(folder, "--out", str(twice))], stderr=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    answers = twice / "step-00000003" / "answers" / "novel_letters.gpt3.jsonl"
    while going.poll() is None and not (answers.is_file() and answers.read_text().count("\n") > 20):
        time.sleep(0.01)
    going.send_signal(signal.SIGKILL)
    assert going.wait() == -signal.SIGKILL
    subprocess.run([*base, *command(folder, "--out", str(twice))], check=True, capture_output=True)
    for name in ("novel_letters.json", "arithmetic_2d_add.json"):
        assert (once / "step-00000003" / name).read_bytes() == (twice / "step-00000003" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_under_torchrun_give_what_one_gives(tmp_path, folder):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    subprocess.run([sys.executable, "-m", "fewshot.cli.main", *command(folder, "--out", str(alone))], check=True,
                   capture_output=True)  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*torchrun, "-m", "fewshot.cli.main", *command(folder, "--out", str(shared))],
                          capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("novel_letters.json", "arithmetic_2d_add.json", "answers/novel_letters.gpt3.jsonl"):
        one, two = (next(way.glob(f"step-*/{name}")).read_text() for way in (alone, shared))
        assert sorted(one.splitlines()) == sorted(two.splitlines())


def test_two_protocols_are_asked_on_the_same_items_and_stand_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["evaluate", str(folder), "--tasks", "arithmetic_2d_add", "--shots", "0", "--limit", "7",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--protocol", "gpt3,lm-eval", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (first,), (row,) = found["models"], found["protocols"]
    assert [(one["protocol"], one["metric"]) for one in first["results"]] == [("gpt3", "accuracy"), ("lm-eval", "acc")]
    assert (row["n"], row["n_unpaired"]) == (7, 0)
    assert main([*words, "--protocol", "gpt3,lm-eval"]) == 0
    seen = capsys.readouterr()
    assert "on the same questions" in seen.out
    assert "protocol" in seen.out.splitlines()[1]
    assert "lm-eval: choices are compared by summed log-probability" in seen.err


def test_the_best_number_of_shots_is_found_and_measured(
    folder: Path, tmp_path: Path, eval_data: DataFolder, capsys: pytest.CaptureFixture[str]
):
    sample = eval_data.path / "format_samples" / "openbookqa__main__1.0.0.zip"
    words = ["evaluate", str(folder), "--tasks", "openbookqa", "--data", str(sample), "--shots", "best", "--json",
             "--out", str(tmp_path)]  # fmt: skip
    assert main(words) == 0
    seen = capsys.readouterr()
    best = int(re.search(r"openbookqa: K = (\d+) scores best on the development set", seen.err)[1])
    assert {one["shots"] for one in json.loads(seen.out)["models"][0]["results"]} == {best}


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


def test_the_results_of_a_task_lie_beside_its_answers_whatever_is_moved_meanwhile(tmp_path: Path) -> None:
    task = make_task("novel_symbols")
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-00000005" / "other.json").write_text(json.dumps({"step": 5, "weights": "others", "results": []}))
    store = ResultsStore(root=tmp_path, weights="mine", step=5)
    store.check(task)
    store.answers(task)
    (tmp_path / "step-00000005").rename(tmp_path / "moved")
    store.add(task, [])
    (answers,) = tmp_path.glob("step-*/answers/novel_symbols.gpt3.jsonl")
    assert (answers.parents[1] / "novel_symbols.json").is_file()
