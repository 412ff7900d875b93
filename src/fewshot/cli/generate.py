"""Let a run write: the continuation of a prompt, streamed to standard output.

fewshot generate RUN "Once upon a time"
fewshot generate RUN --temperature 0 --stop "\\n" "2 + 2 ="
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

INTERMIXED = True  # the prompt may stand after options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much is written, and how it is sampled."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help="empty: a fresh document")
    parser.add_argument("--n_tokens", type=int, default=200, help="at most so many tokens (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (%(default)s)")
    parser.add_argument("--top_k", type=int, help="sample from the k likeliest tokens")
    parser.add_argument("--top_p", type=float, help="sample from the smallest set of this probability")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same text (%(default)s)")
    parser.add_argument("--n", type=int, default=1, help="number of samples (%(default)s)")
    parser.add_argument("--json", action="store_true", help="completions with log-probabilities, not streamed")


def run(args: argparse.Namespace) -> int:
    """Generate."""
    from fewshot.base.errors import check
    from fewshot.cli.show import print_json
    from fewshot.cli.typed import argument
    from fewshot.generate.complete import complete, stream
    from fewshot.generate.sampling import Sampling

    check(min(args.n, args.n_tokens) >= 1, f"--n is {args.n} and --n_tokens {args.n_tokens}, both must be at least 1")
    sampling = Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)
    from fewshot.checkpoint.load import load_run

    model, tokenizer, _ = load_run(args.folder)
    prompt = tokenizer.encode(argument(args.prompt, "the prompt")) or [tokenizer.eot]
    stop = [argument(text, "--stop").replace("\\n", "\n").replace("\\t", "\t") for text in args.stop]
    how = {"max_tokens": args.n_tokens, "sampling": sampling, "stop": stop, "slide": True}
    if args.json:
        done = complete(model, tokenizer, [prompt] * args.n, seed=args.seed, **how)
        print_json([{"prompt": args.prompt, **vars(completion)} for completion in done])
        return 0
    for sample in range(args.n):
        pieces = stream(model, tokenizer, prompt, seed=args.seed, place=sample, **how)
        begun = args.prompt + next(pieces, "")  # what is refused is refused before the prompt is shown
        for piece in itertools.chain([begun], pieces):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n" if sample == args.n - 1 else "\n\n" + "-" * 40 + "\n")
    return 0
