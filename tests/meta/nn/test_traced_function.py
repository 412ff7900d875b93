from __future__ import annotations

import pytest
import torch
from torch.func import grad

from fewshot.base.errors import BadValue
from fewshot.kernels.compiler import compiler_problem
from fewshot.meta.nn.traced_function import WORTH_CALLS, TracedFunction, compiles


def second_gradient(weights: dict[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The second derivative of the sum of w^3 x, which is 6 w x, by a gradient within a gradient."""

    def gradient(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return grad(lambda own: (own["w"] ** 3 * x).sum())(weights)["w"].sum()

    return grad(gradient)(weights)


NO_COMPILER = pytest.mark.skipif(compiler_problem("cpu") is not None, reason="no compiler")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, when it compiles
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NO_COMPILER)])
def test_a_gradient_of_a_gradient_is_the_same_for_every_shape_that_comes(compiled):
    traced = TracedFunction(second_gradient, compiled=compiled)
    for n in (3, 5, 3):
        w, x = torch.randn(n, requires_grad=True), torch.randn(n)
        result = traced({"w": w}, x)["w"]
        assert torch.allclose(result, 6 * w * x, atol=1e-6)
        assert not result.requires_grad


def test_a_function_is_traced_once_for_each_shape():
    calls = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return 2 * x

    traced = TracedFunction(function)
    assert torch.equal(traced(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(traced(torch.ones(2) * 3), torch.full((2,), 6.0))
    traced(torch.ones(3))
    assert calls == [(2,), (3,)]


def test_untraced_it_is_the_function_itself_without_a_graph():
    calls = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return x * w

    w = torch.ones(3, requires_grad=True)
    traced = TracedFunction(function, traced=False)
    results = [traced(torch.ones(n, 3)) for n in (2, 2, 5)]
    assert calls == [(2, 3), (2, 3), (5, 3)]
    assert not any(result.requires_grad for result in results)


def test_long_runs_are_compiled_where_that_is_possible(set_in_module):
    set_in_module(compiles, "compiler_problem", lambda device: None)
    assert compiles("auto", n_calls=WORTH_CALLS, device="cpu")
    assert not compiles("auto", n_calls=WORTH_CALLS - 1, device="cpu")
    assert compiles("always", n_calls=1, device="cpu")
    assert not compiles("never", n_calls=10**9, device="cpu")
    set_in_module(compiles, "compiler_problem", lambda device: "no compiler here")
    assert not compiles("auto", n_calls=10**9, device="cpu")
    with pytest.raises(BadValue, match="compile is always, but there is no compiler here"):
        compiles("always", n_calls=1, device="cpu")
    with pytest.raises(BadValue, match="compile is 'maybe', allowed: auto"):
        compiles("maybe", n_calls=1, device="cpu")
