"""Compute something again, and say whether its bits are the same. Nothing is written.

fewshot replay RUN --step 1200             a step of training, from the nearest checkpoint before it; every step on the
                                           way is compared with the log
fewshot replay RECEIPT --model RUN         a completion of 'fewshot serve' that was asked for with "receipt": true

The same bits need the same machine and versions; a step needs the same number of threads too. The exit code is 1 where
they differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.base.errors import FewshotError, check
from fewshot.base.log import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is computed again: a step of a run, or a receipt with its model."""
    parser.add_argument("path", type=Path, metavar="RUN|RECEIPT", help="the folder of a run, or a receipt as JSON")
    parser.add_argument("--step", type=int, metavar="N", help="of a run: the step to compute again, from 1")
    parser.add_argument("--model", metavar="RUN", help="of a receipt: the run that made it, or hf:PATH")


def run(args: argparse.Namespace) -> int:
    """Compute again, and stop at the first difference."""
    check(args.model is None or not args.path.is_dir(), f"{args.path} is a folder: --model belongs to a receipt")
    if args.path.is_file() or args.model is not None:
        check(args.step is None, "--step belongs to a run; a receipt is made again whole")
        check(args.model is not None, f"{args.path} is a file: give the run that made the receipt with --model RUN")
        return _replay_receipt(args.path, args.model)
    check(args.step is not None, f"give the step of {args.path} to compute again with --step N")
    return _replay_step(args.path, args.step)


def _replay_step(folder: Path, last: int) -> int:
    from fewshot.train.records.replay import replay

    n_steps = 0
    for step in replay(folder, last, say=note):
        n_steps += 1
        if not step.is_same:
            print(
                f"step {step.logged.step:,} differs: loss {step.loss.hex()}, logged {step.logged.loss}; "
                f"gradient norm {step.grad_norm.hex()}, logged {step.logged.grad_norm}"
            )
            return 1
    before = f", and so have the {n_steps - 1:,} replayed before it" if n_steps > 1 else ""
    print(f"step {last:,} has the bits of the log{before}")
    return 0


def _replay_receipt(path: Path, name_of_model: str) -> int:
    try:
        from fewshot.serve.receipt import read_receipt, replay
    except ImportError as error:
        raise FewshotError(f"{error.name} is not installed: pip install 'fewshot[serve]'") from None
    from fewshot.checkpoint.formats.table import open_model
    from fewshot.model.packed import PackedGPT
    from fewshot.serve.completions import Served
    from fewshot.serve.fingerprint import identity

    receipt = read_receipt(path)
    model, tokenizer, weights = open_model(name_of_model)
    weight_type = receipt.identity.get("weight_type", "float32")
    packed = PackedGPT(model, weight_type)
    here = identity(weights, tokenizer, weight_type, packed.wte.weight.device.type)
    for name in ("weights", "tokenizer"):
        check(
            receipt.identity.get(name) == here[name],
            f"{name}: the receipt has {receipt.identity.get(name)}, {name_of_model} has {here[name]}: give the run "
            "that made it",
        )
    for name, value in here.items():
        if receipt.identity.get(name) != value:
            was = "another" if name == "processor" else f"{receipt.identity.get(name)}, here it is {value}"
            note(f"{name} was {was}: the bits may differ")
    served = Served(name=receipt.model, tokenizer=tokenizer, n_ctx=packed.config.n_ctx, identity=here)
    differences = list(replay(receipt, packed, served))
    for difference in differences:
        print(difference)
    if not differences:
        n_tokens = sum(len(choice.tokens) for choice in receipt.choices)
        print(f"same bits in all choices ({len(receipt.choices)}): {n_tokens:,} tokens")
    return 1 if differences else 0
