"""Layer, batch and instance norm in plain operations, so that exact second order is exact. Out: a context manager.

torch's own norms, differentiated twice for many tasks at once (`vmap`), silently give a wrong gradient: their batched
backward passes treat a task's mean and variance as constants (torch 2.13; pytorch/functorch issue 534). Inside this
context `torch.nn.functional` uses the norms below instead, whatever module calls it.
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
    """Replaces the norms, as `with PlainNorms():` around everything that is to be differentiated."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the plain form of a norm, and every other function as it is."""
        return PLAIN.get(func, func)(*args, **(kwargs or {}))


def layer_norm(
    x: Float[Tensor, "*N D"],
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*N D"]:
    """Return x normed over its last axes, as `F.layer_norm` does."""
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
    """Return x normed by channel, as `F.batch_norm` does.

    With running statistics torch's own is called: it is then affine, or refused under vmap.
    """
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
    """Return x normed by example and channel, as `F.instance_norm` does; with running statistics torch's is called."""
    if not use_input_stats or running_mean is not None:
        return F.instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _by_channel(_normed(x, tuple(range(2, x.ndim)), eps), weight, bias)


def _normed(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    return _affine(x, *(None if scale is None else scale.view(shape) for scale in (weight, bias)))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


PLAIN: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
}
