"""The initialisation of GPT-2, which GPT-3 keeps, and that of the Sparse Transformer.

GPT: matrices and embeddings are N(0, 0.02), biases 0, norms 1; the matrices that write into the residual stream are
scaled by 1/sqrt(2 n_layers), one factor for each of the 2 n_layers residual additions (GPT-2 section 2.3).

Sparse Transformer (Child et al. 2019, sections 5.2 and 6): matrices are N(0, 0.125 / sqrt(inputs)), those into the
residual stream scaled as above; token embeddings N(0, 0.125 / sqrt(d_model)), position embeddings
N(0, 0.125 / sqrt(d_model * coordinates)); the output matrix is 0. The second number is a standard deviation.
"""

from __future__ import annotations

import torch
from torch import nn

from fewshot.base.rng import seed_of
from fewshot.model.config import GPTConfig
from fewshot.model.coordinates import table_sizes


@torch.no_grad()
def initialise(model: nn.Module, config: GPTConfig, *, seed: int | None = None) -> None:
    """Fill the parameters in place: each from a generator of its own that belongs to (seed, its name).

    So a parameter's values do not depend on which others a process holds. Without a seed they are drawn one after the
    other from torch's default generator.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            draw = None if seed is None else torch.Generator().manual_seed(seed_of("weights", seed, name))
            nn.init.normal_(parameter, std=_std(name, parameter.shape[1], config), generator=draw)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)


def _std(name: str, n_columns: int, config: GPTConfig) -> float:
    """Return the standard deviation of a matrix; its columns are the inputs, or those of an embedding."""
    std = config.matrix_std
    if config.block == "sparse-transformer":
        if name == "lm_head.weight":
            return 0.0
        n_summed = len(table_sizes(config.positions, n_ctx=config.n_ctx)) if name == "wpe.weight" else 1
        std /= (n_columns * n_summed) ** 0.5
    if name.endswith("c_proj.weight") and config.block != "post-ln":
        std /= (2 * config.n_layers) ** 0.5
    return std
