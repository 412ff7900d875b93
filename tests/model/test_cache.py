from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import ContextTooLong
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

N_CTX = 13
PATTERNS = [
    "dense",
    "banded(3)",
    "strided(3)",
    "block(4)",
    "columns(5, 2, 1)",
    "fixed(4, 1)",
    "banded(2) | strided(4)",
    "perhead(dense, banded(2), fixed(4, 2))",
    "alternate(dense, banded(3))",
]


def make(pattern: str = "dense", block: str = "pre-ln") -> GPT:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 18, "n_heads": 3, "d_head": 4, "n_ctx": N_CTX, "n_vocab": 11, "init_std": 0.3}
    return GPT(GPTConfig(**shape, pattern=pattern, block=block)).eval()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("pieces", [[N_CTX], [1] * N_CTX, [1, 5, 7], [6] + [1] * 7, [12, 1]])
@torch.no_grad()
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(pattern: str, pieces: list[int]) -> None:
    model, tokens = make(pattern), torch.randint(11, (2, N_CTX))
    cache = model.new_cache(2)
    logits = [model(part, cache) for part in tokens.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens), rtol=1e-5, atol=1e-5)
    assert cache.length == N_CTX


@torch.no_grad()
def test_gpt1_reads_with_a_cache_too() -> None:
    model, tokens = make("banded(3)", "post-ln"), torch.randint(11, (2, N_CTX))
    cache = model.new_cache(2)
    logits = [model(part, cache) for part in tokens.split([4, 1, 8], dim=1)]
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_sparse_transformer_with_narrow_queries_reads_with_a_cache_too() -> None:
    torch.manual_seed(0)
    config = GPTConfig(
        n_layers=2, d_model=18, n_heads=3, d_qk=2, n_ctx=N_CTX, n_vocab=11, pattern="fixed(4, 1)", tied=False,
        positions="rows(4)", block="sparse-transformer",
    )  # fmt: skip
    model, tokens = GPT(config).eval(), torch.randint(11, (2, N_CTX))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    cache = model.new_cache(2)
    logits = [model(part, cache) for part in tokens.split([5, 1, 6, 1], dim=1)]
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_full_cache_refuses_one_more_token_and_stays_as_it_was() -> None:
    model = make()
    cache = model.new_cache(1)
    model(torch.zeros(1, N_CTX, dtype=torch.long), cache)
    with pytest.raises(ContextTooLong, match="has 14 tokens, the model's context holds 13"):
        model(torch.zeros(1, 1, dtype=torch.long), cache)
    assert cache.length == N_CTX


def test_a_cache_takes_the_type_and_the_shape_of_its_model() -> None:
    cache = make().to(torch.bfloat16).new_cache(5)
    assert len(cache.layers) == 2
    assert cache.layers[0].keys.shape == (5, 3, N_CTX, 4)
    assert cache.layers[0].values.dtype == torch.bfloat16
