"""Convert a model from or to Hugging Face's GPT-2 and GPT-Neo, or from a checkpoint of nanoGPT.

fewshot convert HF_FOLDER RUN       config.json + model.safetensors + vocabulary -> a run folder
fewshot convert ckpt.pt RUN         nanoGPT's checkpoint, GPT-2's vocabulary beside it -> a run folder
fewshot convert RUN HF_FOLDER       the newest checkpoint of a run -> a folder that transformers loads: a GPT-2 if all
                                    layers are dense, a GPT-Neo if some have a band
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders; the format of FROM is seen from its files."""
    parser.add_argument(
        "source", type=Path, metavar="FROM", help="a run, a Hugging Face GPT-2 folder, or nanoGPT's ckpt.pt"
    )
    parser.add_argument("target", type=Path, metavar="TO", help="a new folder, in the other format")
    parser.add_argument(
        "--as",
        dest="written_as",
        metavar="FORMAT",
        help="what a run is written as: gpt2 or gpt_neo (default: the first that can hold it)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert a folder of another format to a run, or a run to that format."""
    from fewshot.base.errors import BadFile, check
    from fewshot.base.lock import hold
    from fewshot.checkpoint.folder import MANIFEST, RunFolder
    from fewshot.checkpoint.formats.table import FORMATS, check_convertible, format_of, writer_of
    from fewshot.checkpoint.load import load_run
    from fewshot.checkpoint.save import save

    needed = " or ".join(["a run", *(row.description for row in FORMATS.values())]) + " is needed"
    source_format = format_of(args.source)
    if source_format is None and not args.source.is_dir():
        raise BadFile(f"{args.source} is not a folder; {needed}")
    is_run = bool(RunFolder(args.source).checkpoint_folders()) or (args.source / MANIFEST).is_file()
    if source_format is None and not is_run:
        raise BadFile(f"{args.source} holds no model: {needed}")
    target = RunFolder(args.target)
    target.check_is_new()
    check(
        source_format is None or args.written_as is None,
        f"--as {args.written_as} is what a run is written as, but {args.source} becomes a run: leave it out",
    )
    if source_format is not None:
        model, tokenizer = source_format.read(args.source)
    else:
        model, tokenizer, _ = load_run(args.source)
        write = writer_of(model.config, args.written_as)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=args.source)
    with hold(args.target, doing="fewshot convert"), target.making():
        if source_format is not None:
            save(args.target, model, step=0)
            tokenizer.save(target.tokenizer)
        else:
            write(args.target, model, tokenizer)
            with contextlib.suppress(OSError):  # on Windows it stays: what is open cannot be removed there
                target.lock.unlink()  # no part of a model that is passed on
    print(args.target)
    return 0
