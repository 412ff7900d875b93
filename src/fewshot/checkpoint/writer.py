"""Writes checkpoints in a thread beside training: what is saved is copied first, so that training can go on at once.

In: pieces, at the end of a step. Out: checkpoints, older ones deleted. A checkpoint that the system refuses to write
(a full disk) is told in a line and the run goes on; only if the last one could not be written does the run fail.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.base.dist import own_channel
from fewshot.base.log import note
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.pieces import Piece
from fewshot.checkpoint.save import Content, check_content, discard, prune, share_of, write_checkpoint
from fewshot.model.config import GPTConfig


class Writer:
    """Writes the checkpoints of one run, one at a time, and keeps the newest `keep` of them.

    A context: leaving it waits for what is being written. An interruption (KeyboardInterrupt) ends that after the file
    that is being written. With several processes, each has one and calls the same methods at the same steps; what they
    exchange has a channel of its own.
    """

    def __init__(self, run: RunFolder, *, keep: int) -> None:
        self._run, self._keep = run, keep
        self._processes = own_channel()
        self._done, self._stopped = threading.Event(), threading.Event()
        self._done.set()
        self._refusal: OSError | None = None  # why the last checkpoint was not written
        self._failure: BaseException | None = None  # any other error of the thread
        self._unpruned: int | None = None  # the step of a whole checkpoint that older ones may be deleted for

    def start(
        self, content: Content, *, step: int, config: GPTConfig, counters: Mapping[str, Any], is_final: bool = True
    ) -> Path:
        """Start to write the checkpoint of this step and return its folder-to-be; waits for the one before it.

        The pieces may be changed when this returns. Older checkpoints are deleted as soon as this one is whole, or, if
        it may still be discarded (not `is_final`), by `keep`. Numbers that are not finite raise `NotFinite`.
        """
        self.wait()
        check_content(content, processes=self._processes)
        share = share_of(content, processes=self._processes)
        copies = {file: [_copied(piece) for piece in pieces] for file, pieces in share.items()}
        path = self._run.checkpoint(step)
        self._refusal = self._unpruned = None

        def write() -> None:
            try:
                write_checkpoint(
                    self._run.path,
                    copies,
                    step=step,
                    config=config,
                    counters=counters,
                    processes=self._processes,
                    check_stop=self._check_stop,
                )
                self._unpruned = step
                if is_final:
                    self._prune()
            except OSError as error:
                self._refused(error, path)
            except BaseException as error:  # noqa: BLE001 - raised by `wait`, in the thread that trains
                self._failure = error
            finally:
                self._done.set()

        self._done.clear()
        threading.Thread(target=write, name="checkpoint").start()
        return path

    def wait(self) -> None:
        """Wait until nothing is being written; raises what went wrong, but for a refusal of the system."""
        self._done.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def keep(self) -> None:
        """Wait, and delete the checkpoints that are older than what the last one, which is good, leaves room for."""
        self.wait()
        self._prune()

    def discard(self) -> None:
        """Wait, and delete the last checkpoint, which has proved to be of no use."""
        self.wait()
        if self._unpruned is not None and self._processes.rank == 0:
            discard(self._run.checkpoint(self._unpruned))
        self._unpruned = None

    def finish(self) -> None:
        """Wait until nothing is being written; raises whatever went wrong with the last checkpoint."""
        self.wait()
        if self._refusal is not None:
            raise self._refusal

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.finish()
            elif not isinstance(error, KeyboardInterrupt):
                self._done.wait()  # without a word of its own: there is an error already
        except KeyboardInterrupt:
            self._stop()
            raise
        if isinstance(error, KeyboardInterrupt):
            self._stop()

    def _stop(self) -> None:
        """End what is being written; nothing of it stays."""
        self._stopped.set()
        self._done.wait()  # not Thread.join: interrupted once, Python 3.11 takes the thread for ended

    def _check_stop(self) -> None:
        if self._stopped.is_set():
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    def _refused(self, error: OSError, path: Path) -> None:
        self._refusal = error
        if self._processes.rank == 0 and not self._stopped.is_set():
            older = self._run.checkpoint_folders()
            newest = f"the newest is {older[-1].name}" if older else "there is none yet"
            note(f"the checkpoint {path} was not written: {_reason(error)}; {newest}; training goes on")

    def _prune(self) -> None:
        if self._unpruned is None or self._processes.rank != 0:
            return
        try:
            prune(self._run.path, keep=self._keep, newest=self._unpruned)
        except OSError as error:
            note(f"older checkpoints of {self._run.path} could not be deleted: {_reason(error)}")
        self._unpruned = None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _copied(piece: Piece) -> Piece:
    """Return the piece with a tensor of its own, on the CPU."""
    return dataclasses.replace(piece, tensor=piece.tensor.detach().to("cpu", copy=True))
