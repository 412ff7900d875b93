from __future__ import annotations

import pytest
import torch

from fewshot.kernels.elementwise.activations import ACTIVATIONS
from fewshot.model import config

EXACT = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "relu": lambda x: x.clamp(min=0),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def test_a_configuration_knows_them_all() -> None:
    assert tuple(ACTIVATIONS) == config.ACTIVATIONS == tuple(EXACT)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_is_its_formula(name: str) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), EXACT[name](x), rtol=1e-6, atol=1e-9)
