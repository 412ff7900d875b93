from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewshot.base.errors import UnknownName
from fewshot.kernels.invariant.linear import WEIGHT_TYPES, PackedLinear


def exact(x: Tensor, weight: Tensor, bias: Tensor, weight_type: str) -> Tensor:
    """What the layer's own numbers give, in float64."""
    x, weight = x.double(), weight.double()
    if weight_type == "bfloat16":
        x, weight = x.bfloat16().double(), weight.bfloat16().double()
    if weight_type == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127
        weight = (weight / scale).round() * scale
    return x @ weight.T + bias.double()


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(1, 1), (7, 5), (24, 16), (33, 50), (64, 130)])
def test_a_row_is_exact_and_has_the_same_bits_in_any_batch(n_inputs: int, n_outputs: int, weight_type: str) -> None:
    torch.manual_seed(n_inputs)
    weight, bias, x = torch.randn(n_outputs, n_inputs), torch.randn(n_outputs), torch.randn(40, n_inputs)
    layer = PackedLinear(weight, bias, weight_type)
    whole = layer(x)
    torch.testing.assert_close(whole.double(), exact(x, weight, bias, weight_type), rtol=1e-5, atol=2e-5)
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 25):
        for first in (0, 3, 15):
            assert torch.equal(layer(x[first : first + n]), whole[first : first + n])
    for n_threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        assert torch.equal(layer(x), whole)
        torch.set_num_threads(before)


def test_any_shape_of_rows_no_bias_and_a_row_of_zeros_will_do() -> None:
    weight = torch.randn(5, 7)
    weight[3] = 0.0
    layer = PackedLinear(weight, None, "int8")
    x = torch.randn(2, 3, 7)
    assert layer(x).shape == (2, 3, 5)
    assert (layer(x)[..., 3] == 0).all()
    assert layer(x.transpose(0, 1)).equal(layer(x).transpose(0, 1))


def test_what_is_not_finite_stays_so() -> None:
    layer = PackedLinear(torch.ones(3, 4), None, "bfloat16")
    assert layer(torch.tensor([[1.0, torch.nan, 1.0, 1.0]])).isnan().all()
    assert (layer(torch.tensor([[1.0, torch.inf, 1.0, 1.0]])) == torch.inf).all()


def test_bytes_are_those_of_the_numbers_and_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownName, match=r"weight type.*int4"):
        PackedLinear(torch.ones(3, 4), None, "int4")
    layer = PackedLinear(torch.ones(32, 48), torch.ones(32), "bfloat16")
    assert layer.n_bytes == 32 * 48 * (2 if layer.is_native else 4) + 32 * 4
