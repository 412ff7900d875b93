"""A model, written for another program and compared with what that program computes before it is called done.

In: a model and its tokenizer, the name of a format. Out: a new folder with `export.json`, which says what was compared.
A folder from which something else is computed is removed again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fewshot.base.errors import ExportDiffers
from fewshot.base.files import write_json, write_text
from fewshot.base.lock import hold
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import FORMATS, Format
from fewshot.checkpoint.runtimes.compare import Checked, NotChecked
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

NOTE = "export.json"
PARTIAL = ".export.partial"  # in the folder, until all is there
LAST = "config.json"  # that tells a folder of transformers
UNCHECKED = "written, not checked"


def export(
    folder: Path,
    model: GPT,
    tokenizer: Tokenizer,
    *,
    written_as: str,
    source: Mapping[str, Any],
    check: bool = True,
    card: Callable[[str], Mapping[str, str]] = lambda _: {},
) -> str:
    """Write a model in a format that can express it, into a new folder; return a line on what was compared.

    `source` is said in `export.json`; `card` gives further files by name, from that line. Nothing is compared where
    `check` is false or the format's program is not installed.
    Raises ExportDiffers, and leaves no folder, where that program computes something else.
    """
    row, target = FORMATS[written_as], RunFolder(folder)
    assert row.write is not None
    target.check_is_new()  # before a lock is put there, too
    was_there, partial, differs = folder.exists(), folder / PARTIAL, ""
    with hold(folder, doing="fewshot convert"), target.making():
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            row.write(partial, model, tokenizer)
            checked, reason = _compared(row, partial, model, tokenizer) if check else (None, UNCHECKED)
            told = reason if checked is None else _told(checked)
            for name, text in card(told).items():
                write_text(partial / name, text)
            note = {"format": written_as, "fewshot": version("fewshot"), "source": dict(source)}
            write_json(partial / NOTE, {**note, "checked": None if checked is None else asdict(checked)})
            for path in sorted(partial.iterdir(), key=lambda path: path.name == LAST):
                path.replace(folder / path.name)
        except ExportDiffers as error:
            differs = str(error)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if not differs:
            with contextlib.suppress(OSError):  # on Windows it stays: what is open cannot be removed there
                target.lock.unlink()  # no part of a model that is passed on
    if differs:
        if not was_there:
            target.lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # someone else has put something there
                folder.rmdir()
        raise ExportDiffers(f"{differs}; nothing is left in {folder}: please report it")
    return told


def _compared(row: Format, folder: Path, model: GPT, tokenizer: Tokenizer) -> tuple[Checked | None, str]:
    """Return what was compared; or None, and why nothing was."""
    if row.compare is None:
        return None, UNCHECKED
    try:
        return row.compare(folder, model, tokenizer), ""
    except ModuleNotFoundError:
        return None, f"{UNCHECKED}: {row.install}"
    except NotChecked as error:
        return None, f"{UNCHECKED}: {error}"


def _told(checked: Checked) -> str:
    lengths = " to ".join(f"{length:,}" for length in (checked.lengths[0], checked.lengths[-1]))
    texts = f" and the ids of {checked.texts:,} texts" if checked.texts else ""
    compared = f"{checked.of} differ by at most {checked.largest_difference:.1g}"
    return (
        f"checked with {checked.by}: {compared}, where the largest logit is {checked.largest_logit:.3g}, for {lengths} "
        f"tokens; {checked.greedy_tokens:,} greedy tokens{texts} are equal"
    )
