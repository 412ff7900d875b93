"""Floating point operations, counted by torch as they run. In: a function, or a step of the outer loop. Out: FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fewshot.meta.outer_loop import OuterLoop, OuterStep


def flops_of(function: Callable[[], object]) -> float:
    """Return the operations of matrix products and convolutions in a call, backward passes included.

    Those under `torch.func` are counted too. Additions, norms and activations are left out, as in GPT-3's Appendix D;
    so are kernels of ours that torch does not know: use `reference` or `sdpa`.
    """
    with (
        torch.compiler.set_stance("force_eager"),  # torch does not count what is compiled,
        sdpa_kernel(SDPBackend.MATH),  # nor a CPU's fused attention
        FlopCounterMode(display=False) as counter,
    ):
        function()
    return float(counter.get_total_flops())


def training_flops(step: OuterStep, *, n_iterations: int) -> float:
    """Return the operations of an outer loop: of one iteration half-way, forward and backward, times their number."""

    def iterate() -> None:
        loss = step(torch.Generator().manual_seed(0), 0.5)
        if loss.gradients is None:
            loss.value.backward()

    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        iterate()  # the first one may trace its function, which is not to be counted
        return n_iterations * flops_of(iterate)


def training_facts(loop: OuterLoop) -> dict[str, Any]:
    """Return what a curve tells about its outer loop, which is to be done: a step of Reptile changes its moments."""
    return {
        "training_flops": training_flops(loop.step, n_iterations=loop.config.n_iterations),
        "n_weights": sum(tensor.numel() for tensor in loop.learned.values()),
    }
