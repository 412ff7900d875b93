from __future__ import annotations

import pytest
import torch

from fewshot.kernels import native, reference
from fewshot.kernels.interface import Requirements
from fewshot.kernels.library import library
from fewshot.patterns.pattern import Banded, Fixed, Pattern, PerHead, Strided


def requirements(pattern: Pattern, **changes: object) -> Requirements:
    plain = {"device": "cpu", "dtype": torch.float32, "documents": False, "dropout": 0.0, "training": True}
    return Requirements(pattern=pattern, n_queries=8, n_keys=8, **{**plain, **changes})


def needs_compiler() -> None:
    if library().problem:
        pytest.skip(f"the native kernel is not available: {library().problem}")


def test_what_it_cannot_do_is_said() -> None:
    assert native.supports(requirements(Banded(3), device="cuda")) == "it computes on the CPU, not on cuda"
    assert (
        native.supports(requirements(Banded(3), dtype=torch.float64)) == "it computes float32 and bfloat16, not float64"
    )
    assert native.supports(requirements(Banded(3), dropout=0.1)) == "it has no dropout on attention weights"
    assert native.supports(requirements(Banded(3), second_order=True)) == "it has no second derivative"


@pytest.mark.parametrize("K", [1, 16, 40, 64, 80, 100, 128])
@pytest.mark.parametrize("pattern", [Banded(70), PerHead(Fixed(32, 4), Strided(9)), Banded(5) | Strided(7)], ids=str)
def test_every_head_width_and_memory_layout(K: int, pattern: object) -> None:
    needs_compiler()
    B, H, T = 2, 3, 150
    torch.manual_seed(K)
    qkv = torch.randn(B, T, 3, H, K, requires_grad=True)
    weights = torch.randn(B, H, T, K).mT.contiguous().mT  # a gradient whose last stride is not 1
    gradients = []
    for attend in (native.attend, reference.attend):
        out = attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0), pattern)
        gradients.append(torch.autograd.grad((out * weights).sum(), qkv)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_no_number_stays_none_so_that_a_diverged_run_is_seen(which: int) -> None:
    needs_compiler()
    qkv = [torch.randn(1, 1, 100, 16) for _ in range(3)]
    qkv[which][0, 0, 70, 3] = torch.nan
    result = native.attend(*qkv, Banded(20))
    assert result[0, 0, 70].isnan().any()


def test_large_scores_neither_overflow_nor_vanish() -> None:
    needs_compiler()
    torch.manual_seed(0)
    q, k, v = (size * torch.randn(1, 2, 300, 16) for size in (30, 30, 1))
    exact = reference.attend(q.double(), k.double(), v.double(), Fixed(64, 8)).float()  # scores of some thousands
    torch.testing.assert_close(native.attend(q, k, v, Fixed(64, 8)), exact, rtol=0, atol=5e-3)


def test_a_single_column_may_have_any_stride() -> None:
    needs_compiler()
    v = torch.randn(2 * 388 + 1).as_strided((1, 2, 194, 1), (1, 194, 1, 388))
    q, k = torch.randn(2, 1, 2, 194, 1).unbind(0)
    torch.testing.assert_close(native.attend(q, k, v, Banded(9)), reference.attend(q, k, v, Banded(9)))
