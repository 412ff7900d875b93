"""Optimizers by name. In: a model's parts and `OptimizerConfig`. Out: steps; state as pieces, for the checkpoint.

They work on what this process holds, as plain tensors; only Muon looks at whole matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import look_up
from fewshot.checkpoint.pieces import Piece, whole
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.config import OptimizerConfig
from fewshot.train.muon import Muon
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.owners import Owners
from fewshot.train.parallel.parts import Part, parts_of

Parts = Sequence[Part]
Maker = Callable[[Parts, OptimizerConfig, GPTConfig, Layout, torch.dtype], list[torch.optim.Optimizer]]


def _adamw(parts: Parts, config: OptimizerConfig, layout: Layout) -> list[torch.optim.Optimizer]:
    """Return Adam with decoupled weight decay on matrices only (only biases and gains are vectors)."""
    held = [part.local for part in parts if part.local.numel()]
    groups = [
        {"params": [weight for weight in held if weight.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in held if weight.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return []
    # Where shards end decides what the fused one's last digits are.
    how = {"foreach": False} if layout.exact else {"fused": True}
    betas = (config.beta1, config.beta2)
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, **how)
    for weight in held:  # as it would itself at the first step
        count = torch.zeros((), dtype=torch.float32, device=weight.device)
        adamw.state[weight] = {
            "step": count,
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
    return [adamw]


def _only_adamw(
    parts: Parts, config: OptimizerConfig, model: GPTConfig, layout: Layout, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    return _adamw(parts, config, layout)


def _is_hidden_matrix(part: Part) -> bool:
    """Return whether a parameter is one of the blocks' matrices, not an embedding, output matrix, norm or bias."""
    return part.name.startswith("h.") and len(part.shape) == 2


def _with_muon(
    parts: Parts,
    config: OptimizerConfig,
    model: GPTConfig,
    layout: Layout,
    dtype: torch.dtype,
    *,
    beta2: float | None = None,
) -> list[torch.optim.Optimizer]:
    """Return Muon on the blocks' matrices, or with `beta2` NorMuon, which takes query, key and value each by itself."""
    matrices = [part for part in parts if _is_hidden_matrix(part)]
    joint = [part for part in matrices if part.name.endswith("c_attn.weight") and beta2 is not None]
    names = {part.name for part in joint}
    single = [part for part in matrices if part.name not in names]
    groups = [
        {"params": [part.local for part in group], "pieces": n} for group, n in ((joint, 3), (single, 1)) if group
    ]
    owners = Owners([*joint, *single], model, layout) if layout.n_processes > 1 else None
    muon = Muon(
        groups,
        lr=config.matrix_lr,
        momentum=config.momentum,
        beta2=beta2,
        weight_decay=config.weight_decay,
        dtype=dtype,
        owners=owners,
    )
    return [muon, *_adamw([part for part in parts if not _is_hidden_matrix(part)], config, layout)]


def _with_normuon(
    parts: Parts, config: OptimizerConfig, model: GPTConfig, layout: Layout, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    return _with_muon(parts, config, model, layout, dtype, beta2=config.beta2)


# The state of each is there from the start, so that a checkpoint can be read into it.
OPTIMIZERS: dict[str, Maker] = {
    "adamw": _only_adamw,
    "muon": _with_muon,
    "normuon": _with_normuon,
}


class Optimizers:
    """The optimizers of one model, stepped together; each keeps its own peak learning rate.

    `dtype` is that of the matrix products.
    """

    def __init__(
        self,
        model: GPT,
        config: OptimizerConfig,
        layout: Layout | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        layout = layout or Layout()
        self.parts = parts_of(model, layout)
        make = look_up("optimizer", config.name, OPTIMIZERS)
        self._optimizers = make(self.parts, config, model.config, layout, dtype)
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers]

    def squared_norm(self) -> Float[Tensor, ""]:
        """Return the square of the norm of the gradients that this process owns: by rows, added in float64."""
        gradients = [part.gradient for part in self.parts if part.owned]
        rows = [torch.linalg.vector_norm(g, dim=-1).flatten() for g in gradients if g is not None and g.numel()]
        return torch.cat(rows).double().square().sum() if rows else torch.zeros((), dtype=torch.float64)

    def clip(self, norm: float, largest: float) -> None:
        """Scale all gradients, whose norm is `norm`, down to the `largest` norm."""
        if norm > largest:
            gradients = [gradient for part in self.parts if (gradient := part.gradient) is not None]
            torch._foreach_mul_(gradients, largest / norm)

    def step(self, lr_fraction: float) -> None:
        """Update the weights at this share of the peak learning rates, and drop the gradients."""
        for part in self.parts:
            part.local.grad = part.gradient
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_fraction
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.local.grad = part.parameter.grad = None

    def weights(self) -> list[Piece]:
        """Return the weights that this process holds; other processes may hold copies."""
        return [piece for part in self.parts for piece in part.pieces(part.local.detach(), part.name)]

    def state(self) -> list[Piece]:
        """Return the moments and step counts that this process holds, as pieces of tensors `parameter/entry`."""
        pieces: list[Piece] = []
        for part, optimizer in [(part, optimizer) for part in self.parts for optimizer in self._optimizers]:
            for entry, value in optimizer.state.get(part.local, {}).items():
                cut = value.shape == part.local.shape and entry != "second"  # like its parameter
                name = f"{part.name}/{entry}"
                pieces += part.pieces(value, name) if cut else [whole(name, value)]
        return pieces
