from __future__ import annotations

import math

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.kernels import reference
from fewshot.patterns.pattern import Banded, Columns, Dense, Fixed, Pattern, PerHead, Strided

PATTERNS_TRIED = [
    Dense(),
    Banded(3),
    Fixed(4, 1),
    Columns(3, 1, 1),
    Banded(2) | Strided(3),
    PerHead(Dense(), Strided(2)),
]


def tensors(B: int, H: int, T: int, S: int, K: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(B + 10 * H + 100 * T + 1000 * S)
    return [torch.randn(B, H, n, K, generator=generator, dtype=dtype, requires_grad=True) for n in (T, S, S)]


@pytest.mark.parametrize("pattern", PATTERNS_TRIED, ids=str)
@pytest.mark.parametrize("with_documents", [False, True])
def test_attention_is_the_softmax_over_the_keys_the_pattern_allows(pattern: Pattern, with_documents: bool) -> None:
    B, H, T, S, K, q_start = 2, 3, 5, 9, 4, 2
    q, k, v = (each.detach() for each in tensors(B, H, T, S, K))
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2], [7, 7, 7, 7, 7, 3, 3, 3, 3]])
    result = reference.attend(q, k, v, pattern, q_start=q_start, documents=documents if with_documents else None)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                position = q_start + t
                keys = [j for j in range(S) if pattern.allows(position, j, h)]
                if with_documents:
                    keys = [j for j in keys if documents[b, j] == documents[b, position]]
                exps = [math.exp(float(q[b, h, t] @ k[b, h, j]) / math.sqrt(K)) for j in keys]
                expected = sum(e / sum(exps) * v[b, h, j] for e, j in zip(exps, keys, strict=True))
                torch.testing.assert_close(result[b, h, t], expected)


def test_a_query_alone_in_its_band_or_document_reads_its_own_value() -> None:
    q, k, v = tensors(2, 3, 7, 7, 5)
    torch.testing.assert_close(reference.attend(q, k, v, Banded(1)), v)
    documents = torch.arange(7).expand(2, 7)
    torch.testing.assert_close(reference.attend(q, k, v, Columns(4, 1), documents=documents), v)


@pytest.mark.parametrize("pattern", PATTERNS_TRIED, ids=str)
def test_every_query_has_a_key_whatever_the_pattern_and_documents(pattern: Pattern) -> None:
    q, k, v = tensors(2, 3, 6, 11, 4)
    documents = torch.tensor([[0, 1] * 5 + [0], list(range(11))])
    readable = reference.readable_keys(q, k, pattern, q_start=4, documents=documents)
    own = readable.expand(2, 3, 6, 11)[..., torch.arange(6), torch.arange(4, 10)]
    assert own.all()
    assert reference.attend(q, k, v, pattern, q_start=4, documents=documents).isfinite().all()


@pytest.mark.parametrize("pattern", [Banded(2), PerHead(Dense(), Strided(2))], ids=str)
def test_reference_has_correct_second_derivatives(pattern: Pattern) -> None:
    documents = torch.tensor([[0, 0, 1, 1]])

    def attend(*qkv: torch.Tensor) -> torch.Tensor:
        return reference.attend(*qkv, pattern, q_start=1, documents=documents)

    inputs = tensors(1, 2, 3, 4, 2)
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


def test_low_precision_is_computed_in_float32_and_returned_as_it_came() -> None:
    q, k, v = tensors(2, 3, 9, 9, 5, torch.bfloat16)
    result = reference.attend(q, k, v, Banded(4))
    exact = reference.attend(q.float(), k.float(), v.float(), Banded(4))
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, exact.bfloat16())


def test_queries_beyond_the_keys_are_refused() -> None:
    q, k, v = tensors(1, 2, 3, 5, 4)
    with pytest.raises(BadValue, match="queries reach position 5, but there are only 5 keys"):
        reference.attend(q, k, v, Dense(), q_start=3)


def test_keys_after_the_last_query_change_nothing() -> None:
    q, k, v = tensors(2, 3, 4, 9, 5)
    short = reference.attend(q, k[:, :, :6], v[:, :, :6], Strided(2), q_start=2)
    torch.testing.assert_close(reference.attend(q, k, v, Strided(2), q_start=2), short)
