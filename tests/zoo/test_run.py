"""Runs are done once, go on after an interruption, and a failure says where to look."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import FewshotError
from fewshot.zoo.finding import RunTask
from fewshot.zoo.run import Job, Runner, as_results

# Stands in for `fewshot`: notes its words and prints its configuration, or fails, or waits for a signal
PROGRAM = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1] if "--out" in words else words[1])
out.mkdir(parents=True, exist_ok=True)
with (out / "called").open("a") as file:
    print(" ".join(words[:words.index("--out")] if "--out" in words else words), file=file)
if words[0] == "fail":
    print("a reason", file=sys.stderr)
    sys.exit(2)
if words[0] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((out / "told").write_text("yes") and 130))
    (out / "ready").write_text("")
    time.sleep(100)
if words[0] == "words":
    print("no JSON")
elif "--json" in words:
    config = pathlib.Path(words[words.index("--config") + 1]).read_text() if "--config" in words else ""
    print(json.dumps({"config": config, "threads": os.environ.get("OMP_NUM_THREADS"), "words": words}))
"""


def runner(tmp_path: Path, *, at_once: int = 2) -> Runner:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    return Runner(tmp_path / "out", at_once=at_once, program=(sys.executable, str(script)))


def job(*commands: str, path: str = "run", **config: Any) -> Job:
    return Job("finding", path, RunTask(commands=commands, config=config))


def test_the_commands_json_is_the_result(tmp_path: Path) -> None:
    asked = job("last y", n=3)
    ((_, record),) = runner(tmp_path).run([asked])
    assert not isinstance(record, FewshotError)
    words = record["result"].pop("words")
    assert record["result"] == {"config": "n: 3\n", "threads": "1"}
    assert words[:4] == ["last", "y", "--out", "{out}"]  # where it is does not belong to a result
    assert record["asked"] == {"commands": ["last y"], "config": {"n": 3}}
    assert (asked.folder(tmp_path / "out") / "out" / "called").read_text() == "last y\n"


def test_what_runs_are_prepared_by_is_run_once_for_all_that_name_it(tmp_path: Path) -> None:
    prepare = ("first --out {prepared}", "second --out {prepared}")
    a, b = job(*prepare, "last {prepared}", path="a"), job(*prepare, "last {prepared} y", path="b")
    other = job("first --out {prepared}/x", "last", path="c")
    records = [record for _, record in runner(tmp_path).run([a, b, other])]
    assert not any(isinstance(record, FewshotError) for record in records)
    seen = {record["result"]["words"][1] for record in records if not isinstance(record, FewshotError)}
    assert seen == {"{prepared}", "--out"}  # where it is does not belong to a result
    called = {path.parent: path.read_text() for path in (tmp_path / "out" / "prepared").rglob("called")}
    assert sorted(called.values()) == ["first\n", "first\nsecond\n"]
    (prepared,) = (folder for folder, text in called.items() if "second" in text)
    for asked, words in ((a, f"last {prepared}"), (b, f"last {prepared} y")):
        assert (asked.folder(tmp_path / "out") / "out" / "called").read_text() == words + "\n"
    list(runner(tmp_path).run([job(*prepare, "last {prepared}", path="d")]))
    assert (prepared / "called").read_text() == "first\nsecond\n"


def test_a_preparation_that_failed_is_run_again(tmp_path: Path) -> None:
    asked = job("first --out {prepared}", "fail --out {prepared}", "last")
    for times in (1, 2):
        ((_, failure),) = runner(tmp_path).run([asked])
        assert isinstance(failure, FewshotError)
        assert "'fewshot fail" in str(failure)
        assert "a reason" in str(failure)
        (called,) = (tmp_path / "out" / "prepared").rglob("called")
        assert called.read_text() == "first\nfail\n" * times


def test_what_is_done_is_not_run_again_and_a_changed_run_starts_afresh(tmp_path: Path) -> None:
    done, other = job("last", n=3), job("last", n=4)
    ((_, first),) = runner(tmp_path).run([done])
    ((_, again),) = runner(tmp_path).run([done])
    assert isinstance(first, dict)
    assert again == first
    assert (done.folder(tmp_path / "out") / "out" / "called").read_text().count("last") == 1
    ((_, changed),) = runner(tmp_path).run([other])
    assert isinstance(changed, dict)
    assert changed["result"] != first["result"]


@pytest.mark.parametrize("begun", ["config.yaml", "ladder.json"])
def test_training_that_was_stopped_goes_on_and_other_commands_are_given_again(tmp_path: Path, begun: str) -> None:
    for words in ("train --text a", "last y"):
        asked = job(words)
        folder = asked.folder(tmp_path / "out") / "out"
        folder.mkdir(parents=True)
        (folder / begun).write_text("")
        ((_, record),) = runner(tmp_path).run([asked])
        assert not isinstance(record, FewshotError), record
        assert record["result"]["words"][:3] == (
            ["resume", "{out}", "--json"] if words.startswith("train") else ["last", "y", "--out"]
        )


def test_a_failed_run_says_what_its_command_said_and_the_others_go_on(tmp_path: Path) -> None:
    bad, mute, good = job("fail", path="bad"), job("words", path="mute"), job("last", path="good")
    ended = {ran.path: record for ran, record in runner(tmp_path, at_once=1).run([bad, mute, good])}
    assert "finding: bad: 'fewshot fail --out" in str(ended["bad"])
    assert "ended with exit code 2: a reason (all it said: " in str(ended["bad"])
    assert "what 'fewshot words' printed" in str(ended["mute"])
    assert isinstance(ended["good"], dict)
    ((_, again),) = runner(tmp_path).run([bad])
    assert isinstance(again, FewshotError)
    assert (bad.folder(tmp_path / "out") / "out" / "called").read_text().count("fail") == 2  # it was tried again


def test_a_stopped_runner_tells_its_commands_and_waits_for_them(tmp_path: Path) -> None:
    asked = job("wait", path="long")
    ready = asked.folder(tmp_path / "out") / "out" / "ready"
    runs = runner(tmp_path).run([asked, job("last", path="short")])
    next(runs)  # the short one
    while not ready.is_file():
        pass
    runs.close()  # type: ignore[attr-defined] # as Ctrl-C does between two results
    assert (ready.parent / "told").read_text() == "yes"
    assert not (ready.parents[1] / "result.json").exists()


def test_results_of_seeds_stand_under_their_run() -> None:
    records = {"few": {"result": 1}, "demo.0": {"result": 2}, "demo.1": {"result": 3}}
    assert as_results(records) == {"few": 1, "demo": {"0": 2, "1": 3}}


@pytest.mark.parametrize("words", ["probe {out}", "probe"])
def test_a_command_that_does_not_name_its_folder_is_given_it(tmp_path: Path, words: str) -> None:
    from fewshot.zoo.run import _words

    folder = str(tmp_path / "out")
    assert _words(words, tmp_path) == (["probe", folder] if "{out}" in words else ["probe", "--out", folder])
