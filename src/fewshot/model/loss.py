"""Cross-entropy over a large vocabulary without ever holding all logits.

With B*T = 16,384 positions and V = 50,257 the logits alone would fill 3.3 GB in float32, and their gradient as much
again. Here positions go through in chunks, and each chunk's gradient is made while its logits are at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue
from fewshot.kernels.cross_entropy import bytes_per_logit, cross_entropy
from fewshot.model.footprint.memory import chunk_rows


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T`, with both gradients made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        n_tokens: int,
        dtype: torch.dtype,
        with_gradient: bool,
    ) -> Tensor:
        rows = chunk_rows(len(targets), len(weight), bytes_per_logit(hidden.device.type, dtype))
        narrow = weight.to(dtype)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_gradient else None
        grad_weight: Tensor | None = None
        for start in range(0, len(targets), rows):
            part, goal = hidden[start : start + rows].to(dtype), targets[start : start + rows]
            losses, error = cross_entropy(part @ narrow.T, goal, scale=1 / n_tokens, with_gradient=with_gradient)
            total += losses
            if grad_hidden is not None:
                grad_hidden[start : start + rows] = error @ narrow
                of_chunk = error.T @ part
                grad_weight = of_chunk.to(weight.dtype) if grad_weight is None else grad_weight.add_(of_chunk)
                del of_chunk
            del error  # before the next chunk's logits are made
        ctx.save_for_backward(grad_hidden, grad_weight)
        return (total / n_tokens).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        if torch.is_grad_enabled():  # create_graph=True: both gradients would count as constants, without a word
            raise BadValue("the chunked loss can be differentiated once; take torch's cross_entropy of model(tokens)")
        grad_hidden, grad_weight = ctx.saved_tensors
        if grads[0].device.type != "cpu" or grads[0] != 1:  # on a GPU looking would wait for it
            grad_hidden, grad_weight = grad_hidden * grads[0], grad_weight * grads[0]
        return grad_hidden, grad_weight, None, None, None, None


def mean_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    *,
    n_tokens: int | None = None,
) -> Float[Tensor, ""]:
    """Return the mean negative log-likelihood, in nats, of `targets` under `softmax(hidden @ weight.T)`.

    The mean is over `n_tokens`, as of a batch of which these are a part; None: over the targets, all of which count
    then. Targets of -1 add nothing.
    Never holds more logits than `CHUNK_BYTES` allow. Under autocast the products run in its type, the softmax and the
    sums in float32. Differentiable once: `create_graph` raises BadValue.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        # Asked here: inside the function gradients are always off, and parameters always seem to need one.
        return _ChunkedCrossEntropy.apply(
            hidden.to(weight.dtype), weight, targets, n_tokens or len(targets), dtype, torch.is_grad_enabled()
        )
