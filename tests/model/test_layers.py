from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fewshot.kernels import sdpa
from fewshot.model.config import GPTConfig
from fewshot.model.layers import Block, FeedForward
from fewshot.patterns.pattern import Banded, Dense

B, T, D, H, K, F = 2, 7, 12, 3, 5, 20  # H * K differs from D


def make_block(kind: str, *, dropout: float = 0.0) -> Block:
    torch.manual_seed(3)
    config = GPTConfig(n_layers=1, d_model=D, n_heads=H, d_head=K, d_ff=F, block=kind, dropout=dropout)
    block = Block(config, Dense(), sdpa.attend)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


def layer_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    q, k, v = (x @ p["attn.c_attn.weight"].T + p["attn.c_attn.bias"]).split(H * K, dim=-1)
    heads = []
    for h in range(H):
        part = slice(h * K, (h + 1) * K)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(K)
        scores = scores + torch.full((T, T), -1e9).triu(1)
        heads.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(heads, -1) @ p["attn.c_proj.weight"].T + p["attn.c_proj.bias"]


def feed_forward(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    x = x @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
    x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]


def test_gpt1_block_normalises_after_each_sum() -> None:
    block, x = make_block("post-ln"), torch.randn(B, T, D)
    p = dict(block.named_parameters())
    n = layer_norm(x + attention(x, p), p, "ln_1")
    expected = layer_norm(n + feed_forward(n, p), p, "ln_2")
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_gpt2_block_normalises_before_each_part() -> None:
    block, x = make_block("pre-ln"), torch.randn(B, T, D)
    p = dict(block.named_parameters())
    n = x + attention(layer_norm(x, p, "ln_1"), p)
    expected = n + feed_forward(layer_norm(n, p, "ln_2"), p)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_the_feed_forward_layer_mixes_no_positions() -> None:
    mlp = FeedForward(GPTConfig(n_layers=1, d_model=D, n_heads=1, d_ff=F))
    x = torch.randn(B, T, D)
    changed = x.clone()
    changed[:, 3] += 1.0
    same = (mlp(x) == mlp(changed)).all(-1)
    assert same.tolist() == [[t != 3 for t in range(T)]] * B


@pytest.mark.parametrize("training", [True, False])
def test_the_kernel_is_handed_pattern_documents_and_dropout_only_in_training(training: bool) -> None:
    asked = []

    def attend(q, k, v, pattern, *, documents, dropout):
        asked.append((tuple(q.shape), pattern, documents, dropout))
        return v

    config = GPTConfig(n_layers=1, d_model=D, n_heads=H, d_head=K, dropout=0.25)
    block = Block(config, Banded(4), attend).train(training)
    documents = torch.zeros(B, T, dtype=torch.long)
    block(torch.randn(B, T, D), None, documents)
    assert asked == [((B, H, T, K), Banded(4), documents, 0.25 if training else 0.0)]


def test_dropout_acts_on_both_residual_additions_in_training_alone() -> None:
    block, x = make_block("pre-ln", dropout=0.5), torch.randn(B, T, D)
    torch.nn.init.zeros_(block.mlp.c_proj.weight)
    torch.nn.init.ones_(block.mlp.c_proj.bias)
    torch.nn.init.zeros_(block.attn.c_proj.weight)
    torch.nn.init.zeros_(block.attn.c_proj.bias)
    added = block(x) - x  # the feed-forward part adds ones, of which half are dropped and half doubled
    assert torch.unique(added.round(decimals=4)).tolist() == [0.0, 2.0]
    assert torch.unique((block.eval()(x) - x).round(decimals=4)).tolist() == [1.0]
    torch.nn.init.zeros_(block.mlp.c_proj.bias)
    torch.nn.init.ones_(block.attn.c_proj.bias)
    assert torch.unique((block.train()(x) - x).round(decimals=4)).tolist() == [0.0, 2.0]
