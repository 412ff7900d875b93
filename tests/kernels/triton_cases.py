"""What test_triton.py runs in a process of its own, on the device that FEWSHOT_TEST_DEVICE names.

Triton decides at import whether it interprets, so that the rest of the tests must not share its process.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.kernels import reference, triton
from fewshot.kernels.interface import Requirements
from fewshot.patterns.pattern import PATTERNS, Banded, Block, Columns, Dense, Fixed, Pattern, PerHead, Strided

DEVICE = os.environ.get("FEWSHOT_TEST_DEVICE", "cpu")
INTERPRETED = DEVICE == "cpu"
TRIED = [
    Dense(),
    Banded(1),
    Banded(100),
    Strided(4),
    Block(50),
    Columns(24, 8, 1),
    Fixed(60, 8),
    Banded(30) | Strided(5),
    Strided(2) | Strided(3),
    Columns(60, 20, 1) | Strided(4) | Banded(2),
    PerHead(Fixed(64, 8), Dense(), Strided(3)),
]
FIRST = [
    Dense(),
    Columns(60, 20, 1) | Strided(4) | Banded(2),
    PerHead(Fixed(64, 8), Dense(), Strided(3)),
]  # of all kinds
LENGTHS = [(1, 1, 0), (2, 2, 0), (127, 127, 0), (128, 128, 0), (129, 131, 0), (1, 140, 139), (5, 150, 131)]
# On a GPU float32 products are exact only if torch is asked for that, as it is by default.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def inputs(T: int, S: int, dtype: torch.dtype, B: int = 1, H: int = 2, K: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * T + S)
    return [torch.randn(B, H, n, K, generator=generator).to(DEVICE, dtype).requires_grad_() for n in (T, S, S)]


def attend_and_gradients(attend, qkv: list[torch.Tensor], *args: object, **kwargs: object) -> list[torch.Tensor]:
    result = attend(*qkv, *args, **kwargs)
    weights = torch.linspace(-1, 1, result.numel(), device=DEVICE).to(result.dtype).view(result.shape)
    return [result, *torch.autograd.grad((result * weights).sum(), qkv)]


def compare(qkv: list[torch.Tensor], pattern: Pattern, **kwargs: object) -> None:
    """Within the tolerance of the largest number: gradients are sums of many products."""
    got = attend_and_gradients(triton.attend, qkv, pattern, **kwargs)
    expected = attend_and_gradients(reference.attend, qkv, pattern, **kwargs)
    for actual, exact in zip(got, expected, strict=True):
        bound = TOLERANCE[actual.dtype] * max(1.0, exact.detach().abs().max().item())
        torch.testing.assert_close(actual, exact, rtol=0, atol=bound)


def documents_of(B: int, S: int) -> torch.Tensor:
    return torch.stack([torch.arange(S) // (40 + 7 * b) + 2**40 for b in range(B)]).to(DEVICE)


@pytest.mark.parametrize(
    "pattern", [kind if kind in FIRST else pytest.param(kind, marks=pytest.mark.slow) for kind in TRIED], ids=str
)
def test_it_equals_the_reference_at_the_edges_of_tiles_forward_and_backward(pattern: Pattern) -> None:
    H = 4 if pattern.needs_heads else 1
    for T, S, q_start in LENGTHS:
        compare(inputs(T, S, torch.float32, H=H), pattern, q_start=q_start)
    compare(inputs(100, 110, torch.float32, B=2, H=H), pattern, q_start=7, documents=documents_of(2, 110))


def test_patterns_that_no_file_knows_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "patterns")
    from unlisted import UNLISTED, EveryThird, HeadSteps

    for name, kind in UNLISTED.items():
        monkeypatch.setitem(PATTERNS, name, kind)
    for pattern in (EveryThird() | Strided(4), HeadSteps(2)):
        compare(inputs(6, 9, torch.float32, H=3), pattern, q_start=2)


@pytest.mark.parametrize(
    ("pattern", "dtype"),
    [(Dense(), torch.float16), (PerHead(Fixed(64, 8), Banded(30) | Strided(5)), torch.bfloat16)],
    ids=str,
)
def test_half_precision_equals_the_reference(pattern: Pattern, dtype: torch.dtype) -> None:
    compare(inputs(129, 129, dtype, H=2), pattern)
    compare(inputs(70, 90, dtype, B=2, H=2), pattern, q_start=20, documents=documents_of(2, 90))


@pytest.mark.parametrize("K", [1, 40, 64, 256])
def test_every_head_width_and_memory_layout(K: int) -> None:
    B, H, T, pattern = 2, 2, 70, PerHead(Fixed(32, 4), Banded(20))
    torch.manual_seed(K)
    qkv = torch.randn(B, T, 3, H, K, device=DEVICE, requires_grad=True)
    weights = torch.randn(B, H, T, K, device=DEVICE).mT.contiguous().mT  # a gradient whose last stride is not 1
    gradients = []
    for attend in (triton.attend, reference.attend):
        out = attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0), pattern)
        gradients.append(torch.autograd.grad((out * weights).sum(), qkv)[0])
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-5)


def test_wider_heads_are_refused() -> None:
    with pytest.raises(BadValue, match="up to 256 columns, got 257"):
        triton.attend(*inputs(3, 3, torch.float32, K=257), Dense())


def test_large_scores_neither_overflow_nor_vanish() -> None:
    torch.manual_seed(0)
    q, k, v = (size * torch.randn(1, 2, 100, 16, device=DEVICE) for size in (30, 30, 1))
    exact = reference.attend(q.double(), k.double(), v.double(), Fixed(64, 8)).float()  # scores of some thousands
    torch.testing.assert_close(triton.attend(q, k, v, Fixed(64, 8)), exact, rtol=0, atol=5e-3)


def test_it_is_traced_as_one_graph_with_its_gradients() -> None:
    pattern, qkv = Banded(4) | Strided(6), inputs(20, 20, torch.float32)
    traced = torch.compile(triton.attend, fullgraph=True, backend="aot_eager")
    got, expected = (attend_and_gradients(attend, qkv, pattern) for attend in (traced, triton.attend))
    for actual, exact in zip(got, expected, strict=True):
        torch.testing.assert_close(actual, exact)
        assert actual.stride() == exact.stride()


def test_it_fits_and_says_what_does_not() -> None:
    def why(**changes: object) -> str | None:
        plain = {"device": DEVICE, "dtype": torch.bfloat16, "documents": True, "dropout": 0.0, "training": True}
        return triton.supports(Requirements(pattern=Dense(), n_queries=8, n_keys=8, **{**plain, **changes}))

    assert why() is None
    assert why(dtype=torch.float64) == "it computes float32, bfloat16 and float16, not float64"
    assert why(dropout=0.1) == "it has no dropout on attention weights"
    assert why(second_order=True) == "it has no second derivative"


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_no_length_is_compiled_in() -> None:
    from fewshot.kernels.triton_code import attend_queries

    counts = []
    for T in (300, 301, 512, 1000, 1024):
        triton.attend(*inputs(T, T, torch.bfloat16, K=64), Banded(100))
        counts.append(sum(len(cache[0]) for cache in attend_queries.device_caches.values()))
    assert counts[0] == counts[-1]
