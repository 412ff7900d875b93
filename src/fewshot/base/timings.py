"""How long things take on this machine: measured once and stored in the user's cache, so that choices stay the same."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, write_json
from fewshot.base.machine import cache_folder


def stored_times(
    kind: str, about: object, names: Collection[str], measure: Callable[[], Mapping[str, float]]
) -> dict[str, float]:
    """Return what `measure` gives, a positive number for each of the names; stored by what it is `about`.

    A stored file that is missing or damaged is measured again; where none can be stored, too.
    """
    path = cache_folder() / kind / f"{hashlib.sha256(repr([about, *names]).encode()).hexdigest()[:16]}.json"
    try:
        stored = read_json(path)
    except (BadFile, OSError):
        stored = None
    if isinstance(stored, dict) and stored.keys() == set(names) and all(map(_is_duration, stored.values())):
        return stored
    measured = dict(measure())
    with contextlib.suppress(BadFile, OSError):  # no place to store them
        write_json(path, measured)
    return measured


def _is_duration(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0
