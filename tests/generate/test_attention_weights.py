from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import ContextTooLong
from fewshot.generate.attention_weights import last_attention
from fewshot.kernels.reference import attend
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

PATTERNS = [
    "dense",
    "alternate(dense, banded(4))",
    "strided(3)",
    "fixed(4, 1)",
    "perhead(banded(2), dense, strided(3))",
    "perhead(banded(2), dense)",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("n", [1, 5, 12])
@torch.no_grad()
def test_the_weights_are_those_that_the_last_position_mixes_values_with(pattern: str, n: int) -> None:
    shape = {"n_layers": 2, "d_model": 18, "n_heads": 3, "d_head": 4, "n_ctx": 12, "n_vocab": 20, "init_std": 0.3}
    model = GPT(GPTConfig(**shape, pattern=pattern), seed=0).eval()
    for layer in last_attention(model, [7 * i % 20 for i in range(n)]):
        assert layer.weights.shape == layer.allowed.shape == (3, n)
        torch.testing.assert_close(layer.weights.sum(-1), torch.ones(3))
        assert bool((layer.weights[~layer.allowed] == 0).all())
        q, k, v = torch.randn(3, 1, 3, n, 4).unbind(0)
        mixed = layer.attend(q, k, v, attend)
        torch.testing.assert_close(torch.einsum("hs,hsk->hk", layer.weights, v[0]), mixed[0, :, -1])


def test_a_text_beyond_the_context_is_refused() -> None:
    model = GPT(GPTConfig(n_layers=1, d_model=4, n_heads=1, n_ctx=4, n_vocab=20))
    with pytest.raises(ContextTooLong):
        last_attention(model, [1] * 5)
