"""The orthogonalised update, by its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fewshot.train.muon import Muon, orthogonalise, orthogonalised


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 5, 20), (2, 24, 7)])
def test_orthogonalised_matrices_keep_their_singular_vectors_with_values_near_one(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix, dtype)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    nearest = u @ vt
    cosine = (found * nearest).sum((-2, -1)) / found.norm(dim=(-2, -1)) / nearest.norm(dim=(-2, -1))
    assert cosine.min() > 0.97


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("most", [1, 3 * 12 * 20, 2**22])
def test_those_of_one_shape_are_computed_together_with_the_bits_that_each_has_alone(
    dtype: torch.dtype, most: int, set_in_module: Callable[[object, str, object], None]
) -> None:
    set_in_module(orthogonalised, "MOST_NUMBERS", most)
    torch.manual_seed(0)
    shapes = [(1, 12, 20), (1, 20, 12), (3, 12, 12), (1, 12, 20), (3, 12, 12), (1, 7, 9), (1, 12, 20)]
    matrices = [torch.randn(shape) for shape in shapes]
    for matrix, together in zip(matrices, orthogonalised(matrices, dtype), strict=True):
        assert torch.equal(together, orthogonalise(matrix, dtype))


def step(gradient: torch.Tensor, *, pieces: int = 1, steps: int = 1, lr: float = 0.1) -> torch.Tensor:
    weight = torch.nn.Parameter(torch.zeros_like(gradient))
    optimizer = Muon([{"params": [weight], "pieces": pieces}], lr=lr, momentum=0.9, beta2=0.95, weight_decay=0.0)
    for _ in range(steps):
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_an_update_has_the_size_of_adamws_whatever_the_gradients_size() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(64, 64)
    update = step(gradient)
    torch.testing.assert_close(update, step(1024 * gradient), rtol=2e-2, atol=1e-4)
    rms = update.square().mean().sqrt()
    assert rms == pytest.approx(0.1 * 0.2, rel=0.2)  # lr times 0.2: AdamW's typical root mean square


def test_every_neuron_moves_by_the_same_root_mean_square() -> None:
    torch.manual_seed(0)
    update = step(torch.randn(16, 40) * torch.logspace(-1, 1, 16)[:, None])
    rows = update.square().mean(1).sqrt()
    assert rows.max() / rows.min() < 1.05


def test_pieces_are_orthogonalised_by_themselves() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(8, 8) for _ in range(3)]
    together = step(torch.cat(parts), pieces=3)
    alone = [step(part) for part in parts]
    for number, part in enumerate(alone):
        found = together[8 * number : 8 * number + 8]
        torch.testing.assert_close(found / found.norm(), part / part.norm(), rtol=1e-4, atol=1e-4)


def test_without_second_moments_the_update_is_that_of_torchs_muon() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5, 9)) for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}
    muon = Muon([{"params": [ours]}], **settings)
    peer = torch.optim.Muon([theirs], **settings, nesterov=True, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(5, 9)
        theirs.grad = ours.grad.clone()
        muon.step()
        peer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
