"""The entry point: finds the command, runs it, turns its errors into one line and an exit code.

Exit codes: 0 done; 1 a check of `fewshot demo` or a statement of `fewshot verify` failed; 2 bad input; 130 interrupted.
Nothing slow is imported before the command is known, so that the help comes at once.
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
    "demo": "run everything once on built-in data and check the results",
    "train": "train a model on text",
    "resume": "continue a run that was stopped",
    "replay": "compute a step of a run again and compare it with the log",
    "generate": "write text with a trained model",
    "chat": "talk with a trained model in the terminal",
    "serve": "serve a model over HTTP, as OpenAI's completions API",
    "evaluate": "measure zero-, one- and few-shot accuracy",
    "contamination": "find which test questions are in the training text, and score without them",
    "lm-eval": "run lm-evaluation-harness on a fewshot model",
    "meta": "train and compare MAML and other meta-learners",
    "probe": "find the heads that copy from the prompt, and what is lost without a head",
    "verify": "rerun published findings and check what they say",
    "zoo": "show all findings on one page",
    "report": "write an HTML page about one run or several",
    "tokenizer": "train a tokenizer, or encode text with one",
    "plan": "show the parameters, FLOPs and memory of a preset",
    "patterns": "show which positions attend to which",
    "convert": "convert a model from and to the formats of other programs",
    "bench": "measure speed against other libraries",
}

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")  # in torch's messages


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise FewshotError(f"{self._nearest(message)} (see '{self.prog} --help')")

    def _nearest(self, message: str) -> str:
        """Return the message of argparse, for an unknown option with the nearest known one."""
        wrong = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized arguments") and wrong[0].startswith("--"):
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(wrong[0], known, n=1)
            return f"unknown option {wrong[0]}" + (f", nearest: {near[0]}" if near else "")
        return message


class _ClosedStream(io.TextIOBase):
    """Stands in for a closed standard stream: using it raises an error that names the stream."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *args: object) -> NoReturn:
        raise FewshotError(f"standard {self._name} is closed: do not close it, or redirect it to or from a file")

    read = readline = write = _refuse


class _PatientStream:
    """Standard error that may fail, as when the terminal is gone, without ending a long training run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it if it cannot be written."""
        try:
            return self._stream.write(text)
        except OSError:
            self._stream = open(os.devnull, "w")  # noqa: PTH123, SIM115
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what was written."""
        try:
            self._stream.flush()
        except OSError:
            self._stream = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _complete_streams() -> None:
    """Replace closed standard streams, so that no file that is opened later gets their numbers."""
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
    """Run one command and return the exit code."""
    _complete_streams()
    words = sys.argv[1:] if argv is None else argv
    errors = sys.stderr
    sys.stderr = _PatientStream(errors)
    try:
        with cleaning_up():
            return _run_checked(words)
    finally:
        sys.stderr = errors


def _run_checked(words: list[str]) -> int:
    """Run one command; if it fails, print one line and return the exit code of the failure."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has stopped, like head
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
        if not any(phrase in str(error) for phrase in OUT_OF_MEMORY):
            raise
        return _fail(_out_of_memory(words))


def _out_of_memory(words: list[str]) -> str:
    """Return the message for full memory, with what helps for this command."""
    if words[0] == "train":
        return "out of memory: lower --loop.micro_rows, add --loop.recompute full, or take a smaller model"
    if words[0] == "resume":
        return "out of memory: add --loop.recompute full, or free some memory; the last checkpoint is kept"
    return "out of memory: free some, or lower the amount of work done at once (--help lists the options)"


def _run(words: list[str]) -> int:
    """Find the command, parse its arguments and run it."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"fewshot {__version__}")
        return 0
    if words[0] == "--print-completion":
        from fewshot.cli.completion import script

        print(script(words[1] if words[1:] else "", COMMANDS))
        return 0
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise FewshotError(
            f"unknown command {name!r}{f', nearest: {near[0]}' if near else ''}; allowed: {', '.join(COMMANDS)}"
        )
    module = importlib.import_module(f"fewshot.cli.{name.replace('-', '_')}")
    # The program that a command passes its words on to has a --help of its own: only one in the first place is ours.
    passes_on = getattr(module, "PASSES_ON", False) and words[1:2] not in (["-h"], ["--help"])
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
        setattr(args, key, _with_home(value))
    return module.run(args)


def _with_home(value: Any) -> Any:
    """Return a path, or a list of paths, with ~ replaced by the home folder; shells leave it in --out=~/x."""
    if isinstance(value, list):
        return [_with_home(item) for item in value]
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value  # noqa: PTH111 - "~nobody" is a name


def _fail(message: str, *, code: int = 2) -> int:
    """Print the message as one line on standard error and return the exit code."""
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
            "Options of a command: fewshot COMMAND --help. To see everything once: fewshot demo",
            "Completion in the shell: fewshot --print-completion bash (or zsh, fish, ...)",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
