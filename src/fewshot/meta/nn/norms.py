"""Layer, batch and instance norm in plain operations, so that exact second order is exact. In: nothing. Out: a context.

torch's own norms, differentiated twice for many tasks at once (`vmap`), give a wrong gradient without a word: their
batched backward passes count a task's mean and variance as constants (torch 2.13; pytorch/functorch issue 534).
Inside this context `torch.nn.functional` takes the ones below instead, whatever module calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainNorms(TorchFunctionMode):
    """As `with PlainNorms():` around all that is to be differentiated."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the plain form of a norm, and everything else as it is."""
        return PLAIN.get(func, func)(*args, **(kwargs or {}))


def layer_norm(
    x: Float[Tensor, "*N D"],
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*N D"]:
    """As `F.layer_norm`: each example normed over its last axes."""
    return _affine(_normed(x, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def batch_norm(
    x: Float[Tensor, "B C *N"],
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "B C *N"]:
    """As `F.batch_norm`; with running figures it is torch's: then it is affine, or refused under vmap."""
    if not training or running_mean is not None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _by_channel(_normed(x, (0, *range(2, x.ndim)), eps), weight, bias)


def instance_norm(
    x: Float[Tensor, "B C *N"],
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "B C *N"]:
    """As `F.instance_norm`; with running figures it is torch's."""
    if not use_input_stats or running_mean is not None:
        return F.instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _by_channel(_normed(x, tuple(range(2, x.ndim)), eps), weight, bias)


def _normed(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    return _affine(x, *(None if each is None else each.view(shape) for each in (weight, bias)))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


PLAIN: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
}
