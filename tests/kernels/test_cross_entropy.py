"""Both ways to compute the loss give the same, and that of torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.kernels.cross_entropy import cross_entropy, is_native
from fewshot.kernels.library import Library, library

SetInModule = Callable[[object, str, object], None]
WAYS = ["native", "torch"]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, set_in_module: SetInModule) -> str:
    if request.param == "torch":
        set_in_module(cross_entropy, "library", lambda: Library(None, "switched off"))
    elif library().problem:
        pytest.skip(f"no native code: {library().problem}")
    assert is_native("cpu", torch.float32) == (request.param == "native")
    return str(request.param)


def expected(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The sum of the losses and its scaled gradient, in float64."""
    exact = logits.double().requires_grad_()
    loss = F.cross_entropy(exact, targets, ignore_index=-1, reduction="sum")
    loss.backward()
    assert exact.grad is not None
    return loss.detach(), exact.grad * scale


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_rows", "n_vocab"), [(1, 1), (5, 3), (7, 16), (6, 33), (3, 5000), (130, 31)])
@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
def test_losses_and_gradients_are_those_of_torch_in_float64(
    way: str, n_rows: int, n_vocab: int, spread: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(n_rows * n_vocab)
    logits = (spread * torch.randn(n_rows, n_vocab, generator=generator)).to(dtype)
    targets = torch.randint(n_vocab, (n_rows,), generator=generator)
    targets[n_rows // 2] = -1
    loss, gradient = expected(logits, targets, 0.25)
    total, error = cross_entropy(logits.clone(), targets, scale=0.25, with_gradient=True)
    assert error.dtype == dtype
    assert total.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(error.double(), gradient, rtol=TOLERANCE[dtype], atol=1e-7)
    only, _ = cross_entropy(logits.clone(), targets, scale=0.25, with_gradient=False)
    assert only.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 17, 31])
def test_what_is_not_finite_makes_the_loss_not_finite(way: str, value: float, at: int, dtype: torch.dtype) -> None:
    logits = torch.randn(4, 32).to(dtype)
    logits[2, at] = value
    total, _ = cross_entropy(logits, torch.tensor([1, 2, 3, 4]), scale=1.0, with_gradient=True)
    assert not total.isfinite()


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_threads(n_threads: int) -> None:
    logits, targets = torch.randn(37, 257).bfloat16(), torch.randint(257, (37,))
    before = torch.get_num_threads()
    results = []
    for n in (1, n_threads):
        torch.set_num_threads(n)
        results.append(cross_entropy(logits.clone(), targets, scale=0.5, with_gradient=True))
    torch.set_num_threads(before)
    assert results[0][0].item() == results[1][0].item()
    assert torch.equal(results[0][1], results[1][1])


def test_no_rows_have_no_loss(way: str) -> None:
    total, error = cross_entropy(torch.empty(0, 9), torch.empty(0, dtype=torch.long), scale=1.0, with_gradient=True)
    assert (total.item(), error.shape) == (0.0, (0, 9))
