"""Measure speed against other libraries, and memory against its plan; every figure is a ratio of two sides.

fewshot bench attention --json benchmarks/results/attention.json
fewshot bench train --nanogpt FOLDER --llmc FOLDER --json benchmarks/results/train.json
fewshot bench train --race --config runs/shakespeare_fast.yaml --text FILE
fewshot bench generate --json benchmarks/results/generate.json
fewshot bench evaluate --data FOLDER --vocabulary FOLDER --json benchmarks/results/evaluate.json
fewshot bench meta --json benchmarks/results/meta.json
fewshot bench corpus --text PATH... --tokenizer FOLDER
fewshot bench plan --json benchmarks/results/plan.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

ATTENTION_PARTS = ["against_dense", "growth", "peers", "whole_model"]
TRAIN_SHAPES = ["6x256", "12x768"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each benchmark."""
    benches = parser.add_subparsers(
        dest="bench", required=True, metavar="attention|train|generate|evaluate|meta|corpus|plan"
    )
    attention = benches.add_parser(
        "attention",
        allow_abbrev=False,
        help="sparse patterns against dense attention and other libraries, at growing lengths",
    )
    attention.add_argument(
        "--parts",
        nargs="+",
        choices=ATTENTION_PARTS,
        default=ATTENTION_PARTS,
        help="the measurements to run (default: all)",
    )
    attention.add_argument(
        "--show", type=Path, metavar="FILE", help="print a stored result as Markdown tables and measure nothing"
    )
    attention.add_argument(
        "--n", type=int, help="one length for all parts, for a quick look (default: each part has its own)"
    )
    attention.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="how often each side is timed, in turns; the median is reported (default: %(default)s)",
    )
    train = benches.add_parser(
        "train",
        allow_abbrev=False,
        help="tokens a second beside the matrix products alone and other libraries; or a race to a loss",
    )
    train.add_argument(
        "--shapes", nargs="+", choices=TRAIN_SHAPES, default=TRAIN_SHAPES, help="the models to train (default: all)"
    )
    train.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="how often each side is timed, in turns; medians are reported (default: %(default)s)",
    )
    train.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="also run nanoGPT from here")
    train.add_argument("--llmc", type=Path, metavar="FOLDER", help="also run llm.c's train_gpt2.c from here, by gcc")
    train.add_argument(
        "--no_first_steps",
        action="store_true",
        help="leave out the seconds to the first step and what is compiled anew while the batch grows",
    )
    train.add_argument(
        "--race", action="store_true", help="instead: seconds to a validation loss, against a transformers GPT-2 loop"
    )
    train.add_argument("--config", type=Path, metavar="YAML", help="of the race")
    train.add_argument("--text", nargs="+", metavar="PATH", help="of the race")
    train.add_argument(
        "--until",
        type=float,
        default=1.88,
        help="validation loss that the race ends at, nats per token (default: %(default)s)",
    )
    train.add_argument(
        "--peer_steps", type=int, default=2000, help="steps of the race's other side (default: %(default)s)"
    )
    generate = benches.add_parser(
        "generate", allow_abbrev=False, help="tokens a second beside the rate of reading the weights and transformers"
    )
    generate.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="how often each side is timed, in turns; medians are reported (default: %(default)s)",
    )
    corpus = benches.add_parser("corpus", allow_abbrev=False, help="encoding speed against plain tiktoken")
    corpus.add_argument("--text", nargs="+", required=True, type=Path, metavar="PATH")
    corpus.add_argument(
        "--tokenizer", type=Path, required=True, help="tokenizer.json, or a folder with encoder.json and vocab.bpe"
    )
    evaluate = benches.add_parser(
        "evaluate", allow_abbrev=False, help="questions per second against lm_eval's hf model, same weights and prompts"
    )
    evaluate.add_argument("--data", type=Path, required=True, help="folder with hellaswag and ARC")
    evaluate.add_argument("--vocabulary", type=Path, required=True, help="folder with GPT-2's vocabulary")
    evaluate.add_argument(
        "--items", type=int, default=200, help="questions that fewshot answers (default: %(default)s)"
    )
    evaluate.add_argument(
        "--peer_items", type=int, default=8, help="how many of them lm_eval answers too (default: %(default)s)"
    )
    meta = benches.add_parser(
        "meta", allow_abbrev=False, help="MAML on all tasks of a batch at once against a loop over them"
    )
    meta.add_argument(
        "--rounds",
        type=int,
        default=50,
        help="how often each side is timed, in turns; the median is reported (default: %(default)s)",
    )
    plan = benches.add_parser(
        "plan", allow_abbrev=False, help="planned memory of training against measured, by kind, for shapes and layouts"
    )
    plan.add_argument("--shapes", nargs="+", metavar="NAME", help="an unknown name lists all (default: all)")
    plan.add_argument(
        "--layouts",
        nargs="+",
        metavar="NAME",
        help="an unknown name lists all (default: one process, and two in the three ways)",
    )
    plan.add_argument("--recompute", nargs="+", metavar="NAME", help="none, selective, full (default: all)")
    for bench in (attention, train, generate, evaluate, meta, corpus, plan):
        bench.add_argument(
            "--json", type=Path, nargs="?", metavar="FILE", help="also write the printed result to a file"
        )


