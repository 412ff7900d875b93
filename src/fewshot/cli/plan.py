"""Print what a model costs before it is built: parameters, training FLOPs and memory. Nothing is trained."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: which model, and how many tokens."""
    parser.add_argument("preset", metavar="PRESET|all", help="a model size, or all of them")
    parser.add_argument(
        "--n_tokens", type=float, default=300e9, help="tokens of the training run (default: 300e9, the paper's)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the plan of one preset or of all."""
    from dataclasses import asdict

    from fewshot.base.errors import check, look_up
    from fewshot.base.machine import in_bytes
    from fewshot.cli.show import print_json, print_table
    from fewshot.model.plan import make_plan
    from fewshot.model.presets import PRESETS

    check(1 <= args.n_tokens < 1e18, f"--n_tokens is {args.n_tokens}, must be at least 1 and below 1e18")
    chosen = PRESETS if args.preset == "all" else {args.preset: look_up("preset", args.preset, PRESETS)}
    plans = [make_plan(name, config, n_tokens=int(args.n_tokens)) for name, config in chosen.items()]
    if args.json:
        print_json([asdict(plan) for plan in plans])
        return 0
    columns = ("preset", "layers", "d_model", "heads", "n_ctx", "parameters", "FLOPs", "PF-days", "training state",
               "activations/row", "weights bf16", "cache bf16")  # fmt: skip
    rows = [
        (
            plan.name,
            str(plan.n_layers),
            str(plan.d_model),
            f"{plan.n_heads} x {plan.d_head}",
            str(plan.n_ctx),
            f"{plan.n_parameters:,}",
            f"{plan.flops:.2E}",
            f"{plan.pf_days:.2E}",
            *(in_bytes(n) for n in (plan.training_state_bytes, plan.activation_bytes)),
            *(in_bytes(n) for n in (plan.inference_weight_bytes, plan.cache_bytes)),
        )
        for plan in plans
    ]
    print_table(columns, rows, title=f"{args.n_tokens:,.0f} training tokens")
    by_pattern: dict[str, list[str]] = {}
    by_vocabulary: dict[int, list[str]] = {}
    for plan in plans:
        by_pattern.setdefault(plan.pattern, []).append(plan.name)
        by_vocabulary.setdefault(plan.n_vocab, []).append(plan.name)
    for pattern, names in by_pattern.items():
        print(f"{pattern}: {', '.join(names)}")
    for n_vocab, names in by_vocabulary.items():
        print(f"parameters with a vocabulary of {n_vocab:,}: {', '.join(names)}")
    print("the vocabulary of a run is that of its tokenizer, so its number of parameters differs")
    return 0
