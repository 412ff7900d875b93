"""A run folder: the name of everything in it, and whether anything there could be overwritten.

In: a path. Out: paths, and `BadValue` or `BadFile` with the way out. Knows nothing of what the files hold. What the
program did not name itself is not its own: it is neither used nor deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.base.config import read_yaml
from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import remove_litter, write_text
from fewshot.base.lock import LOCK, is_empty

MANIFEST = "manifest.json"  # in the folder of a checkpoint; one without it does not exist
CONVERTED = "a converted model, which a new run can begin with (fewshot train --start), but no training to go on with"


@dataclass(frozen=True)
class RunFolder:
    """One training run on disk, which may not be there yet.

    config.yaml              the resolved configuration
    tokenizer.json
    data/                    the run's text as token shards
    checkpoints/step-N/      weights and training state after N steps
    metrics.jsonl            the figures of the steps, a line each
    receipt.jsonl            what each step has read, a line each, with a hash of all samples so far
    samples.jsonl            what the model wrote while it was trained, if that was asked for
    evaluations/             results of evaluations, a folder for each checkpoint
    report.html
    probe.html               what was found in its heads
    .unfinished              there while a new run or model is being made
    .lock                    held by the process that writes
    """

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder | None:
        """Return the run that a checkpoint's folder is in; None for a folder elsewhere."""
        run = cls(checkpoint.parent.parent)
        return run if checkpoint.parent.name == run.checkpoints.name else None

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.path / "tokenizer.json"

    @property
    def data(self) -> Path:
        """The folder of token shards."""
        return self.path / "data"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The figures of the steps."""
        return self.path / "metrics.jsonl"

    @property
    def receipt(self) -> Path:
        """What every step has read."""
        return self.path / "receipt.jsonl"

    @property
    def samples(self) -> Path:
        """What the model wrote while it was trained."""
        return self.path / "samples.jsonl"

    @property
    def evaluations(self) -> Path:
        """The folder of results."""
        return self.path / "evaluations"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def probe(self) -> Path:
        """The page about the heads of its model."""
        return self.path / "probe.html"

    @property
    def unfinished(self) -> Path:
        """The file that marks a run or model whose making has not ended."""
        return self.path / ".unfinished"

    @property
    def lock(self) -> Path:
        """The file that the writing process holds."""
        return self.path / LOCK

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return self.checkpoints / checkpoint_name(step)

    def checkpoint_folders(self) -> list[Path]:
        """Return the folders of the checkpoints that are there, oldest first; their content is not verified."""
        inside = self.checkpoints.iterdir() if self.checkpoints.is_dir() else iter(())
        steps = {
            path: step for path in inside if (step := step_of(path.name)) is not None and (path / MANIFEST).is_file()
        }
        return sorted(steps, key=lambda path: steps[path])

    @property
    def runs_inside(self) -> str:
        """What a message about a folder that is no run adds if it holds some, as that of a ladder does."""
        runs = sorted(path.parent for path in self.path.glob(f"*/{self.config.name}"))
        return f"; it is a folder of runs: give one, such as {runs[-1]}" if runs else ""

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values; a folder without one raises `BadFile`."""
        if not self.config.is_file():
            raise BadFile(f"{self.path} is not a run: it has no {self.config.name}{self.runs_inside}")
        return read_yaml(self.config)

    def check_is_new(self) -> None:
        """Raise `BadValue`, with the way out, if a new run or model here could overwrite anything.

        Nothing is written. A folder is new if it is not there, empty, or holds what `making` did not finish.
        """
        folder = self.path
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            name = os.fsencode(folder).decode("utf-8", errors="replace")
            raise BadValue(
                f"the name {name} is not UTF-8, and weights cannot be stored under such a name: give another"
            ) from None
        if folder.exists() and not folder.is_dir():
            raise BadValue(f"{folder} is a file; give the name of a new folder")
        if is_empty(folder):
            return
        if self.config.is_file():
            raise BadValue(
                f"{folder} already holds a run: continue it with 'fewshot resume {folder}', or give a new folder"
            )
        if self.unfinished.is_file() and not self.checkpoint_folders():
            return
        if self.checkpoint_folders():
            raise BadValue(f"{folder} holds {CONVERTED}: give a new folder")
        names = sorted(path.name for path in folder.iterdir() if path != self.lock)
        some = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        raise BadValue(f"{folder} is not empty (it holds {some}): give a new folder")

    def check_can_go_on(self) -> None:
        """Raise `BadFile`, with the way out, if there is no run here to resume; nothing is written."""
        if self.config.is_file():
            return
        if not self.path.exists():
            raise BadFile(f"{self.path} does not exist; a run folder (made by fewshot train) is needed")
        if self.unfinished.is_file():
            raise BadFile(
                f"{self.path} was stopped before its training began: run 'fewshot train' again with the same --out"
            )
        if self.checkpoint_folders():
            raise BadFile(f"{self.path} holds {CONVERTED}")
        raise BadFile(f"{self.path} is not a run: it has no {self.config.name}{self.runs_inside}")

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Mark the folder, which the caller holds, as unfinished until the block ends well.

        Refuses what `check_is_new` refuses. If the block fails, or its process is killed, the same may be tried again
        in the same folder.
        """
        self.check_is_new()
        remove_litter(self.path)
        write_text(
            self.unfinished,
            "the program was stopped before this folder was complete; the same command may start it again\n",
        )
        yield
        self.unfinished.unlink()


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's name; None for any other name, such as that of a copy."""
    digits = re.fullmatch(r"step-([0-9]{8,})", name)
    return int(digits[1]) if digits and checkpoint_name(int(digits[1])) == name else None
