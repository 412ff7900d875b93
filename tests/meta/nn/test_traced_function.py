from __future__ import annotations

import pytest
import torch
from torch.func import grad

from fewshot.base.errors import BadValue
from fewshot.kernels.compiler import compiler_problem
from fewshot.meta.nn import traced_function as program
from fewshot.meta.nn.traced_function import WORTH_CALLS, TracedFunction, compiles


def second_slope(weights: dict[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of w^3 x summed: 6 w x, through a gradient within a gradient."""

    def slope(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return grad(lambda own: (own["w"] ** 3 * x).sum())(weights)["w"].sum()

    return grad(slope)(weights)


NO_COMPILER = pytest.mark.skipif(compiler_problem("cpu") is not None, reason="no compiler")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, when it compiles
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NO_COMPILER)])
def test_a_gradient_of_a_gradient_is_the_same_for_every_shape_that_comes(compiled):
    made = TracedFunction(second_slope, compiled=compiled)
    for n in (3, 5, 3):
        w, x = torch.randn(n, requires_grad=True), torch.randn(n)
        found = made({"w": w}, x)["w"]
        assert torch.allclose(found, 6 * w * x, atol=1e-6)
        assert not found.requires_grad


def test_the_work_is_traced_once_for_each_shape():
    calls = []

    def work(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return 2 * x

    made = TracedFunction(work)
    assert torch.equal(made(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(made(torch.ones(2) * 3), torch.full((2,), 6.0))
    made(torch.ones(3))
    assert calls == [(2,), (3,)]


def test_untraced_it_is_the_work_itself_without_a_graph():
    calls = []

    def work(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return x * w

    w = torch.ones(3, requires_grad=True)
    made = TracedFunction(work, traced=False)
    results = [made(torch.ones(n, 3)) for n in (2, 2, 5)]
    assert calls == [(2, 3), (2, 3), (5, 3)]
    assert not any(result.requires_grad for result in results)


def test_long_runs_are_compiled_where_that_is_possible(monkeypatch):
    monkeypatch.setattr(program, "compiler_problem", lambda device: None)
    assert compiles("auto", n_calls=WORTH_CALLS, device="cpu")
    assert not compiles("auto", n_calls=WORTH_CALLS - 1, device="cpu")
    assert compiles("always", n_calls=1, device="cpu")
    assert not compiles("never", n_calls=10**9, device="cpu")
    monkeypatch.setattr(program, "compiler_problem", lambda device: "no compiler here")
    assert not compiles("auto", n_calls=10**9, device="cpu")
    with pytest.raises(BadValue, match="compile is always, but there is no compiler here"):
        compiles("always", n_calls=1, device="cpu")
    with pytest.raises(BadValue, match="compile is 'maybe', allowed: auto"):
        compiles("maybe", n_calls=1, device="cpu")
