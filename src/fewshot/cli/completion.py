"""A script with which a shell completes commands and options: `fewshot --print-completion bash`.

    fewshot --print-completion bash > ~/.local/share/bash-completion/completions/fewshot
    fewshot --print-completion zsh > ~/.zfunc/_fewshot       (with ~/.zfunc in $fpath)

In: the name of a shell. Out: a script that starts no Python when Tab is pressed.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping

import shtab

from fewshot.base.errors import BadValue


def script(shell: str, known: Mapping[str, str]) -> str:
    """Return the script for a shell, of commands by name with what they do; another shell raises BadValue."""
    if shell not in shtab.SUPPORTED_SHELLS:
        raise BadValue(f"--print-completion {shell!r}: allowed are {', '.join(shtab.SUPPORTED_SHELLS)}")
    # Where an option or a command has nothing of its own to offer, bash goes on with the names of files.
    return shtab.complete(whole_parser(known), shell).replace("-o bashdefault ", "-o bashdefault -o default ")


def whole_parser(known: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return one parser with all commands as its parts."""
    parser = argparse.ArgumentParser(prog="fewshot", description="raw text in, a trained few-shot learner out")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands, values = parser.add_subparsers(dest="command"), _values()
    for name, text in known.items():
        module = importlib.import_module(f"fewshot.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=text)
        module.add_arguments(command)
        for action in command._actions:
            for option in action.option_strings:
                action.choices = values.get((name, option), action.choices)
    return parser


def _values() -> dict[tuple[str, str], list[str]]:
    """Return what may stand behind options of commands whose names have tables of their own."""
    from fewshot.checkpoint.formats.table import FORMATS
    from fewshot.evaluate.tasks.table import TASKS
    from fewshot.model.presets import PRESETS
    from fewshot.train.records.trackers import TRACKERS

    return {
        ("convert", "--as"): [name for name, row in FORMATS.items() if row.write is not None],
        ("train", "--preset"): [*PRESETS],
        ("train", "--log"): [*TRACKERS],
        ("resume", "--log"): [*TRACKERS],
        ("evaluate", "--tasks"): [*TASKS],
        ("contamination", "--tasks"): [*TASKS],
    }
