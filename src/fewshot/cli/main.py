"""The entry point: finds the command, turns errors into one line and an exit code.

Exit codes: 0 done; 1 a check of `fewshot demo` failed; 2 bad input; 130 interrupted.
Nothing heavy is imported before a command is known, so that help is there at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO

from fewshot import __version__
from fewshot.base.errors import FewshotError
from fewshot.base.interrupt import cleaning_up

COMMANDS = {
    "demo": "the whole river on built-in data, expected values checked",
    "train": "text in, a trained model out",
    "resume": "go on with a run that was stopped",
    "generate": "let a run write",
    "evaluate": "zero-, one- and few-shot accuracy of a run",
    "contamination": "how much of a task was in a run's training text, and its scores without it",
    "lm-eval": "lm-evaluation-harness with --model fewshot",
    "meta": "MAML and its relatives: learning to learn in the weights",
    "report": "one HTML page of a run, or of several",
    "tokenizer": "train a tokenizer, or encode text with one",
    "plan": "parameters, FLOPs and memory of a preset",
    "patterns": "show who may read whom",
    "convert": "from and to Hugging Face's GPT-2 format",
    "bench": "measure against peers",
}


OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")  # in torch's messages


class Parser(argparse.ArgumentParser):
    """argparse with errors in one line that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise FewshotError(f"{self._nearest(message)} (see '{self.prog} --help')")

    def _nearest(self, message: str) -> str:
        wrong = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized arguments") and wrong[0].startswith("--"):
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(wrong[0], known, n=1)
            return f"unknown option {wrong[0]}" + (f", nearest: {near[0]}" if near else "")
        return message


class _ClosedStream(io.TextIOBase):
    """Stands for a standard stream that whoever started us has closed: using it is an error with a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *args: object) -> NoReturn:
        raise FewshotError(f"standard {self._name} is closed: do not close it, or redirect it to or from a file")

    read = readline = write = _refuse


class _PatientStream:
    """Standard error that may fail, as when its reader or terminal is gone: long work does not end with it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or forget, the text."""
        try:
            return self._stream.write(text)
        except OSError:
            self._stream = open(os.devnull, "w")  # noqa: PTH123, SIM115
            return len(text)

    def flush(self) -> None:
        """Flush, or forget what was written."""
        try:
            self._stream.flush()
        except OSError:
            self._stream = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _complete_streams() -> None:
    """Put something in the place of closed standard streams, so that no file is opened under their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stdin = sys.stdin or _ClosedStream("input")
    sys.stdout = sys.stdout or _ClosedStream("output")


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    _complete_streams()
    words = sys.argv[1:] if argv is None else argv
    errors = sys.stderr
    sys.stderr = _PatientStream(errors)
    try:
        with cleaning_up():
            return _checked(words)
    finally:
        sys.stderr = errors


def _checked(words: list[str]) -> int:
    """Run one command and turn its errors into one line."""
    # GNU OpenMP's threads spin while they wait: if anything else runs on one of the cores, a step takes ten times as
    # long (LOG.md). A short spin costs nothing on a quiet machine; the variable is read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return _run(words)
    except FewshotError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output is gone: fine
        return 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail(f"no space left on the disk ({error.filename or 'while writing'}); what was complete is kept")
        reason = (error.strerror or str(error)).lower()
        return _fail(f"{error.filename}: {reason}" if error.filename else reason)
    except UnicodeError as error:
        return _fail(
            f"text that is not {error.encoding}: {error.reason}; give UTF-8 and set PYTHONIOENCODING=utf-8"
            if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError))
            else str(error)
        )
    except MemoryError:
        return _fail(_out_of_memory(words))
    except RuntimeError as error:
        if not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        return _fail(_out_of_memory(words))


def _out_of_memory(words: list[str]) -> str:
    """Return what helps when memory is full, by command."""
    if words[0] == "train":
        return "out of memory: lower --loop.micro_rows, add --loop.recompute true, or take a smaller model"
    if words[0] == "resume":
        return "out of memory: add --loop.recompute true, or free some memory; the last checkpoint is kept"
    return "out of memory: free some, or give less to do at once (--help names the options)"


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"fewshot {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise FewshotError(
            f"unknown command {name!r}{f', nearest: {near[0]}' if near else ''}; allowed: {', '.join(COMMANDS)}"
        )
    module = importlib.import_module(f"fewshot.cli.{name.replace('-', '_')}")
    passes_on = getattr(module, "PASSES_ON", False) and words[1:2] not in (["-h"], ["--help"])  # later ones are its own
    parser = Parser(prog=f"fewshot {name}", description=module.__doc__, allow_abbrev=False, add_help=not passes_on)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    if getattr(module, "TAKES_OVERRIDES", False):
        args, overrides = parser.parse_known_args(words[1:])
        args.overrides = overrides
    elif getattr(module, "INTERMIXED", False):
        args = parser.parse_intermixed_args(words[1:])
    else:
        args = parser.parse_args(words[1:])
    for key, value in vars(args).items():
        setattr(args, key, _at_home(value))
    return module.run(args)


def _at_home(value: Any) -> Any:
    """Return a path, or a list of paths, with the user's home in the place of ~, which a shell leaves in --out=~/x."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value  # noqa: PTH111 - "~nobody" is a name


def _fail(message: str, *, code: int = 2) -> int:
    print("fewshot: " + " ".join(message.split()), file=sys.stderr)
    return code


def _help() -> str:
    lines = [f"  {name:<13} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fewshot COMMAND [OPTIONS]",
            "",
            "GPT-3 as software that people can use: raw text in, a trained few-shot learner out.",
            "",
            *lines,
            "",
            "fewshot COMMAND --help tells the options of one. Start with: fewshot demo",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
