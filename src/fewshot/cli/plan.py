"""Print what a model costs before it is built: parameters, training FLOPs and memory. Nothing is trained.

With --gpus and --gpu: the whole run on that many GPUs, memory a GPU by kind, time and checkpoint size. A layout can be
given as training takes it (--parallel.dp, fsdp, tp, pp); sizes that are not given are chosen. Also:
--loop.micro_rows, --loop.recompute, --loop.precision, --optimizer.name, --schedule.batch_tokens, and fields of model.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.model.footprint.cluster import Choice, ClusterPlan

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: which model, how many tokens, which GPUs."""
    parser.add_argument("preset", metavar="PRESET|all", help="a model size, or all of them")
    parser.add_argument(
        "--n_tokens", type=float, default=300e9, help="tokens of the training run (default: 300e9, the paper's)"
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="plan a run on so many GPUs")
    parser.add_argument("--gpu", metavar="NAME", help="the GPU, such as h100; an unknown name lists all")
    parser.add_argument(
        "--mfu", type=float, help="share of the GPUs' peak that training reaches, an assumption (default: 0.40)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the plan of one preset or of all."""
    from fewshot.base.config import from_overrides
    from fewshot.base.errors import check, look_up
    from fewshot.model.presets import PRESETS

    check(1 <= args.n_tokens < 1e18, f"--n_tokens is {args.n_tokens}, must be at least 1 and below 1e18")
    given = from_overrides(args.overrides)
    if args.gpus is None and args.gpu is None:
        check(not given and args.mfu is None, "this needs --gpus N and --gpu NAME, which plan a run on a cluster")
        chosen = PRESETS if args.preset == "all" else {args.preset: look_up("preset", args.preset, PRESETS)}
        return _show_costs(chosen, n_tokens=int(args.n_tokens), as_json=args.json)
    check(
        args.gpus is not None and args.gpu is not None, "give both --gpus N and --gpu NAME, such as --gpus 8 --gpu h100"
    )
    check(args.preset != "all", "a run is planned for one preset: give its name instead of all")
    return _show_run(args, look_up("preset", args.preset, PRESETS), given)


def _show_costs(chosen: dict[str, Any], *, n_tokens: int, as_json: bool) -> int:
    """Print parameters, FLOPs and memory of models, one a row."""
    from dataclasses import asdict

    from fewshot.base.machine import in_bytes
    from fewshot.cli.show import print_json, print_table
    from fewshot.model.plan import make_plan

    plans = [make_plan(name, config, n_tokens=n_tokens) for name, config in chosen.items()]
    if as_json:
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
    print_table(columns, rows, title=f"{n_tokens:,.0f} training tokens")
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


def _show_run(args: argparse.Namespace, config: Any, given: dict[str, Any]) -> int:
    """Print the plan of a run on many GPUs."""
    from fewshot.base.config import from_plain, lay_over, to_plain
    from fewshot.cli.show import print_json
    from fewshot.model.config import GPTConfig
    from fewshot.model.footprint.cluster import plan_cluster, wishes_from
    from fewshot.model.footprint.parameters import n_parameters
    from fewshot.train.resolving.recipes import recipe_for

    shape = given.pop("model", {})
    config = from_plain(GPTConfig, lay_over(to_plain(config), shape), where="model")
    recipe = recipe_for(args.preset, n_parameters(config))
    wishes = wishes_from(
        given,
        n_gpus=args.gpus,
        gpu=args.gpu,
        mfu=args.mfu,
        n_tokens=int(args.n_tokens),
        batch_tokens=recipe.batch_tokens,
    )
    plan = plan_cluster(args.preset, config, wishes)
    if args.json:
        print_json(plan.plain())
    else:
        _print_run(plan)
    return 0


def _print_run(plan: ClusterPlan) -> None:
    from fewshot.base.machine import in_bytes
    from fewshot.base.text import in_words
    from fewshot.cli.show import print_table
    from fewshot.model.footprint.cluster import RULE, WORDS
    from fewshot.model.footprint.gpus import USABLE

    work, memory = plan.chosen.work, plan.chosen.memory
    print(
        f"{plan.name}, {plan.n_parameters:,} parameters, on {plan.n_gpus:,} x {plan.gpu} "
        f"({in_bytes(plan.memory_bytes)}, {plan.peak_flops / 1e12:,.0f} TFLOP/s in bfloat16)"
    )
    print(f"layout: {plan.chosen.layout.text}; {work.optimizer}, {work.precision}, {WORDS[work.recompute]}")
    print(f"options: {plan.chosen.options}")
    where = "" if plan.chosen.layout.pp == 1 else f", stage {memory.stage + 1}/{plan.chosen.layout.pp}"
    rows = [(name, in_bytes(n)) for name, n in memory.kinds.items()]
    print_table(
        ("kind", "bytes"),
        [*rows, ("peak", in_bytes(memory.peak)), (f"usable ({USABLE:.0%})", in_bytes(plan.usable_bytes))],
        title=f"memory a GPU{where}",
    )
    print(
        f"time: {in_words(plan.seconds)} for {plan.n_tokens:,} tokens in {plan.n_steps:,} steps of "
        f"{plan.batch_tokens:,}, if the GPUs reach {plan.mfu:.0%} of their stated peak (an assumption: --mfu)"
    )
    print(
        f"a step: {work.n_micro:,} forward passes (--loop.micro_rows {work.micro_rows})"
        + (f", the pipeline idle for {plan.idle:.0%} of it" if plan.idle else "")
    )
    weights, moments = plan.checkpoint_weight_bytes, plan.checkpoint_optimizer_bytes
    print(f"checkpoint: {in_bytes(weights + moments)} ({in_bytes(weights)} weights, {in_bytes(moments)} moments)")
    if plan.others:
        print_table(
            ("options", "peak", "free"),
            [_row(choice, plan.usable_bytes) for choice in plan.others],
            title=f"other layouts that fit; order: {RULE}",
        )


def _row(choice: Choice, usable: int) -> tuple[str, str, str]:
    from fewshot.base.machine import in_bytes

    return choice.options, in_bytes(choice.memory.peak), in_bytes(usable - choice.memory.peak)
