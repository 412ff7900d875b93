"""Rerun published findings about in-context learning, and check that what they say comes out.

fewshot verify                       all of runs/zoo
fewshot verify runs/zoo/rare.yaml    one of them
fewshot verify --stored              check the results that are stored beside them, in seconds
fewshot verify --store               and store new ones

A finding is a YAML file: what a paper claims, commands, and statements about their results (docs/zoo.md). What is done
is kept in --out: after an interruption the same command goes on. Exit code 1 if a statement does not hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fewshot.zoo.finding import Finding

FINDINGS = Path("runs/zoo")
SECONDS = 60.0  # of a minute
MAX_JOBS = 256

Records = dict[str, dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the findings, and where results go to or come from."""
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"findings, or folders of them (default: {FINDINGS})"
    )
    parser.add_argument("--stored", action="store_true", help="check the stored results, run nothing")
    parser.add_argument("--store", action="store_true", help="store the results beside the findings")
    parser.add_argument(
        "--out", type=Path, default=Path("out/verify"), help="folder of all that is run (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core)")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Check every statement of every finding; return 1 if one does not hold."""
    from fewshot.base.errors import check
    from fewshot.base.machine import n_cores
    from fewshot.cli.show import print_json
    from fewshot.zoo.finding import finding_files, read_finding

    check(not (args.stored and args.store), "--stored runs nothing that --store could store: leave one out")
    jobs = n_cores() if args.jobs is None else args.jobs
    check(1 <= jobs <= MAX_JOBS, f"--jobs is {jobs}, allowed: 1 to {MAX_JOBS}")
    files = finding_files(args.files or [FINDINGS])
    findings = {file: read_finding(file) for file in files}
    shown = []
    for file, records in _stored(findings) if args.stored else _run(findings, args.out, jobs):
        shown.append(_checked(file, findings[file], records))
        if args.store and not isinstance(records, str) and not shown[-1]["failure"]:
            _store(file, findings[file], records)
    if args.json:
        print_json(shown)
    else:
        _print(shown)
    return 0 if all(row["holds"] for row in shown) else 1


def _stored(findings: Mapping[Path, Finding]) -> Iterator[tuple[Path, Records | str]]:
    from fewshot.base.errors import BadFile
    from fewshot.zoo.stored import read_stored

    for file, finding in findings.items():
        try:
            yield file, read_stored(file, finding)
        except BadFile as error:
            yield file, str(error)


def _store(file: Path, finding: Finding, records: Records) -> None:
    from fewshot.base.log import note
    from fewshot.zoo.stored import store

    if not store(file, finding, records):
        note(f"{file.stem}: not all statements hold; the stored results, in which all do, stay")


def _run(findings: Mapping[Path, Finding], out: Path, jobs: int) -> Iterator[tuple[Path, Records | str]]:
    """Yield each finding with the records of its runs, or with why one of them failed, when all its runs ended."""
    from fewshot.base.errors import FewshotError
    from fewshot.base.log import note
    from fewshot.zoo.run import Job, Runner

    by_length = sorted(findings, key=lambda file: -findings[file].minutes)  # the longest first, so that no core waits
    waiting = [Job(file.stem, path, task) for file in by_length for path, task in findings[file].tasks().items()]
    files = {file.stem: file for file in findings}
    records: dict[str, Records] = {name: {} for name in files}
    left = {name: sum(job.finding == name for job in waiting) for name in files}
    failures: dict[str, str] = {}
    minutes = sum(finding.minutes for finding in findings.values()) / jobs
    note(f"{len(waiting)} runs of {len(files)} findings, {jobs} at once, about {minutes:.0f} minutes; they go to {out}")
    for job, ended in Runner(out, at_once=jobs).run(waiting):
        left[job.finding] -= 1
        if isinstance(ended, FewshotError):
            failures[job.finding] = str(ended)
            note(str(ended))
        else:
            records[job.finding][job.path] = ended
            note(f"{job.name}: {ended['seconds'] / SECONDS:.1f} minutes; runs left: {sum(left.values())}")
        if left[job.finding]:
            continue
        file = files[job.finding]
        if job.finding in failures:
            yield file, failures[job.finding]
            continue
        yield file, {path: records[job.finding][path] for path in findings[file].tasks()}


def _checked(file: Path, finding: Finding, records: Records | str) -> dict[str, Any]:
    """Return a finding's outcomes as plain values; a failure is a statement that does not hold."""
    from dataclasses import asdict

    from fewshot.base.errors import BadValue
    from fewshot.zoo.run import as_results
    from fewshot.zoo.statements import outcomes

    failure, seconds, rows = records if isinstance(records, str) else None, None, []
    if not isinstance(records, str):
        seconds = sum(record["seconds"] for record in records.values())
        try:
            checked = outcomes(finding, as_results(records))
            rows = [{**asdict(row), "fails": row.fails, "verdict": row.verdict} for row in checked]
        except BadValue as error:  # a path that leads nowhere
            failure = str(error)
    holds = failure is None and not any(row["fails"] for row in rows)
    return {"finding": file.stem, "holds": holds, "seconds": seconds, "failure": failure, "statements": rows}


def _print(shown: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each statement, and how many hold."""
    for row in sorted(shown, key=lambda row: row["finding"]):
        time = "" if row["seconds"] is None else f" ({row['seconds'] / SECONDS:.1f} minutes)"
        print(f"{row['finding']}{time}")
        for statement in row["statements"]:
            print(f"  {statement['verdict']}  {statement['says']}: {statement['value']} ({statement['band']})")
            if statement["not_shown"]:
                print(f"         {statement['not_shown']}")
        if row["failure"]:
            print(f"  FAILS  {row['failure']}")
    n = [statement["holds"] for row in shown for statement in row["statements"]]
    print(f"{sum(n)} of {len(n)} statements hold, in {len(shown)} findings")
