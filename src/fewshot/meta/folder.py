"""The folder of an experiment: states, result and report. Checks it, reads states from it, writes the result to it.

Nothing in it is lost: a folder with other files is refused before anything is written, and an earlier result of other
settings of the test is kept beside the new one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_json, write_json
from fewshot.base.lock import LOCK
from fewshot.base.log import note
from fewshot.meta.curves import Measured, from_json, to_json
from fewshot.meta.outer_loop import OuterLoop
from fewshot.meta.state import differences

RESULT, PAGE, STATE = "result.json", "report.html", ".safetensors"
OURS = re.compile(r"result(-\d+)?\.json|report\.html|[^.].*\.safetensors")
UNFINISHED = re.compile(rf"\.({OURS.pattern})\..*\.partial")  # of a process that was killed while it wrote
MAX_NAMES = 3  # in a message


def about_training(settings: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """Return what training depends on: the settings without those of the test, and digests in place of paths.

    `data` has the digest of what each path leads to, by the setting's dotted name.
    """
    return _replaced({name: value for name, value in settings.items() if not name.startswith("test")}, data)


def _replaced(settings: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    changed = dict(settings)
    for dotted, value in values.items():
        name, dot, rest = dotted.partition(".")
        inside = changed.get(name)
        changed[name] = _replaced(inside, {rest: value}) if dot and isinstance(inside, Mapping) else value
    return changed


def check_folder(folder: Path) -> None:
    """Raise BadValue if the folder holds a file that no experiment writes, or a report without its experiment."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadValue(f"{folder} is not a folder: give the name of a new or an empty one with --out")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK)
    strange = [name for name in names if not (OURS.fullmatch(name) or UNFINISHED.fullmatch(name))]
    written = [name for name in names if OURS.fullmatch(name)]
    if strange or (written and not any(name == RESULT or name.endswith(STATE) for name in written)):
        _refuse(folder, strange or written)


def resume_loops(loops: Mapping[str, OuterLoop], folder: Path, *, about: Mapping[str, Any]) -> None:
    """Read the state of every loop that has one in the folder, before any is trained.

    Raises BadValue if the folder holds another experiment, BadFile for a damaged state.
    """
    others = sorted({path.name for path in folder.glob(f"*{STATE}")} - {f"{name}{STATE}" for name in loops})
    if others:
        _refuse(folder, others)
    for name, loop in loops.items():
        path = folder / f"{name}{STATE}"
        if path.is_file():
            loop.load(path, about=about)
    if (folder / RESULT).is_file():
        result_about = _read(folder / RESULT).about
        settings, data = result_about.get("settings"), result_about.get("data", {})
        there = {}  # the result does not say its settings
        if isinstance(settings, Mapping) and isinstance(data, Mapping):
            there = about_training(settings, data)
        apart = list(differences(there, about))
        if apart:
            raise BadValue(f"{folder / RESULT} was made with other settings ({'; '.join(apart)}): give another --out")


def save_result(folder: Path, measured: Measured) -> None:
    """Write the result; an earlier one of other settings is renamed to result-N.json."""
    path = folder / RESULT
    if path.is_file() and _read(path).about.get("settings") != to_json(measured)["about"].get("settings"):
        numbered = (folder / f"result-{n}.json" for n in itertools.count(1))
        free = next(other for other in numbered if not other.exists())
        path.rename(free)
        note(f"the earlier result, measured with other settings, is kept as {free}")
    write_json(path, to_json(measured))


def _read(path: Path) -> Measured:
    try:
        return from_json(read_json(path), where=str(path))
    except (BadValue, BadFile) as error:
        raise BadFile(f"{error}; the result would be written there: give another --out") from None


def _refuse(folder: Path, names: list[str]) -> NoReturn:
    listed = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    raise BadValue(f"{folder} holds something else ({listed}): give a new or an empty folder with --out")
