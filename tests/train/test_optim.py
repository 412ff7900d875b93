"""Which parameter is moved by what, and that the state goes out and comes back."""

from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import UnknownName
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.config import OptimizerConfig
from fewshot.train.optim import OPTIMIZERS, Optimizers


def small_model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11))


def one_step(model: GPT, optimizers: Optimizers, seed: int, fraction: float = 1.0) -> None:
    tokens = torch.randint(0, 11, (2, 8), generator=torch.Generator().manual_seed(seed))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    optimizers.step(fraction)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_matrices_and_leaves_biases_and_gains(name: str) -> None:
    model = small_model()
    optimizers = Optimizers(model, OptimizerConfig(name=name, lr=0.1, matrix_lr=0.1, weight_decay=0.5))
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(1.0)
    for key, parameter in model.named_parameters():
        shrunk = before[key] * (1 - 0.1 * 0.5) if parameter.ndim >= 2 else before[key]
        torch.testing.assert_close(parameter.detach(), shrunk, msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimizer_makes_the_same_next_step(name: str) -> None:
    config = OptimizerConfig(name=name, lr=3e-3)
    model = small_model()
    optimizers = Optimizers(model, config)
    for seed in range(3):
        one_step(model, optimizers, seed)
    copy = small_model()
    copy.load_state_dict(model.state_dict())
    restored = Optimizers(copy, config)
    for into, piece in zip(restored.state(), optimizers.state(), strict=True):
        assert into.key == piece.key
        into.tensor.copy_(piece.tensor)
    one_step(model, optimizers, 9)
    one_step(copy, restored, 9)
    for (key, a), b in zip(model.named_parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning_rate_fraction_zero_moves_nothing(name: str) -> None:
    model = small_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    one_step(model, Optimizers(model, OptimizerConfig(name=name)), 1, fraction=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_adamw_equals_the_formula_by_hand() -> None:
    model = small_model()
    config = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1)
    optimizers = Optimizers(model, config)
    tokens = torch.randint(0, 11, (2, 8), generator=torch.Generator().manual_seed(1))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    weight = model.h[0].mlp.c_fc.weight
    old, grad = weight.detach().clone(), weight.grad.clone()
    optimizers.step(0.5)
    # after one step the bias-corrected moments are the gradient and its square
    expected = old * (1 - 0.005 * 0.1) - 0.005 * grad / (grad.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UnknownName, match="nearest: 'adamw'"):
        Optimizers(small_model(), OptimizerConfig(name="adam"))
