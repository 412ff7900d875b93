from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewshot.kernels.elementwise.gelu import gelu, sigmoid_gelu
from fewshot.kernels.invariant.gelu import invariant


@pytest.mark.parametrize("function", [gelu, sigmoid_gelu])
def test_values_are_right_and_the_same_wherever_a_row_stands(function) -> None:
    x = torch.linspace(-9, 9, 31 * 37).view(31, 37)
    whole = invariant(function)(x)
    exact = F.gelu(x.double(), approximate="tanh") if function is gelu else x.double() * (1.702 * x.double()).sigmoid()
    torch.testing.assert_close(whole.double(), exact, rtol=1e-5, atol=1e-6)
    for first, n in ((0, 1), (3, 1), (5, 7), (30, 1)):
        assert torch.equal(invariant(function)(x[first : first + n]), whole[first : first + n])
    assert torch.equal(invariant(function)(x.T.contiguous().T), whole)
