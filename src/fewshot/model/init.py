"""GPT-2's initialisation, which GPT-3 keeps.

Matrices and embeddings are N(0, 0.02), biases 0, norms 1; the matrices that write into the residual stream are scaled
by 1/sqrt(2 n_layers), one factor for each of the 2 n_layers residual additions (GPT-2 section 2.3).
"""

from __future__ import annotations

import torch
from torch import nn

from fewshot.model.config import GPTConfig


@torch.no_grad()
def initialise(model: nn.Module, config: GPTConfig) -> None:
    """Fill the parameters in place from torch's default generator; seed it before."""
    residual_std = config.init_std / (2 * config.n_layers) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            std = residual_std if name.endswith("c_proj.weight") and config.block == "pre-ln" else config.init_std
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
