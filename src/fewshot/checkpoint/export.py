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
from fewshot.checkpoint.formats.table import FORMATS
from fewshot.checkpoint.runtimes.compare import Checked
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

NOTE = "export.json"


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
    checked = None
    try:
        with hold(folder, doing="fewshot convert"), target.making():
            row.write(folder, model, tokenizer)
            if check and row.compare is not None:
                with contextlib.suppress(ModuleNotFoundError):
                    checked = row.compare(folder, model, tokenizer)
            told = _told(checked, row.install if check else "leave out --no-check")
            for name, text in card(told).items():
                write_text(folder / name, text)
            note = {"format": written_as, "fewshot": version("fewshot"), "source": dict(source)}
            write_json(folder / NOTE, {**note, "checked": None if checked is None else asdict(checked)})
            with contextlib.suppress(OSError):  # on Windows it stays: what is open cannot be removed there
                target.lock.unlink()  # no part of a model that is passed on
    except ExportDiffers as error:
        shutil.rmtree(folder)
        raise ExportDiffers(f"{error}; {folder} is removed again: please report it") from None
    return told


def _told(checked: Checked | None, way_out: str) -> str:
    if checked is None:
        return f"written, not checked: {way_out}"
    lengths = " to ".join(f"{length:,}" for length in (checked.lengths[0], checked.lengths[-1]))
    texts = f" and the ids of {checked.texts:,} texts" if checked.texts else ""
    return (
        f"checked with {checked.by}: {checked.of} within {checked.largest_difference:.1g} (the largest logit is "
        f"{checked.largest_logit:.3g}) for {lengths} tokens, {checked.greedy_tokens:,} greedy tokens{texts} equal"
    )
