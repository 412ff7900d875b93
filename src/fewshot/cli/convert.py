"""From and to Hugging Face's GPT-2 format.

fewshot convert HF_FOLDER RUN       config.json + model.safetensors (+ vocabulary) -> a run folder
fewshot convert RUN HF_FOLDER       the newest checkpoint of a dense run -> a folder that transformers loads
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where; the format of FROM is seen from what it holds."""
    parser.add_argument("source", type=Path, metavar="FROM")
    parser.add_argument("target", type=Path, metavar="TO")


def run(args: argparse.Namespace) -> int:
    """Convert."""
    from fewshot.base.errors import BadFile, BadValue
    from fewshot.checkpoint.convert import read_hugging_face, write_hugging_face
    from fewshot.checkpoint.run import load_run
    from fewshot.checkpoint.save import save
    from fewshot.tokenizer.load import load_tokenizer

    if not args.source.is_dir():
        raise BadFile(f"{args.source} is not a folder; a run or a Hugging Face GPT-2 folder is needed")
    if args.target.exists() and any(args.target.iterdir()):
        raise BadValue(f"{args.target} is not empty; give a new folder")
    if (args.source / "config.json").is_file():
        tokenizer = load_tokenizer(args.source)
        model = read_hugging_face(args.source)
        save(args.target, model, step=0)
        tokenizer.save(args.target / "tokenizer.json")
    else:
        model, tokenizer, _ = load_run(args.source)
        write_hugging_face(args.target, model, eot=tokenizer.eot)
        tokenizer.save(args.target / "tokenizer.json")
    print(args.target)
    return 0
