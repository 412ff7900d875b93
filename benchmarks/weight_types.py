r"""What bfloat16 and int8 weights change in a trained model: its perplexity on text that it was not trained on.

    PYTHONPATH=src python benchmarks/weight_types.py RUN [RUN ...] --text FILE \
        --out benchmarks/results/weight_types.json

The text is read in windows of the model's context, each behind `<|endoftext|>`, by the engine that serves it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from fewshot.base.files import read_text, write_json
from fewshot.bench.hardware import hardware
from fewshot.checkpoint.load import load_run
from fewshot.generate.complete import complete_requests
from fewshot.generate.request import Request
from fewshot.kernels.invariant.linear import WEIGHT_TYPES
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.vocab import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--text", type=Path, required=True, help="a text that no run was trained on")
    parser.add_argument("--n_tokens", type=int, default=50_000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    text, rows = read_text(args.text), list[dict[str, Any]]()
    for folder in args.runs:
        model, tokenizer, _ = load_run(folder)
        tokens = tokenizer.encode(text)[: args.n_tokens]
        losses = {kind: loss(PackedGPT(model, kind), tokenizer, tokens) for kind in WEIGHT_TYPES}
        row = {
            "run": folder.name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "tokens": len(tokens),
            "perplexity": {kind: math.exp(value) for kind, value in losses.items()},
            "changed_by": {kind: math.exp(value - losses["float32"]) - 1 for kind, value in losses.items()},
        }
        print(row)
        rows.append(row)
    write_json(args.out, {"bench": "weight_types", "machine": hardware(), "text": args.text.name, "rows": rows})


def loss(model: GPT, tokenizer: Tokenizer, tokens: list[int]) -> float:
    """Return the mean negative log-probability of the tokens, in nats."""
    room = model.config.n_ctx - 1
    requests = [
        Request(prompt=[tokenizer.eot, *tokens[at : at + room]], max_tokens=0, prompt_logprobs=True)
        for at in range(0, len(tokens), room)
    ]
    scores = [
        score for done in complete_requests(model, tokenizer, requests, batch_size=4) for score in done.prompt_scores
    ]
    assert len(scores) == len(tokens)
    return -math.fsum(score.logprob for score in scores) / len(scores)


if __name__ == "__main__":
    main()
