"""Models whose weights are set by hand: what their heads do is known without any training."""

from __future__ import annotations

import torch

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.layers import TransformerBlock

V, T = 11, 24  # vocabulary, context
D = 2 * V + T  # of the residual stream: the token, the token before, the position, each as a one among zeros
SHARP = 40.0  # the score of a goal; every other key scores 0


def induction_model(*, n_layers: int, pattern: str = "dense") -> GPT:
    """Two layers: a head that writes the token before into the stream, and one that looks for its own token there.

    With one layer it is the second one alone, which finds nothing written.
    """
    config = GPTConfig(n_layers=n_layers, d_model=D, n_heads=1, n_ctx=T, n_vocab=V, d_ff=1, pattern=pattern)
    model = GPT(config).eval()
    token, before, place = slice(0, V), slice(V, 2 * V), slice(2 * V, D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.weight.fill_(1)
        model.wte.weight[:, token] = torch.eye(V)
        next(model.wpe.parameters())[:, place] = torch.eye(T)
        for number, block in enumerate(model.h):
            assert isinstance(block, TransformerBlock)
            n_ones = 2 + number  # the norm is undone exactly where a vector holds so many ones
            mean = n_ones / D
            block.ln_1.weight.fill_((n_ones / D - mean**2) ** 0.5)
            block.ln_1.bias.fill_(mean)
            q, k, v = block.attn.c_attn.weight.view(3, D, D)
            strength = SHARP * D**0.5
            if number == 0 and n_layers == 2:
                q[2 * V : D - 1, 2 * V + 1 : D] = strength * torch.eye(T - 1)  # at t it asks for t - 1
                k[place, place] = torch.eye(T)
                v[before, token] = torch.eye(V)
                block.attn.c_proj.weight.copy_(torch.eye(D))
            else:
                q[before, token] = strength * torch.eye(V)
                k[before, before] = torch.eye(V)
                if number == 1:
                    k[before, 2 * V] = -1  # the first position has none before it, and had to read itself
    return model
