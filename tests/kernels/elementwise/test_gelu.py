"""GELU in bfloat16 by C++: as exact as its type allows, the same bits wherever a number stands, and differentiable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.kernels.elementwise.gelu import gelu, sigmoid_gelu
from fewshot.kernels.library import Library, library

Function = Callable[[Tensor], Tensor]
EXACT: dict[Function, Function] = {  # in float64
    gelu: lambda x: F.gelu(x, approximate="tanh"),
    sigmoid_gelu: lambda x: x * torch.sigmoid(1.702 * x),
}
EPS = torch.finfo(torch.bfloat16).eps


def values(n: int) -> Tensor:
    return torch.linspace(-12, 12, n).to(torch.bfloat16)


def with_gradient(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    y.backward(torch.full_like(y, 1.5))
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.fixture(params=["C++", "no compiler"])
def compiled(request: pytest.FixtureRequest, set_in_module: Callable[..., None]) -> None:
    if request.param == "no compiler":
        set_in_module(gelu, "library", lambda: Library(None, "not here"))
    elif library().problem:
        pytest.skip(str(library().problem))


@pytest.mark.parametrize("function", EXACT)
@pytest.mark.parametrize("n", [1, 7, 16, 1001])
@pytest.mark.usefixtures("compiled")
def test_values_and_gradients_are_the_nearest_that_bfloat16_has(function: Function, n: int) -> None:
    x = values(n)
    (y, grad), (y_exact, grad_exact) = with_gradient(function, x), with_gradient(EXACT[function], x.double())
    assert y.dtype == grad.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), y_exact, rtol=0.51 * EPS, atol=1e-7)
    torch.testing.assert_close(grad.double(), grad_exact, rtol=0.51 * EPS, atol=1e-6)


@pytest.mark.parametrize("function", EXACT)
@pytest.mark.usefixtures("compiled")
def test_a_number_has_the_same_bits_wherever_it_stands(function: Function) -> None:
    x = values(1001)
    y, grad = with_gradient(function, x)
    for first, end in ((0, 1), (3, 40), (500, 1001)):
        part, part_grad = with_gradient(function, x[first:end])
        assert torch.equal(part, y[first:end])
        assert torch.equal(part_grad, grad[first:end])
    turned, turned_grad = with_gradient(function, x[:1000].view(50, 20).T)
    assert torch.equal(turned, y[:1000].view(50, 20).T)
    assert torch.equal(turned_grad, grad[:1000].view(50, 20).T)


@pytest.mark.parametrize("function", EXACT)
@pytest.mark.usefixtures("compiled")
def test_what_is_not_finite_stays_so(function: Function) -> None:
    x = torch.tensor([float("nan"), float("inf"), 1e38, -1e38], dtype=torch.bfloat16)
    y = function(x)
    assert y[0].isnan()
    assert not y[1].isfinite()
    assert y[2] == x[2]
    assert y[3] == 0


@pytest.mark.parametrize("function", EXACT)
def test_other_types_are_torchs_and_can_be_differentiated_twice(function: Function) -> None:
    x = torch.linspace(-3, 3, 11, dtype=torch.float64, requires_grad=True)
    assert torch.equal(function(x.float()), EXACT[function](x.float()))
    assert torch.autograd.gradgradcheck(function, x)


def test_the_operator_keeps_torchs_rules() -> None:
    x = values(33).requires_grad_()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.fewshot.gelu.default, (x, 1.5, 0.1), test_utils=tests)
