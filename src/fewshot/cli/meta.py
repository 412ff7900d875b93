"""Meta-learning: an outer loop over tasks that makes a few gradient steps on a new one go far.

  fewshot meta sinusoid                          MAML on the paper's sinusoids, then 5 examples of 600 unseen waves
  fewshot meta sinusoid --learner pretrain       its baseline: trained on all tasks at once
  fewshot meta sinusoid --learner fomaml --n_iterations 20000

State is kept in the --out folder: run the same command again after an interruption and it goes on.
Source: Finn et al. 2017.
"""

from __future__ import annotations

import argparse
from pathlib import Path

STATE, RESULT = "state.safetensors", "result.json"
SAVE_EVERY = 10  # reports
TEST_TASKS, TEST_SUPPORT, TEST_QUERY, TEST_STEPS = 600, 5, 100, (0, 1, 5, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, which learner."""
    parser.add_argument("tasks", choices=["sinusoid"])
    parser.add_argument("--learner", default="maml", help="maml, fomaml, anil, meta-sgd, pretrain (%(default)s)")
    parser.add_argument("--n_iterations", type=int, default=70_000, help="of the outer loop (%(default)s)")
    parser.add_argument("--n_support", type=int, default=5, help="examples of a task in training (%(default)s)")
    parser.add_argument("--n_inner_steps", type=int, default=1, help="in training (%(default)s)")
    parser.add_argument("--step_size", type=float, default=0.01, help="of the inner loop (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="of the outer loop (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for state and result (out/meta_TASKS_LEARNER)")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Train and measure."""
    import torch
    from torch.nn.functional import mse_loss

    from fewshot.base.config import to_plain
    from fewshot.base.files import write_json
    from fewshot.base.log import note
    from fewshot.base.rng import seed_of
    from fewshot.cli.show import counted, print_json, print_table
    from fewshot.meta.episodes import Sinusoids
    from fewshot.meta.learn import MetaConfig, MetaTraining, adaptation_curve, sinusoid_network

    config = MetaConfig(
        learner=args.learner,
        n_iterations=args.n_iterations,
        n_support=args.n_support,
        n_inner_steps=args.n_inner_steps,
        step_size=args.step_size,
        head="4." if args.learner == "anil" else "",
        lr=args.lr,
        seed=args.seed,
    )
    folder = args.out or Path("out") / f"meta_{args.tasks}_{args.learner}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread
    training = MetaTraining(sinusoid_network(args.seed), Sinusoids(), mse_loss, config)
    if (folder / STATE).is_file():
        training.load(folder / STATE)
        note(f"going on after {training.iteration:,} iterations")
    with counted(f"{args.tasks}, {args.learner}") as on_progress:
        try:
            for number, (done, loss) in enumerate(training.run()):
                on_progress(done, config.n_iterations)
                if number % SAVE_EVERY == SAVE_EVERY - 1:
                    training.save(folder / STATE)
                    note(f"iteration {done:,}: query loss {loss:.4f}")
        finally:
            training.save(folder / STATE)
    generator = torch.Generator().manual_seed(seed_of("meta test", 0))
    unseen = Sinusoids().draw(TEST_TASKS, TEST_SUPPORT, TEST_QUERY, generator)
    curve = adaptation_curve(training, unseen, TEST_STEPS)
    result = {"tasks": args.tasks, "config": to_plain(config), "curve": [to_plain(one) for one in curve]}
    write_json(folder / RESULT, result)
    if args.json:
        print_json(result)
        return 0
    print_table(
        ("gradient steps", "mean squared error", "95% interval, +-"),
        [(str(one.n_steps), f"{one.mean:.3f}", f"{one.half_width:.3f}") for one in curve],
        title=f"{args.learner}: {TEST_SUPPORT} examples of {TEST_TASKS} unseen sinusoids",
    )
    return 0
