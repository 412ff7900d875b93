"""A function of tensors traced into a flat graph. In: a function with inner gradients and vmap. Out: the same, faster.

Tracing turns gradients, gradients of gradients and the batching over tasks into one list of tensor operations, once;
running the list needs no autograd and no Python of ours. It can be compiled, second order included, while
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
WORTH_CALLS = 5_000  # compiling takes as long as some thousand calls of a small function


class TracedFunction:
    """A function of trees of tensors, traced for each new shape of its arguments; never differentiable.

    Tracing takes as long as some dozens of calls: with many shapes and few calls it is better left out.
    """

    def __init__(self, function: Callable[..., Any], *, compiled: bool = False, traced: bool = True) -> None:
        self._function, self._compiled, self._traced = function, compiled, traced
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """Return the function's value; no Python in the function may depend on the values of tensors."""
        if not self._traced:
            with torch.no_grad():
                return self._function(*args)
        leaves, form = pytree.tree_flatten(args)
        key = (form, tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves))
        with torch.no_grad():
            if key not in self._graphs:
                graph = make_fx(self._function)(*args)
                graph.graph.eliminate_dead_code()
                graph.recompile()
                self._graphs[key] = torch.compile(graph.forward, dynamic=False) if self._compiled else graph
            return self._graphs[key](*args)


def compiles(setting: str, *, n_calls: int, device: str) -> bool:
    """Return whether a function called so often is to be compiled; raises BadValue if it must be and cannot."""
    check(setting in SWITCHES, f"compile is {setting!r}, allowed: {', '.join(SWITCHES)}")
    problem = compiler_problem(device)
    if setting == "always" and problem is not None:
        raise BadValue(f"compile is always, but there is {problem}")
    return setting == "always" or (setting == "auto" and problem is None and n_calls >= WORTH_CALLS)
