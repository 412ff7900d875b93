"""Optimizers by name. In: a model and `OptimizerConfig`. Out: steps; state as named tensors, for the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot.base.errors import DamagedCheckpoint, look_up
from fewshot.train.config import OptimizerConfig
from fewshot.train.muon import NorMuon

Named = list[tuple[str, nn.Parameter]]


def _adamw(named: Named, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay on matrices only (only biases and gains are vectors)."""
    matrices = [parameter for _, parameter in named if parameter.ndim >= 2]
    vectors = [parameter for _, parameter in named if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def _only_adamw(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    return [_adamw(named, config)]


def _hidden_matrices(named: Named) -> tuple[Named, Named]:
    """Return the blocks' matrices, and everything else: embeddings, output matrix, norms and biases."""
    hidden = [(name, parameter) for name, parameter in named if name.startswith("h.") and parameter.ndim == 2]
    chosen = {name for name, _ in hidden}
    return hidden, [(name, parameter) for name, parameter in named if name not in chosen]


def _muon_and_adamw(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return torch's Muon on the blocks' matrices, AdamW on the rest."""
    hidden, rest = _hidden_matrices(named)
    muon = torch.optim.Muon(
        [parameter for _, parameter in hidden],
        lr=config.matrix_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw(rest, config)]


def _normuon_and_adamw(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return NorMuon on the blocks' matrices, query, key and value each by itself; AdamW on the rest."""
    hidden, rest = _hidden_matrices(named)
    joint = [parameter for name, parameter in hidden if name.endswith("c_attn.weight")]
    single = [parameter for name, parameter in hidden if not name.endswith("c_attn.weight")]
    normuon = NorMuon(
        [{"params": joint, "pieces": 3}, {"params": single}],
        lr=config.matrix_lr,
        momentum=config.momentum,
        beta2=config.beta2,
        weight_decay=config.weight_decay,
    )
    return [normuon, _adamw(rest, config)]


OPTIMIZERS: dict[str, Callable[[Named, OptimizerConfig], list[torch.optim.Optimizer]]] = {
    "adamw": _only_adamw,
    "muon": _muon_and_adamw,
    "normuon": _normuon_and_adamw,
}


class Optimizers:
    """The optimizers of one model, stepped together; each keeps its own peak learning rate."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.named = list(model.named_parameters())
        self.parts = look_up("optimizer", config.name, OPTIMIZERS)(self.named, config)
        self.peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def squared_norm(self) -> Float[Tensor, ""]:
        """Return the square of the norm of all gradients together; squares in float32 would depend on their order."""
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in self._gradients()]
        return torch.stack(norms).square().sum()

    def clip(self, norm: float, largest: float) -> None:
        """Scale all gradients, whose norm is `norm`, down to the `largest` norm."""
        if norm > largest:
            torch._foreach_mul_(self._gradients(), largest / norm)

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for _, weight in self.named if weight.grad is not None]

    def step(self, lr_fraction: float) -> None:
        """Update the weights at this share of the peak learning rates, and drop the gradients."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_fraction
            part.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for _, weight in self.named:
            weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as `parameter/entry` tensors: moments and step counts."""
        return {
            f"{name}/{entry}": torch.as_tensor(value)
            for part in self.parts
            for name, parameter in self.named
            for entry, value in part.state.get(parameter, {}).items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `tensors` gave; a parameter without its state raises `DamagedCheckpoint`."""
        entries: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, entry = key.rsplit("/", 1)
            entries.setdefault(name, {})[entry] = value
        for part in self.parts:
            mine = {id(parameter) for group in part.param_groups for parameter in group["params"]}
            for name, parameter in self.named:
                if id(parameter) not in mine:
                    continue
                if name not in entries:
                    raise DamagedCheckpoint(
                        f"the checkpoint has no optimizer state for {name}: was the optimizer changed?"
                    )
                part.state[parameter] = {key: value.to(parameter.device) for key, value in entries[name].items()}
