"""Results of findings in files beside them, to be checked without running anything. In: records. Out: JSON, records."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.base.config import to_plain
from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, write_json
from fewshot.zoo.finding import Finding
from fewshot.zoo.run import as_results
from fewshot.zoo.statements import outcomes


def stored_path(file: Path) -> Path:
    """Return where the results of a finding's file are stored."""
    return file.parent / "results" / f"{file.stem}.json"


def read_stored(file: Path, finding: Finding) -> dict[str, dict[str, Any]]:
    """Return the stored records; raises BadFile if there are none, or if they were made with other settings."""
    path = stored_path(file)
    if not path.is_file():
        raise BadFile(f"{path} is not there: make it with 'fewshot verify {file} --store'")
    records = read_json(path)
    is_whole = isinstance(records, Mapping) and all(
        isinstance(record, Mapping) and {"asked", "result", "seconds", "machine"} <= record.keys()
        for record in records.values()
    )
    if not is_whole:
        raise BadFile(f"{path} holds no results of 'fewshot verify': make it again with --store")
    asked = {name: to_plain(task) for name, task in finding.tasks().items()}
    apart = sorted(name for name in {*records, *asked} if records.get(name, {}).get("asked") != asked.get(name))
    if apart:
        raise BadFile(f"{path} was made with other settings ({', '.join(apart)}): make it again with --store")
    return {name: dict(records[name]) for name in asked}


def store(file: Path, finding: Finding, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Write the records and return True; one in which all holds stays where in the new one something does not."""
    path = stored_path(file)
    if not holds(finding, records):
        with contextlib.suppress(BadFile):  # there is none, or it is of other settings
            if holds(finding, read_stored(file, finding)):
                return False
    path.parent.mkdir(exist_ok=True)
    write_json(path, dict(records))
    return True


def holds(finding: Finding, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether no statement fails."""
    return not any(outcome.fails for outcome in outcomes(finding, as_results(records)))
