"""A run folder: which of its entries are checkpoints, and whether anything in it could be overwritten.

In: paths. Out: names and refusals. What the program did not name itself is not its own: it is neither used nor deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fewshot.base.errors import BadValue
from fewshot.base.files import remove_litter, write_text
from fewshot.base.lock import LOCK, is_empty

CONFIG, TOKENIZER, DATA, FOLDER = "config.yaml", "tokenizer.json", "data", "checkpoints"
CONVERTED = "a converted model, which can be used; training from one is not there yet"
UNFINISHED = ".unfinished"  # in a folder that was empty before something was begun there, which did not come to its end


def folder_of(step: int) -> str:
    """Name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's name; None for any other name, such as that of a copy."""
    digits = re.fullmatch(r"step-([0-9]{8,})", name)
    return int(digits[1]) if digits and folder_of(int(digits[1])) == name else None


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the run's checkpoints, oldest first; unverified."""
    inside = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else iter(())
    steps = {path: step for path in inside if (step := step_of(path.name)) is not None and path.is_dir()}
    return sorted(steps, key=lambda path: steps[path])


def check_is_new(folder: Path) -> None:
    """Raise `BadValue`, with the way out, if a new run or model in `folder` could overwrite anything.

    Nothing is written. A folder is new if it is not there, empty, or holds what `making` did not finish.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        name = os.fsencode(folder).decode("utf-8", errors="replace")
        raise BadValue(f"{name} is a name that is not UTF-8, in which weights cannot be stored: give another") from None
    if folder.exists() and not folder.is_dir():
        raise BadValue(f"{folder} is a file; give the name of a new folder")
    if is_empty(folder):
        return
    if (folder / CONFIG).is_file():
        raise BadValue(
            f"{folder} already holds a run: continue it with 'fewshot resume {folder}', or give a new folder"
        )
    if (folder / UNFINISHED).is_file() and not checkpoint_folders(folder):
        return
    if checkpoint_folders(folder):
        raise BadValue(f"{folder} holds {CONVERTED}: give a new folder")
    names = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    raise BadValue(f"{folder} is not empty (it holds {shown}): give a new folder")


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """A block in which `folder`, held by the caller, gets what is new there; what it may not overwrite is refused.

    If the block fails, or its process is killed, the same may be tried again in the same folder.
    """
    check_is_new(folder)
    remove_litter(folder)
    write_text(folder / UNFINISHED, "what is here was begun and not finished; it may be begun again\n")
    yield
    (folder / UNFINISHED).unlink()
