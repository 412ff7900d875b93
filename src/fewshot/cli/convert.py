"""Convert a model of another program to a run, or a run to a format of other programs.

fewshot convert HF_FOLDER RUN       GPT-2, GPT-Neo, OPT or GPT-1 of transformers -> a run folder
fewshot convert FILE RUN            nanoGPT's ckpt.pt, llm.c's .bin (with a vocabulary beside), a GGUF -> a run folder
fewshot convert RUN FOLDER          the newest checkpoint of a run -> the first stock class of transformers that can
                                    hold it, else a folder with fewshot's own class
fewshot convert RUN FOLDER --as gguf    llama.cpp and Ollama; also gguf_f16, gguf_q8_0, onnx, page (one HTML file)
fewshot convert RUN --targets       which formats can hold this model, and why others cannot

What is written is compared with what the format's own program computes from it, before it is called done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fewshot.model.gpt import GPT
    from fewshot.tokenizer.vocab import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders; the format of FROM is seen from its files."""
    parser.add_argument("source", type=Path, metavar="FROM", help="a run, or a folder or file of another program")
    parser.add_argument("target", type=Path, nargs="?", metavar="TO", help="a new folder")
    parser.add_argument(
        "--as",
        dest="written_as",
        metavar="FORMAT",
        help="what a run is written as (default: the first class of transformers that can hold it)",
    )
    parser.add_argument("--targets", action="store_true", help="say which formats can hold a run, and write nothing")
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not compare what the format's own program computes from what was written",
    )


def run(args: argparse.Namespace) -> int:
    """Convert a folder of another format to a run, or a run to that format."""
    from fewshot.base.errors import BadFile, check
    from fewshot.checkpoint.folder import MANIFEST, RunFolder
    from fewshot.checkpoint.formats.table import READ, reader_of

    needed = " or ".join(["a run", *READ]) + " is needed"
    read = reader_of(args.source)
    if not args.source.exists():
        raise BadFile(f"{args.source} does not exist; {needed}")
    if read is None and not args.source.is_dir():
        raise BadFile(f"{args.source} is a file of no format that is read; {needed}")
    is_run = bool(RunFolder(args.source).checkpoint_folders()) or (args.source / MANIFEST).is_file()
    if read is None and not is_run:
        raise BadFile(f"{args.source} holds no model: {needed}")
    for option, given in {"--as": args.written_as, "--targets": args.targets}.items():
        check(read is None or not given, f"{option} is for a run, but {args.source} becomes a run: leave it out")
    if args.targets:
        return _print_targets(args.source)
    check(args.target is not None, "give TO, a new folder, or --targets")
    RunFolder(args.target).check_is_new()
    if read is None:
        from fewshot.face.exports import export_run

        print(export_run(args.source, args.target, written_as=args.written_as, check=not args.no_check))
    else:
        _read(args.source, args.target, read)
    print(args.target)
    return 0


def _print_targets(source: Path) -> int:
    from fewshot.checkpoint.formats.table import targets
    from fewshot.checkpoint.load import find_checkpoint

    for name, reason in targets(find_checkpoint(source).config).items():
        short = (reason or "").removeprefix("this model cannot be converted: ").partition("; to convert one")[0]
        print(f"{name:<12} {f'no: {short}' if short else 'yes'}")
    return 0


def _read(source: Path, target: Path, read: Callable[[Path], tuple[GPT, Tokenizer]]) -> None:
    """Make a run of what another program wrote."""
    from fewshot.base.lock import hold
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.formats.table import check_convertible
    from fewshot.checkpoint.save import save

    model, tokenizer = read(source)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=source)
    with hold(target, doing="fewshot convert"), RunFolder(target).making():
        save(target, model, step=0)
        tokenizer.save(RunFolder(target).tokenizer)
