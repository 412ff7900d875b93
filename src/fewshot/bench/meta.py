"""Tasks a second of MAML's outer gradient, all tasks in one program, against a Python loop over tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from fewshot.bench.timing import in_turns
from fewshot.kernels.compiler import compiler_problem
from fewshot.meta.episodes import Episodes, Sinusoids
from fewshot.meta.learners.maml import InnerLoop, outer_gradients
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron

N_TASKS, N_EXAMPLES = 25, 10  # the paper's sinusoids
INNER_STEPS = (1, 5)


@dataclass(frozen=True)
class _Fixed:
    """The same tasks at every draw: drawing is not what is measured."""

    episodes: Episodes

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        return self.episodes


def measure(*, rounds: int, compiled: bool | None = None) -> dict[str, Any]:
    """For each number of inner steps tasks a second of three ways, and the largest difference of any gradient.

    Programs are compiled as told, or where there is a compiler.
    """
    compiled = compiler_problem("cpu") is None if compiled is None else compiled
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread
    try:
        return {"tasks": "sinusoid", "n_tasks": N_TASKS, "rows": [_row(n, rounds, compiled) for n in INNER_STEPS]}
    finally:
        torch.set_num_threads(threads)


def _row(n_steps: int, rounds: int, compiled: bool) -> dict[str, Any]:
    network = perceptron(1, (40, 40), 1, seed=0)
    episodes = Sinusoids().draw(N_TASKS, N_EXAMPLES, N_EXAMPLES, torch.Generator().manual_seed(0))
    given = network, episodes, InnerLoop()
    ways: dict[str, Callable[[], dict[str, Tensor]]] = {
        "program": _program(network, episodes, n_steps, compiled),
        "vmap": lambda: outer_gradients(*given[:2], mse_loss, given[2], n_steps=n_steps)[1],
        "loop": lambda: loop_gradients(*given, n_steps=n_steps),
    }
    slopes = {name: way() for name, way in ways.items()}
    seconds = in_turns(ways, rounds=rounds)
    return {
        "n_inner_steps": n_steps,
        "compiled": compiled,
        **{f"{name}_per_second": N_TASKS / seconds[name] for name in ways},
        "ratio": seconds["loop"] / seconds["program"],
        "vmap_ratio": seconds["loop"] / seconds["vmap"],
        "largest_difference": max(
            (slopes["loop"][name] - slopes[way][name]).abs().max().item()
            for way in ("program", "vmap")
            for name in slopes["loop"]
        ),
    }


def _program(network: nn.Module, episodes: Episodes, n_steps: int, compiled: bool) -> Callable[[], dict[str, Tensor]]:
    """Return what training runs: one program."""
    config = LearnerConfig(n_steps=n_steps, compile="always" if compiled else "never")
    learner, generator = WeightLearner(network, _Fixed(episodes), mse_loss, config), torch.Generator()

    def slopes() -> dict[str, Tensor]:
        found = learner.step(generator, 0.0).slopes or {}
        return {name.removeprefix("weights."): slope for name, slope in found.items()}

    return slopes


def loop_gradients(module: nn.Module, episodes: Episodes, inner: InnerLoop, *, n_steps: int) -> dict[str, Tensor]:
    """Return the same outer gradient task by task, by torch's autograd with a graph of the inner gradients."""
    weights = dict(module.named_parameters())
    losses = []
    for i in range(len(episodes.support_x)):
        own: dict[str, Tensor] = dict(weights)
        for _ in range(n_steps):
            loss = mse_loss(functional_call(module, own, (episodes.support_x[i],)), episodes.support_y[i])
            slopes = torch.autograd.grad(loss, list(own.values()), create_graph=inner.second_order)
            moved = zip(own.items(), slopes, strict=True)
            own = {name: weight - inner.step_size * slope for (name, weight), slope in moved}
        losses.append(mse_loss(functional_call(module, own, (episodes.query_x[i],)), episodes.query_y[i]))
    slopes = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
    return dict(zip(weights, slopes, strict=True))
