from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot.base.errors import BadValue
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.loss import mean_cross_entropy

N, D, V = 50, 4, 31


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(N, D, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, D, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(V, (N,))


def chunks_of(set_in_module: Callable[[object, str, object], None], rows: int) -> None:
    set_in_module(mean_cross_entropy, "chunk_rows", lambda *sizes: rows)


@pytest.mark.parametrize("rows", [1, 7, 49, 50, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_both_gradients_are_those_of_torch(
    set_in_module: Callable[[object, str, object], None], rows: int, dtype: torch.dtype
) -> None:
    chunks_of(set_in_module, rows)
    hidden, weight, targets = example(dtype)
    expected = F.cross_entropy(hidden @ weight.T, targets)
    expected_grads = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = mean_cross_entropy(hidden, weight, targets)
    # The softmax is in float32 whatever the type of the weights.
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6, check_dtype=False)
    for grad, exact in zip(torch.autograd.grad(3 * loss, (hidden, weight)), expected_grads, strict=True):
        torch.testing.assert_close(grad, exact, rtol=1e-5, atol=1e-7)


def test_under_bf16_autocast_it_is_close_and_the_gradients_stay_float32(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    chunks_of(set_in_module, 9)
    hidden, weight, targets = example()
    exact = F.cross_entropy(hidden @ weight.T, targets)
    exact_grads = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_cross_entropy(hidden, weight, targets)
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()  # it did run in bfloat16
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for grad, other in zip(torch.autograd.grad(loss, (hidden, weight)), exact_grads, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, other, rtol=0, atol=0.02 * other.abs().max().item())


class LargestOutput(TorchDispatchMode):
    """Remembers the most numbers that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_it_never_holds_more_logits_than_a_chunk(set_in_module: Callable[[object, str, object], None]) -> None:
    chunks_of(set_in_module, 8)  # more logits than the gradients have numbers, N * D and V * D
    hidden, weight, targets = example()
    with LargestOutput() as largest:
        mean_cross_entropy(hidden, weight, targets).backward()
    assert largest.numel == 8 * V < N * V


def test_without_gradients_none_are_made(set_in_module: Callable[[object, str, object], None]) -> None:
    chunks_of(set_in_module, 1)
    hidden, weight, targets = example()
    with torch.no_grad(), LargestOutput() as largest:
        mean_cross_entropy(hidden, weight, targets)
    assert largest.numel < N * D  # no gradient of the hidden states


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    hidden, weight, targets = example()
    with pytest.raises(BadValue, match="can be differentiated once"):
        torch.autograd.grad(mean_cross_entropy(hidden, weight, targets), weight, create_graph=True)


@pytest.mark.parametrize("tied", [True, False])
def test_the_models_loss_is_the_cross_entropy_of_its_logits_and_tied_weights_get_both_gradients(tied: bool) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=9, n_vocab=V, init_std=0.3, tied=tied))
    tokens, targets = torch.randint(V, (3, 9)), torch.randint(V, (3, 9))
    expected = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    expected_grads = torch.autograd.grad(expected, list(model.parameters()))
    loss = model.loss(tokens, targets)
    torch.testing.assert_close(loss, expected)
    for grad, exact in zip(torch.autograd.grad(loss, list(model.parameters())), expected_grads, strict=True):
        torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-6)
