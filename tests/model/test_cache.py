from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import ContextTooLong
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.plan import make_plan

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
    assert [buffer.shape for buffer in cache.layers[0].buffers] == [(2, 5, 3, N_CTX, 4)]
    assert cache.layers[0].buffers[0].dtype == torch.bfloat16


LONG = [
    "dense",
    "banded(256)",
    "strided(32)",
    "block(128)",
    "columns(128, 8, 1)",
    "fixed(128, 8)",
    "banded(128) | strided(32)",
    "fixed(32, 2) | strided(96)",
    "perhead(banded(256), fixed(128, 8), strided(32))",
]


@pytest.mark.parametrize("pattern", LONG)
@torch.no_grad()
def test_cached_logits_equal_uncached_ones_whatever_the_length_of_the_prompt(pattern: str) -> None:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 24, "n_heads": 3, "n_ctx": 1010, "n_vocab": 11, "init_std": 0.3}
    model, tokens = GPT(GPTConfig(**shape, pattern=pattern)).eval(), torch.randint(11, (2, 1010))
    uncached = model(tokens)
    for n_prompt in (1, 5, 255, 256, 257, 1000):
        cache = model.new_cache(2)
        pieces = [model(tokens[:, :n_prompt], cache)]
        pieces += [model(tokens[:, at : at + 1], cache) for at in range(n_prompt, n_prompt + 5)]
        pieces.append(model(tokens[:, n_prompt + 5 : n_prompt + 10], cache))
        torch.testing.assert_close(torch.cat(pieces, 1), uncached[:, : n_prompt + 10], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_rows_of_different_lengths_read_as_if_each_were_alone(pattern: str) -> None:
    model, tokens = make(pattern), torch.randint(11, (3, N_CTX))
    cache = model.new_cache(3)
    got: list[list[torch.Tensor]] = [[], [], []]
    for counts in ([5, 2, 7], [1, 1, 1], [1, 0, 1], [2, 3, 1], [1, 1, 1], [1, 0, 0]):
        T = max(counts)
        part = torch.zeros(3, T, dtype=torch.long)
        for row, (start, count) in enumerate(zip(cache.lengths, counts, strict=True)):
            part[row, :count] = tokens[row, start : start + count]
        logits = model.logits(model.hidden(part, cache, counts=counts))
        for row, count in enumerate(counts):
            got[row].append(logits[row, :count])
    assert cache.lengths == [11, 7, 11]
    for row, pieces in enumerate(got):
        alone = model(tokens[row : row + 1, : cache.lengths[row]])[0]
        torch.testing.assert_close(torch.cat(pieces), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_row_can_be_taken_from_another_cache() -> None:
    model, tokens = make("alternate(banded(3), fixed(4, 1))"), torch.randint(11, (2, N_CTX))
    cache, single = model.new_cache(2), model.new_cache(1)
    model(tokens[:, :4], cache)
    model(tokens[1:, :9], single)
    cache.take_row(1, single)
    assert cache.lengths == [4, 9]
    part = torch.stack([tokens[0, 4:5], tokens[1, 9:10]])
    torch.testing.assert_close(model(part, cache)[1, 0], model(tokens[1:])[0, 9], rtol=1e-5, atol=1e-5)


def test_a_band_of_256_holds_256_entries_at_position_100000() -> None:
    config = GPTConfig(
        n_layers=2, d_model=2, n_heads=1, n_ctx=100_008, n_vocab=3, pattern="alternate(banded(256), dense)"
    )
    torch.manual_seed(0)
    model, tokens = GPT(config).eval(), torch.randint(3, (1, 100_001))
    cache = model.new_cache(1)
    with torch.no_grad():
        for part in tokens[:, :2000].split(1000, dim=1):
            model.hidden(part, cache)
    cache.lengths = [100_000]
    with torch.no_grad():
        model.hidden(tokens[:, -1:], cache)
    band, dense = cache.layers
    assert len(band.layouts[0].held(cache.length)) == band.buffers[0].shape[3] == 256
    assert len(dense.layouts[0].held(cache.length)) == 100_001


@pytest.mark.parametrize("pattern", [*PATTERNS, *LONG])
def test_the_bytes_of_a_cache_are_those_of_the_plan(pattern: str) -> None:
    config = GPTConfig(n_layers=3, d_model=24, n_heads=3, n_ctx=300, n_vocab=11, pattern=pattern)
    cache = GPT(config).to(torch.bfloat16).new_cache(1)
    held = sum(buffer.untyped_storage().nbytes() for layer in cache.layers for buffer in layer.buffers)
    assert make_plan("it", config).cache_bytes == cache.n_bytes == held


@torch.no_grad()
def test_a_row_without_any_token_waits() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layers=1, d_model=4, n_heads=1, n_ctx=5, n_vocab=3, pattern="block(13)")).eval()
    cache, tokens = model.new_cache(2), torch.tensor([[1], [2]])
    model.hidden(tokens, cache, counts=[1, 0])
    model.hidden(tokens, cache, counts=[1, 0])
    assert cache.lengths == [2, 0]
    torch.testing.assert_close(model(tokens, cache)[1], model(tokens[1:])[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_cache_works_under_autocast() -> None:
    model, tokens = make("alternate(banded(3), fixed(4, 1))"), torch.randint(11, (2, N_CTX))
    with torch.autocast("cpu", torch.bfloat16):
        cache = model.new_cache(2)
        logits = [model(part, cache) for part in tokens.split([4, 1, 1, 7], dim=1)]
        torch.testing.assert_close(torch.cat(logits, 1), model(tokens), rtol=5e-2, atol=5e-2)
