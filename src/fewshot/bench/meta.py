"""Tasks a second of MAML's outer gradient, all tasks at once, against a Python loop over tasks: same gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from fewshot.bench.timing import in_turns
from fewshot.meta.episodes import Episodes, Sinusoids
from fewshot.meta.maml import InnerLoop, outer_gradients
from fewshot.meta.networks import perceptron

N_TASKS, N_EXAMPLES = 25, 10  # the paper's sinusoids
INNER_STEPS = (1, 5)


def measure(*, rounds: int) -> dict[str, Any]:
    """For each number of inner steps tasks a second of both ways, and the largest difference of any gradient."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread
    try:
        return {"tasks": "sinusoid", "n_tasks": N_TASKS, "rows": [_row(n, rounds) for n in INNER_STEPS]}
    finally:
        torch.set_num_threads(threads)


def _row(n_steps: int, rounds: int) -> dict[str, Any]:
    network, inner = perceptron(1, (40, 40), 1, seed=0), InnerLoop()
    episodes = Sinusoids().draw(N_TASKS, N_EXAMPLES, N_EXAMPLES, torch.Generator().manual_seed(0))
    ours = outer_gradients(network, episodes, mse_loss, inner, n_steps=n_steps)[1]
    theirs = loop_gradients(network, episodes, inner, n_steps=n_steps)
    seconds = in_turns(
        {
            "ours": lambda: outer_gradients(network, episodes, mse_loss, inner, n_steps=n_steps),
            "loop": lambda: loop_gradients(network, episodes, inner, n_steps=n_steps),
        },
        rounds=rounds,
    )
    return {
        "n_inner_steps": n_steps,
        "ours_per_second": N_TASKS / seconds["ours"],
        "loop_per_second": N_TASKS / seconds["loop"],
        "ratio": seconds["loop"] / seconds["ours"],
        "largest_difference": max((ours[name] - theirs[name]).abs().max().item() for name in ours),
    }


def loop_gradients(module: nn.Module, episodes: Episodes, inner: InnerLoop, *, n_steps: int) -> dict[str, Tensor]:
    """The same outer gradient task by task, by torch's autograd with a graph of the inner gradients."""
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
