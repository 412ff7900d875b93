"""Keys and values of the positions already read, so that a new token costs one position instead of all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.model.config import GPTConfig


class LayerCache:
    """Keys and values of one layer: two buffers [B, H, n_ctx, K], of which the first `length` positions are filled."""

    def __init__(self, config: GPTConfig, n_rows: int, *, device: torch.device, dtype: torch.dtype) -> None:
        shape = (n_rows, config.n_heads, config.n_ctx, config.head_width)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(
        self, k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]:
        """Append T positions and return all S filled ones, as views."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class Cache:
    """One `LayerCache` a layer; all rows of the batch have the same length."""

    def __init__(
        self, config: GPTConfig, n_rows: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.layers = [
            LayerCache(config, n_rows, device=torch.device(device), dtype=dtype) for _ in range(config.n_layers)
        ]

    @property
    def length(self) -> int:
        """Positions read so far."""
        return self.layers[0].length
