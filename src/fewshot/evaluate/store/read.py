"""The results in a folder, read for reports. In: a folder that `results.py` fills. Out: `Result`s by training step.

A file that cannot be read is named and left out. Files from before each model had a folder of its own are read too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.base.log import note
from fewshot.evaluate.result import Result
from fewshot.evaluate.store.result_file import ResultFile, note_left_out, read_result_file
from fewshot.evaluate.store.results import OF_STEP

FORMER = "steps"  # folder of older checkpoints' results, formerly; those of the newest lay in no folder of their own


def read_results(folder: Path, weights: Mapping[int, str] | None = None) -> list[Result]:
    """Return for each task and protocol the results of the newest checkpoint that has any; see `read_steps`."""
    return newest(read_steps(folder, weights))


def newest(by_step: Mapping[int, Sequence[Result]]) -> list[Result]:
    """Return for each task and protocol the results of the last step that has any."""
    last = {(result.task, result.protocol): step for step in sorted(by_step) for result in by_step[step]}
    return [
        result for step in sorted(by_step) for result in by_step[step] if last[result.task, result.protocol] == step
    ]


def read_steps(folder: Path, weights: Mapping[int, str] | None = None) -> dict[int, list[Result]]:
    """Return all results in the folder by training step; for one metric, K and seed those on most questions.

    `weights` says whose checkpoints there are, by step: results of other weights at that step, or at a later one than
    all, are of a former training and left out. Where two sets of as many questions were asked both are there; former
    results, which carry no digest of their questions, count as of the one set of their source and number that there is.
    """
    by_step: dict[int, list[ResultFile]] = {}
    for stored in _all_stored(folder):
        by_step.setdefault(stored.step, []).append(stored)
    results_of: dict[int, list[Result]] = {}
    n_others = n_without = 0
    for step, files in sorted(by_step.items()):
        wanted = (weights or {}).get(step, files[-1].weights)
        known = step <= max(weights, default=step) if weights else True
        own = [stored for stored in files if stored.weights == wanted and known]
        n_others += len(files) - len(own)
        if results := [result for stored in own for result in _results_of(stored)]:
            results_of[step] = results
    digests = _only_digests(itertools.chain.from_iterable(results_of.values()))
    for step, results in results_of.items():
        joined = [
            replace(result, questions=digests[_of_unknown_set(result)])
            for result in results
            if not result.questions and _of_unknown_set(result) in digests
        ]
        others = [result for result in results if result.questions or _of_unknown_set(result) not in digests]
        results_of[step] = on_most_questions([*joined, *others])  # of the same measurement the last counts
        n_without += sum(result is other for result in results_of[step] for other in joined)
    if n_without:
        note(
            f"{folder}: {n_without} results of an older version have no digest of their questions; they are shown with "
            "results of the same source and number of questions"
        )
    if n_others:
        n_files = sum(map(len, by_step.values()))
        note(f"{folder}: {n_others} of {n_files} files of results are not shown: the run no longer holds their weights")
    return results_of


def _results_of(stored: ResultFile) -> list[Result]:
    """Return the results of a file; if one of them cannot be read, none, with a note."""
    try:
        return stored.results()
    except (BadValue, NotFinite) as error:
        note_left_out(stored.path, error)
        return []


def _of_unknown_set(result: Result) -> tuple[str, str, str, int]:
    """Return what a result says of its set of questions, their digest aside."""
    return result.task, result.protocol, result.source, result.n_asked


def _only_digests(results: Iterable[Result]) -> dict[tuple[str, str, str, int], str]:
    """Return the digest of questions by task, protocol, source and number, where there is only one such set."""
    digests: dict[tuple[str, str, str, int], set[str]] = {}
    for result in results:
        if result.questions:
            digests.setdefault(_of_unknown_set(result), set()).add(result.questions)
    return {key: next(iter(several)) for key, several in digests.items() if len(several) == 1}


def on_most_questions(results: Iterable[Result]) -> list[Result]:
    """Return for each task, protocol, metric, K and seed the result on most questions; if several have as many, all.

    The last of the same measurement counts; one whose questions are not known gives way to one whose are.
    """
    groups: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        key = (result.task, result.protocol, result.metric, result.shots, result.seed)
        groups.setdefault(key, {})[result.question_set] = result
    chosen: list[Result] = []
    for group in groups.values():
        most = max(result.n_asked for result in group.values())
        largest = [result for result in group.values() if result.n_asked == most]
        chosen += [result for result in largest if result.questions] or largest
    return chosen


def _all_stored(folder: Path) -> list[ResultFile]:
    """Return every file of results in a run's folder that can be read, the last written last."""
    own = [path for path in folder.glob("step-*") if OF_STEP.fullmatch(path.name)]
    places = [folder, *(folder / FORMER).glob("step-*"), *own]
    paths = [path for place in places for path in place.glob("*.json")]
    files = []
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            files.append(read_result_file(path))
        except BadFile as error:
            note_left_out(path, error)
    return files
