"""A model's weights for classes that have one width of heads and one table of positions: the rest is in the weights.

In: a model. Out: its state dict, where queries and keys that are narrower than values, and heads that are narrower than
asked, are filled up with zeros, which add nothing to a product, and where coordinates of positions are one table.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.model.gpt import GPT


@torch.no_grad()
def folded_state(model: GPT, *, head_width: int | None = None) -> dict[str, Tensor]:
    """Return float32 tensors under GPT-2's names, for heads of `head_width`, which is no less than the model's.

    None: d_model / n_heads, as most classes have it.
    """
    config = model.config
    head_width = head_width or config.d_model // config.n_heads
    state = {name: tensor.float() for name, tensor in model.state_dict().items()}
    state["wpe.weight"] = model.wpe(torch.arange(config.n_ctx, device=model.wpe.weight.device)).float()
    if head_width == config.qk_width == config.head_width:
        return state
    n, narrow, wide = config.n_heads, config.qk_width, config.head_width
    scale = math.sqrt(head_width / narrow)  # a class divides by the root of its own width
    for name in [name for name in state if ".attn.c_attn." in name]:
        q, k, v = state[name].split([n * narrow, n * narrow, n * wide])
        rows = (_wider(part, n, head_width) for part in (q * scale, k, v))
        state[name] = torch.cat(list(rows))
    for name in [name for name in state if name.endswith(".attn.c_proj.weight")]:
        state[name] = _wider(state[name].T, n, head_width).T
    return state


def _wider(rows: Tensor, n_heads: int, width: int) -> Tensor:
    """Return the rows of all heads, each head's filled up with rows of zeros to `width`."""
    heads = rows.unflatten(0, (n_heads, -1))
    return F.pad(heads, [0, 0] * (rows.dim() - 1) + [0, width - heads.shape[1]]).flatten(0, 1)
