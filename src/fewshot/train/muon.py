"""Muon and NorMuon, optimizers for matrices, also for matrices that are cut over processes, which torch's cannot take.

The momentum of a matrix is replaced by the nearest orthogonal matrix (Newton-Schulz iteration, Jordan et al. 2024);
in NorMuon every output neuron's row is then divided by the running root mean square of its updates (Li et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot.train.parallel.owners import Owners

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 fastest
ITERATIONS = 5
MOST_NUMBERS = 2**22  # of matrices that are orthogonalised together


def orthogonalise(matrix: Float[Tensor, "N R C"], dtype: torch.dtype) -> Float[Tensor, "N R C"]:
    """Return about U V^T of each matrix U S V^T, with singular values from 0.7 to 1.2; computed in `dtype`.

    bfloat16 is good enough, but makes of a difference in the last digit of a gradient one in the third of an update.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT.contiguous() if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype)


def orthogonalised(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return `orthogonalise` of each [N, R, C], those of one shape together: alone most are too small.

    A result's bits do not depend on what is computed with it.
    """
    results = list(matrices)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, matrix in enumerate(matrices):
        by_shape.setdefault(tuple(sorted(matrix.shape[1:])), []).append(i)
    for (short, long), members in by_shape.items():
        at_once = max(1, MOST_NUMBERS // (short * long * len(matrices[members[0]])))
        for first in range(0, len(members), at_once):
            batch = members[first : first + at_once]
            turned = {i: matrices[i].shape[1] > short for i in batch}
            x = torch.cat([(matrices[i].mT if turned[i] else matrices[i]).to(dtype) for i in batch])
            parts = orthogonalise(x, dtype).split([len(matrices[i]) for i in batch])
            for i, part in zip(batch, parts, strict=True):
                results[i] = (part.mT if turned[i] else part).to(matrices[i].dtype)
    return results


class Muon(torch.optim.Optimizer):
    """Muon, or with `beta2` NorMuon. Groups carry `pieces`, the equal blocks of rows that a matrix is cut into.

    These are 3 for query, key and value. An update has 0.2 times the root mean square of lr * sqrt(larger side), so
    learning rates and weight decay are on AdamW's scale. Parameters are this process's parts of matrices, as `owners`
    has them; without owners they are whole.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        beta2: float | None = None,
        dtype: torch.dtype = torch.bfloat16,
        owners: Owners | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "beta2": beta2, "weight_decay": weight_decay, "pieces": 1}
        super().__init__(groups, defaults)
        self._owners, self._dtype = owners, dtype
        for number, (weight, group) in enumerate(self._weights()):
            state = self.state[weight]
            state["momentum_buffer"] = torch.zeros_like(weight)
            if beta2 is not None and (owners is None or owners.is_mine(number)):
                n_rows = self._shape(number, weight)[0]
                state["second"] = weight.new_zeros(group["pieces"], n_rows // group["pieces"], 1)

    def _weights(self) -> list[tuple[nn.Parameter, dict[str, Any]]]:
        return [(weight, group) for group in self.param_groups for weight in group["params"]]

    def _shape(self, number: int, weight: Tensor) -> tuple[int, ...]:
        """Return the shape of the whole matrix."""
        return tuple(weight.shape) if self._owners is None else self._owners.shape(number)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix; each has a gradient."""
        weights = self._weights()
        updates = []
        for weight, group in weights:
            assert weight.grad is not None
            momentum = self.state[weight]["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
            updates.append(weight.grad.lerp(momentum, group["momentum"]))  # Nesterov's look ahead
        wholes = dict(enumerate(updates)) if self._owners is None else self._owners.gather(updates)
        directions = self._directions(wholes)
        shared = list(directions.values()) if self._owners is None else self._owners.scatter(directions, updates)
        for number, ((weight, group), direction) in enumerate(zip(weights, shared, strict=True)):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(direction, alpha=group["lr"] * 0.2 * max(self._shape(number, weight)) ** 0.5)

    def _directions(self, updates: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return the orthogonalised updates of whole matrices, by number; NorMuon's have rows of equal size."""
        weights = self._weights()
        pieces = [update.view(weights[number][1]["pieces"], -1, update.shape[1]) for number, update in updates.items()]
        directions = {}
        for (number, update), direction in zip(updates.items(), orthogonalised(pieces, self._dtype), strict=True):
            weight, group = weights[number]
            if group["beta2"] is not None:
                direction = self._normalised(direction, self.state[weight]["second"], group["beta2"])
            directions[number] = direction.reshape(update.shape)
        return directions

    @staticmethod
    def _normalised(update: Tensor, second: Tensor, beta2: float) -> Tensor:
        """Return an update whose rows are divided by the running root mean square of theirs, of the same norm."""
        norm = update.norm(dim=(-2, -1), keepdim=True)
        second.lerp_(update.square().mean(-1, keepdim=True), 1 - beta2)
        update = update / (second.sqrt() + 1e-8)
        return update.mul_(norm / update.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-8))
