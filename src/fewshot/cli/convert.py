"""From and to Hugging Face's GPT-2 format.

fewshot convert HF_FOLDER RUN       config.json + model.safetensors (+ vocabulary) -> a run folder
fewshot convert RUN HF_FOLDER       the newest checkpoint of a dense run -> a folder that transformers loads
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where; the format of FROM is seen from what it holds."""
    parser.add_argument("source", type=Path, metavar="FROM")
    parser.add_argument("target", type=Path, metavar="TO")


def run(args: argparse.Namespace) -> int:
    """Convert."""
    from fewshot.base.errors import BadFile
    from fewshot.base.lock import hold
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.formats.gpt2 import (
        check_convertible,
        check_is_gpt2,
        read_hugging_face,
        write_hugging_face,
        write_tokenizer,
    )
    from fewshot.checkpoint.load import load_run
    from fewshot.checkpoint.manifest import MANIFEST
    from fewshot.checkpoint.save import save
    from fewshot.tokenizer.load import load_tokenizer

    needed = "a run or a Hugging Face GPT-2 folder, with its config.json, is needed"
    if not args.source.is_dir():
        raise BadFile(f"{args.source} is not a folder; {needed}")
    to_run = (args.source / "config.json").is_file()
    if not to_run and not RunFolder(args.source).checkpoint_folders() and not (args.source / MANIFEST).is_file():
        raise BadFile(f"{args.source} holds no model: {needed}")
    target = RunFolder(args.target)
    target.check_is_new()
    if to_run:
        tokenizer, model = load_tokenizer(args.source), read_hugging_face(args.source)
    else:
        model, tokenizer, _ = load_run(args.source)
        check_is_gpt2(model.config)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=args.source)
    with hold(args.target, doing="fewshot convert"), target.making():
        if to_run:
            save(args.target, model, step=0)
            tokenizer.save(target.tokenizer)
        else:
            write_tokenizer(args.target, tokenizer, n_ctx=model.config.n_ctx)
            write_hugging_face(args.target, model, eot=tokenizer.eot)
            with contextlib.suppress(OSError):  # on Windows it stays: what is open cannot be removed there
                target.lock.unlink()  # no part of a model that is passed on
    print(args.target)
    return 0
