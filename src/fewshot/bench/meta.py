"""Tasks a second of MAML's outer gradient, all tasks in one traced function, against a Python loop over tasks."""

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
    """The same tasks at every draw, so that the time to draw them is not measured."""

    episodes: Episodes

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        return self.episodes


def measure(*, rounds: int, compiled: bool | None = None) -> dict[str, Any]:
    """Return tasks a second of three ways and their largest difference of a gradient, by number of inner steps.

    The traced function is compiled if `compiled` says so; by default if there is a compiler.
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
        "program": _traced_step(network, episodes, n_steps, compiled),
        "vmap": lambda: outer_gradients(*given[:2], mse_loss, given[2], n_steps=n_steps)[1],
        "loop": lambda: loop_gradients(*given, n_steps=n_steps),
    }
    gradients = {name: way() for name, way in ways.items()}
    seconds = in_turns(ways, rounds=rounds)
    return {
        "n_inner_steps": n_steps,
        "compiled": compiled,
        **{f"{name}_per_second": N_TASKS / seconds[name] for name in ways},
        "ratio": seconds["loop"] / seconds["program"],
        "vmap_ratio": seconds["loop"] / seconds["vmap"],
        "largest_difference": max(
            (gradients["loop"][name] - gradients[way][name]).abs().max().item()
            for way in ("program", "vmap")
            for name in gradients["loop"]
        ),
    }


def _traced_step(
    network: nn.Module, episodes: Episodes, n_steps: int, compiled: bool
) -> Callable[[], dict[str, Tensor]]:
    """Return the outer gradient as training computes it, by a traced function."""
    config = LearnerConfig(n_steps=n_steps, compile="always" if compiled else "never")
    learner, generator = WeightLearner(network, _Fixed(episodes), mse_loss, config), torch.Generator()

    def gradients() -> dict[str, Tensor]:
        by_name = learner.step(generator, 0.0).gradients or {}
        return {name.removeprefix("weights."): gradient for name, gradient in by_name.items()}

    return gradients


def loop_gradients(module: nn.Module, episodes: Episodes, inner: InnerLoop, *, n_steps: int) -> dict[str, Tensor]:
    """Return the outer gradient computed task by task, by torch's autograd with a graph of the inner gradients."""
    weights = dict(module.named_parameters())
    losses = []
    for i in range(len(episodes.support_x)):
        adapted: dict[str, Tensor] = dict(weights)
        for _ in range(n_steps):
            loss = mse_loss(functional_call(module, adapted, (episodes.support_x[i],)), episodes.support_y[i])
            gradients = torch.autograd.grad(loss, list(adapted.values()), create_graph=inner.second_order)
            moved = zip(adapted.items(), gradients, strict=True)
            adapted = {name: weight - inner.step_size * gradient for (name, weight), gradient in moved}
        losses.append(mse_loss(functional_call(module, adapted, (episodes.query_x[i],)), episodes.query_y[i]))
    gradients = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
    return dict(zip(weights, gradients, strict=True))
