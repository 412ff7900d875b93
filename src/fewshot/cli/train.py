"""Train a model on text.

  fewshot train --text PATH...                     everything else is chosen, and printed
  fewshot train --config runs/X.yaml --text PATH
  fewshot train --preset gpt3-small --text PATH --optimizer.lr 3e-4
  fewshot train --start hf:PATH --text PATH        train a model further: of a run, of transformers, of nanoGPT
  fewshot train --text PATH --ladder               smaller sizes first, which predict the loss of this one
  fewshot train --text PATH --log tensorboard --sample_every 500 --sample_prompt 'Once upon a time'

  torchrun --nproc-per-node 4 -m fewshot -- train --text PATH --parallel.fsdp 4     in several processes

Any field of the configuration can be given as --section.field VALUE; sections are data, model, schedule, optimizer,
loop and parallel. 'fewshot train --fields' prints every field (docs/configuration.md); the config.yaml of a run holds
the values that it uses. The options above override the YAML file, and --section.field overrides both. The memory and
time that the run needs are printed before it starts. Ctrl-C stops after the current step and writes a checkpoint, from
which 'fewshot resume RUN' continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fewshot.base.config import from_overrides, read_yaml
from fewshot.base.errors import check
from fewshot.base.log import note
from fewshot.cli.watching import add_watching, check_watching, sampler, with_tracker

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that have names of their own."""
    from fewshot.corpus.sources import SUFFIXES

    parser.add_argument("--config", type=Path, metavar="YAML", help="a configuration file; options override it")
    parser.add_argument("--preset", help="a model size; 'fewshot plan all' lists them")
    parser.add_argument("--start", metavar="MODEL", help="a run, or hf:PATH: the model whose weights it begins with")
    parser.add_argument(
        "--text",
        nargs="+",
        action="extend",
        metavar="PATH",
        help=f"files and folders to train on: {' '.join(SUFFIXES)}",
    )
    parser.add_argument("--n_tokens", metavar="N", help="tokens to train on")
    parser.add_argument(
        "--fields", action="store_true", help="print every field of the configuration, and nothing else"
    )
    parser.add_argument(
        "--yes", action="store_true", default=None, help="train even if the plan exceeds the memory or 30 days"
    )
    parser.add_argument(
        "--ladder",
        type=int,
        nargs="?",
        const=5,
        metavar="N",
        help="train N sizes (default: 5), each about twice the one before; the last is what the other options ask for, "
        "and its loss is predicted from the smaller ones before it begins",
    )
    add_watching(parser)
    parser.add_argument(
        "--out",
        type=new_folder,
        metavar="RUN",
        help="the run folder, a new one (default: out/ and the name of the config or preset, else out/run)",
    )


def run(args: argparse.Namespace) -> int:
    """Start a new run."""
    if args.fields:
        from fewshot.train.resolving.fields import page

        print(page(), end="")
        return 0
    from fewshot.cli.show import followed, print_outcome
    from fewshot.train.resolving.overrides import laid_over
    from fewshot.train.run import start

    named = {"preset": args.preset, "start": args.start, "text": args.text, "n_tokens": args.n_tokens, "yes": args.yes}
    layers: list[tuple[str, dict[str, Any]]] = [
        (str(args.config), read_yaml(args.config) if args.config else {}),
        ("the command line", {key: value for key, value in named.items() if value is not None}),
        ("the --section.field options", from_overrides(args.overrides)),
    ]
    given = laid_over(layers, say=note)
    name = args.config.stem if args.config else str(given.get("preset") or "run")
    check_watching(args, is_ladder=args.ladder is not None)
    if args.ladder is not None:
        from fewshot.cli.ladder import train_ladder
        from fewshot.train.ladder.series import make_ladder

        folder = args.out or Path("out") / f"{name}-ladder"
        return train_ladder(make_ladder(given, folder, n_sizes=args.ladder, say=note), args)
    folder = args.out or Path("out") / name
    reports = with_tracker(start(given, folder, say=note, watch=sampler(folder, args)), folder, args)
    return print_outcome(folder, followed(reports), as_json=args.json)


def new_folder(text: str) -> Path:
    """Return the path of an --out; an empty one, which would be the current folder, raises `BadValue`."""
    check(text != "", "--out is empty; give the name of a new folder")
    return Path(text)
