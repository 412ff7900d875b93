from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewshot.kernels import sdpa
from fewshot.patterns.pattern import Banded, Dense, Pattern, PerHead, Strided


@pytest.mark.parametrize(
    ("pattern", "T", "S", "q_start", "mask_shape", "is_causal"),
    [
        (Dense(), 7, 7, 0, None, True),
        (Dense(), 1, 7, 6, None, False),  # the newest query reads all that is there
        (Dense(), 1, 7, 5, (1, 7), False),  # a cache with room left
        (Dense(), 3, 7, 4, (3, 7), False),
        (Dense(), 3, 7, 0, (3, 7), False),
        (Banded(2), 7, 7, 0, (7, 7), False),
        (PerHead(Banded(2), Strided(3)), 3, 7, 4, (1, 5, 3, 7), False),
    ],
)
def test_a_mask_is_built_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    pattern: Pattern,
    T: int,
    S: int,
    q_start: int,
    mask_shape: tuple[int, ...] | None,
    is_causal: bool,
) -> None:
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(q, k, v, mask, **kwargs):
        calls.append((None if mask is None else tuple(mask.shape), kwargs["is_causal"]))
        return fused(q, k, v, mask, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    sdpa.attend(torch.randn(2, 5, T, 4), torch.randn(2, 5, S, 4), torch.randn(2, 5, S, 4), pattern, q_start=q_start)
    assert calls == [(mask_shape, is_causal)]


def test_torch_fused_attention_has_no_second_derivative_as_supports_says() -> None:
    q = torch.randn(1, 2, 5, 4, requires_grad=True)
    (first,) = torch.autograd.grad(sdpa.attend(q, q, q, Dense()).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first.sum(), q)