def run(args: argparse.Namespace) -> int:
    """Run a benchmark, print its result and write it to a file if asked."""
    from fewshot.base.config import read_yaml
    from fewshot.base.files import read_json, write_json
    from fewshot.base.log import note
    from fewshot.bench.hardware import hardware
    from fewshot.cli.show import print_json, print_table

    if args.json:
        args.json.parent.mkdir(
            parents=True, exist_ok=True
        )  # a folder that cannot be made is told before hours of measuring
    if args.bench == "attention" and args.show:
        from fewshot.bench.tables import attention_tables

        print(attention_tables(read_json(args.show)), end="")
        return 0
    if args.bench == "attention":
        from fewshot.base.errors import check
        from fewshot.bench.attention import measure

        check(args.rounds >= 1, f"--rounds is {args.rounds}, must be at least 1")
        check(args.n is None or 256 <= args.n <= 2**20, f"--n is {args.n}, must be in 256..1048576")
        result = measure(args.parts, n=args.n, rounds=args.rounds, say=note)
    elif args.bench == "meta":
        from fewshot.base.errors import check
        from fewshot.bench.meta import measure as measure_meta

        check(args.rounds >= 1, f"--rounds is {args.rounds}, must be at least 1")
        result = measure_meta(rounds=args.rounds)
    elif args.bench == "train" and not args.race:
        from fewshot.base.errors import check
        from fewshot.bench.train import measure as measure_training

        check(args.rounds >= 1, f"--rounds is {args.rounds}, must be at least 1")
        check(not args.config and not args.text, "--config and --text are of the race: give --race too")
        result = measure_training(
            args.shapes,
            rounds=args.rounds,
            nanogpt=args.nanogpt,
            llmc_folder=args.llmc,
            first_steps=not args.no_first_steps,
            say=note,
        )
    elif args.bench == "train":
        from fewshot.base.errors import check
        from fewshot.bench.race import race
        from fewshot.train.resolving.overrides import laid_over

        check(args.config and args.text, "--race needs --config and --text")
        with tempfile.TemporaryDirectory() as folder:
            given = laid_over([(str(args.config), read_yaml(args.config)), ("--text", {"text": args.text})], say=note)
            result = race(given, Path(folder), until_loss=args.until, peer_steps=args.peer_steps, say=note)
    elif args.bench == "generate":
        from fewshot.base.errors import check
        from fewshot.bench.generate import measure as measure_generation

        check(args.rounds >= 1, f"--rounds is {args.rounds}, must be at least 1")
        result = measure_generation(rounds=args.rounds, say=note)
    elif args.bench == "evaluate":
        from fewshot.base.errors import check
        from fewshot.bench.evaluate import measure as measure_evaluation

        check(args.items >= args.peer_items >= 2, "--peer_items must be at least 2 and at most --items")
        result = measure_evaluation(args.data, args.vocabulary, items=args.items, peer_items=args.peer_items, say=note)
    elif args.bench == "plan":
        from fewshot.bench.plan import RECOMPUTE, SHAPES, USUAL, comparison_rows
        from fewshot.bench.plan import measure as measure_memory

        result = measure_memory(args.shapes or SHAPES, args.layouts or USUAL, args.recompute or RECOMPUTE, say=note)
    else:
        from fewshot.bench.corpus import encode_speed

        result = encode_speed(args.text, args.tokenizer)
    result = {"bench": args.bench, "machine": hardware(), **result}
    if args.bench == "plan":
        print_table(*comparison_rows(result))
    else:
        print_json(result)
    if args.json:
        write_json(args.json, result)
    return 0
