"""NorMuon, an optimizer for matrices: Muon with a second moment for each neuron, which torch's Muon lacks.

The momentum of a matrix is replaced by the nearest orthogonal matrix (Newton-Schulz iteration, Jordan et al. 2024),
then every output neuron's row is divided by the running root mean square of its updates (Li et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 fastest
ITERATIONS = 5


def orthogonalise(matrix: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """Return about U V^T of each matrix U S V^T, with singular values from 0.7 to 1.2; computed in bfloat16."""
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class NorMuon(torch.optim.Optimizer):
    """NorMuon. Groups carry `pieces`, the equal blocks of rows that a matrix is cut into: 3 for query, key and value.

    An update has 0.2 times the root mean square of lr * sqrt(larger side), so learning rates and weight decay are
    on AdamW's scale.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        beta2: float,
        weight_decay: float,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "beta2": beta2, "weight_decay": weight_decay, "pieces": 1}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, gradient = self.state[parameter], parameter.grad.view(group["pieces"], -1, parameter.shape[1])
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
            state["second"] = torch.zeros_like(gradient[..., :1])
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalise(gradient.lerp(momentum, group["momentum"]))  # Nesterov's look ahead
        norm = update.norm(dim=(-2, -1), keepdim=True)
        second = state["second"].lerp_(update.square().mean(-1, keepdim=True), 1 - group["beta2"])
        update = update / (second.sqrt() + 1e-8)
        update *= norm / update.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-8)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.view(parameter.shape), alpha=group["lr"] * 0.2 * max(parameter.shape) ** 0.5)
