"""The folder of an experiment: states, result and page. In: a folder. Out: whether it may be written to; the result.

Nothing that lies there is lost: a folder with something else in it is refused before anything is written, and a result
that was measured otherwise is kept beside the new one.
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
SHOWN = 3  # names in a message


def about_training(settings: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """Return what training depends on: settings without those of the test, and content in place of the paths to it.

    `data` has the dotted names of settings that are paths, each with a digest of what lies there.
    """
    return _replaced({name: value for name, value in settings.items() if not name.startswith("test")}, data)


def _replaced(settings: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    changed = dict(settings)
    for dotted, value in values.items():
        name, dot, rest = dotted.partition(".")
        inside = changed.get(name)
        changed[name] = _replaced(inside, {rest: value}) if dot and isinstance(inside, Mapping) else value
    return changed


def refuse_strangers(folder: Path) -> None:
    """Raise BadValue if something lies there that no experiment writes, or a page whose experiment is not there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadValue(f"{folder} is no folder: give the name of a new or an empty one with --out")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK)
    strange = [name for name in names if not (OURS.fullmatch(name) or UNFINISHED.fullmatch(name))]
    written = [name for name in names if OURS.fullmatch(name)]
    if strange or (written and not any(name == RESULT or name.endswith(STATE) for name in written)):
        _refuse(folder, strange or written)


def take_up(loops: Mapping[str, OuterLoop], folder: Path, *, about: Mapping[str, Any]) -> None:
    """Bring every loop to where its state in the folder left it, before any is trained.

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
        found = _read(folder / RESULT).about
        settings, data = found.get("settings"), found.get("data", {})
        there = {}  # of what does not say its settings
        if isinstance(settings, Mapping) and isinstance(data, Mapping):
            there = about_training(settings, data)
        apart = list(differences(there, about))
        if apart:
            raise BadValue(f"{folder / RESULT} is of other settings ({'; '.join(apart)}): give another --out")


def keep(folder: Path, measured: Measured) -> None:
    """Write the result; one that is there and was measured otherwise gets a name of its own."""
    path = folder / RESULT
    if path.is_file() and _read(path).about.get("settings") != to_json(measured)["about"].get("settings"):
        numbered = (folder / f"result-{n}.json" for n in itertools.count(1))
        free = next(other for other in numbered if not other.exists())
        path.rename(free)
        note(f"the earlier result, measured otherwise, is kept as {free}")
    write_json(path, to_json(measured))


def _read(path: Path) -> Measured:
    try:
        return from_json(read_json(path), where=str(path))
    except (BadValue, BadFile) as error:
        raise BadFile(f"{error}; it stands where the result goes: give another --out") from None


def _refuse(folder: Path, names: list[str]) -> NoReturn:
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    raise BadValue(f"{folder} holds something else ({shown}): give a new or an empty folder with --out")
