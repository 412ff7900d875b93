"""Small networks that tasks are learned with. The last layer is called `head`, so that ANIL finds it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn


def perceptron(n_in: int, widths: Sequence[int], n_out: int, *, seed: int) -> nn.Module:
    """Linear layers with ReLU between; 1-40-40-1 is that of Finn et al. 2017, section 5.1."""
    torch.manual_seed(seed)
    network, sizes = nn.Sequential(), [n_in, *widths]
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        network.add_module(f"hidden{i}", nn.Linear(before, after))
        network.add_module(f"relu{i}", nn.ReLU())
    network.add_module("head", nn.Linear(sizes[-1], n_out))
    return network
