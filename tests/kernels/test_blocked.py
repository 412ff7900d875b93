from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.kernels import blocked, native, reference
from fewshot.kernels.library import library
from fewshot.patterns.pattern import Banded, Fixed

STRIP_KERNELS = [blocked] if library().problem else [blocked, native]


def test_autocast_changes_nothing_so_that_backward_matches_forward() -> None:
    torch.manual_seed(0)
    qkv = [torch.randn(1, 2, 90, 16, requires_grad=True) for _ in range(3)]
    expected = blocked.attend(*qkv, Fixed(16, 4))
    with torch.autocast("cpu", torch.bfloat16):
        result = blocked.attend(*qkv, Fixed(16, 4))
    assert torch.equal(result, expected)


def test_tiles_are_cut_so_that_scores_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocked.MAX_SCORES, "cpu", 2**14)
    largest = []
    scores = blocked._scores
    monkeypatch.setattr(blocked, "_scores", lambda *args: largest.append(scores(*args)) or largest[-1])
    q, k, v = torch.randn(3, 1, 2, 700, 8).unbind(0)
    pattern = Fixed(16, 4)
    torch.testing.assert_close(
        blocked.attend(q, k, v, pattern), reference.attend(q, k, v, pattern), rtol=1e-5, atol=1e-5
    )
    own_blocks = [block for block in largest if block.shape[-1] == 16]
    assert len(own_blocks) > 1
    assert max(block.numel() for block in own_blocks) <= 2**14


@pytest.mark.parametrize("kernel", STRIP_KERNELS)
@pytest.mark.parametrize(("B", "H", "T"), [(2, 3, 0), (0, 3, 5), (2, 0, 5)])
def test_nothing_in_gives_nothing_out(kernel, B: int, H: int, T: int) -> None:
    q = torch.randn(B, H, T, 4)
    assert kernel.attend(q, q, q, Banded(3)).shape == (B, H, T, 4)


@pytest.mark.parametrize("kernel", STRIP_KERNELS)
def test_what_does_not_agree_is_refused_instead_of_read_beyond_its_end(kernel) -> None:
    q, k = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 9, 4)
    wrongs = [
        {"k": k.bfloat16()},
        {"q_start": -1},
    ]
    for wrong in wrongs:
        with pytest.raises(BadValue, match="q, k and v do not agree: float32"):
            kernel.attend(q, wrong.get("k", k), k, Banded(3), q_start=wrong.get("q_start", 0))


def test_shapes_that_do_not_agree_are_named() -> None:
    q, k = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 9, 4)
    for other_k, v in ((k[:1], k[:1]), (k, k[:, :1]), (k, k[:, :, :8]), (k, torch.randn(2, 3, 9, 5))):
        with pytest.raises(BadValue, match="q, k and v do not agree: float32"):
            reference.check_inputs(q, other_k, v, 0, None)
    for documents in (torch.zeros(1, 9, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)):
        with pytest.raises(BadValue, match=r"documents has the shape .* expected one number per key, \[2, 9\]"):
            reference.check_inputs(q, k, k, 0, documents)
