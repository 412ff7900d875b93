from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewshot.kernels.elementwise.activations import ACTIVATIONS
from fewshot.kernels.invariant.gelu import invariant

EXACT = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_right_and_the_same_wherever_a_row_stands(name: str) -> None:
    function = ACTIVATIONS[name]
    x = torch.linspace(-9, 9, 31 * 37).view(31, 37)
    whole = invariant(function)(x)
    torch.testing.assert_close(whole.double(), EXACT[name](x.double()), rtol=1e-5, atol=1e-6)
    for first, n in ((0, 1), (3, 1), (5, 7), (30, 1)):
        assert torch.equal(invariant(function)(x[first : first + n]), whole[first : first + n])
    assert torch.equal(invariant(function)(x.T.contiguous().T), whole)
