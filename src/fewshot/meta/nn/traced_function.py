"""A function of tensors as one flat program. In: a function with inner gradients and vmap. Out: the same, faster.

Tracing turns gradients, gradients of gradients and the batching over tasks into one list of tensor operations, once;
what is left has no autograd and no Python of ours in it. Such a list can be compiled, second order included, while
`torch.compile` of the function itself has no double backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from fewshot.base.errors import BadValue, check
from fewshot.kernels.compiler import compiler_problem

SWITCHES = ("auto", "always", "never", "untraced")
WORTH_CALLS = 5_000  # compiling takes as long as some thousand calls of a small program


class TracedFunction:
    """`work` on trees of tensors, traced for each shape that comes; never differentiable.

    Tracing takes as long as some dozens of calls: where shapes are many and calls are few it is better left out.
    """

    def __init__(self, work: Callable[..., Any], *, compiled: bool = False, traced: bool = True) -> None:
        self._work, self._compiled, self._traced = work, compiled, traced
        self._made: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """Return what `work` gives; nothing in `work` may depend on the tensors' values save through operations on
        them.
        """
        if not self._traced:
            with torch.no_grad():
                return self._work(*args)
        leaves, form = pytree.tree_flatten(args)
        key = (form, tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves))
        with torch.no_grad():
            if key not in self._made:
                graph = make_fx(self._work)(*args)
                graph.graph.eliminate_dead_code()
                graph.recompile()
                self._made[key] = torch.compile(graph.forward, dynamic=False) if self._compiled else graph
            return self._made[key](*args)


def compiles(setting: str, *, n_calls: int, device: str) -> bool:
    """Return whether a program that runs so often is compiled; raises BadValue where it must be and cannot."""
    check(setting in SWITCHES, f"compile is {setting!r}, allowed: {', '.join(SWITCHES)}")
    problem = compiler_problem(device)
    if setting == "always" and problem is not None:
        raise BadValue(f"compile is always, but there is {problem}")
    return setting == "always" or (setting == "auto" and problem is None and n_calls >= WORTH_CALLS)
