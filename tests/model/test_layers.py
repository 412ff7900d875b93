from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fewshot.kernels import native, reference, sdpa
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.elementwise.gelu import sigmoid_gelu
from fewshot.kernels.interface import Kernel
from fewshot.model.config import GPTConfig
from fewshot.model.layers import Attention, FeedForward, TransformerBlock
from fewshot.patterns.pattern import Banded, Dense

B, T, D, H, K, F = 2, 7, 12, 3, 5, 20  # H * K differs from D


def make_block(kind: str, *, dropout: float = 0.0) -> TransformerBlock:
    torch.manual_seed(3)
    config = GPTConfig(n_layers=1, d_model=D, n_heads=H, d_head=K, d_ff=F, block=kind, dropout=dropout, tied=False)
    block = TransformerBlock(config, Dense(), sdpa.attend)
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


def test_the_sparse_transformer_block_adds_attention_and_feed_forward_of_norms() -> None:
    # H + a(H) + b(H) with a = attention(norm(H)), b = ff(norm(H + a(H))), as Child et al. write it in section 5.2
    block, H_k = make_block("sparse-transformer"), torch.randn(B, T, D)
    p = dict(block.named_parameters())
    a = attention(layer_norm(H_k, p, "ln_1"), p)
    inner = layer_norm(H_k + a, p, "ln_2") @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
    inner = inner / (1 + torch.exp(-1.702 * inner))
    b = inner @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]
    torch.testing.assert_close(block(H_k), H_k + a + b, rtol=1e-5, atol=1e-5)


def test_the_gelu_of_the_sparse_transformer_is_x_times_sigmoid() -> None:
    found = sigmoid_gelu(torch.tensor([0.0, 1.0, -1.0, 10.0])).tolist()
    assert found == pytest.approx([0.0, 0.8458, -0.1542, 10.0], abs=1e-4)


@pytest.mark.parametrize("kernel", [reference, sdpa, native], ids=["reference", "sdpa", "native"])
def test_narrow_queries_and_keys_are_scaled_by_their_own_width(kernel: Kernel) -> None:
    torch.manual_seed(3)
    narrow = 2
    config = GPTConfig(n_layers=1, d_model=D, n_heads=H, d_head=K, d_qk=narrow)
    layer, x = Attention(config, Banded(4), kernel.attend), torch.randn(B, T, D)
    torch.nn.init.normal_(layer.c_attn.weight, std=0.5)
    assert layer.c_attn.out_features == H * (narrow + narrow + K)
    q, k, v = (x @ layer.c_attn.weight.T + layer.c_attn.bias).split([H * narrow, H * narrow, H * K], dim=-1)
    heads = []
    for h in range(H):
        part = slice(h * narrow, (h + 1) * narrow)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(narrow)
        unread = torch.ones(T, T).triu(1) + torch.ones(T, T).tril(-4)
        heads.append(scores.masked_fill(unread > 0, -1e9).softmax(-1) @ v[..., h * K : (h + 1) * K])
    expected = torch.cat(heads, -1) @ layer.c_proj.weight.T + layer.c_proj.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


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
    block = TransformerBlock(config, Banded(4), attend).train(training)
    documents = torch.zeros(B, T, dtype=torch.long)
    dropout = Dropout(0.25, torch.arange(B)) if training else None
    block(torch.randn(B, T, D), None, documents, dropout)
    ((shape, pattern, of_keys, on_weights),) = asked
    assert (shape, pattern, of_keys) == ((B, H, T, K), Banded(4), documents)
    assert (on_weights.probability if training else on_weights) == (0.25 if training else None)


def test_the_sparse_transformer_drops_no_attention_weights() -> None:
    asked = []

    def attend(q, k, v, pattern, *, documents, dropout):
        asked.append(dropout)
        return v

    config = GPTConfig(n_layers=1, d_model=D, n_heads=H, dropout=0.25, block="sparse-transformer", tied=False)
    TransformerBlock(config, Dense(), attend)(torch.randn(B, T, D), None, None, Dropout(0.25, torch.arange(B)))
    assert asked == [None]


@pytest.mark.parametrize("kind", ["pre-ln", "sparse-transformer"])
def test_dropout_acts_on_both_residual_additions_where_it_is_given(kind: str) -> None:
    block, x = make_block(kind, dropout=0.5), torch.randn(B, T, D)
    dropout = Dropout(0.5, torch.arange(B))
    torch.nn.init.zeros_(block.mlp.c_proj.weight)
    torch.nn.init.ones_(block.mlp.c_proj.bias)
    torch.nn.init.zeros_(block.attn.c_proj.weight)
    torch.nn.init.zeros_(block.attn.c_proj.bias)
    added = block(x, None, None, dropout) - x  # ones are added: half are dropped and half doubled
    assert torch.unique(added.round(decimals=4)).tolist() == [0.0, 2.0]
    assert torch.unique((block(x) - x).round(decimals=4)).tolist() == [1.0]
    torch.nn.init.zeros_(block.mlp.c_proj.bias)
    torch.nn.init.ones_(block.attn.c_proj.bias)
    assert torch.unique((block(x, None, None, dropout) - x).round(decimals=4)).tolist() == [0.0, 2.0]
