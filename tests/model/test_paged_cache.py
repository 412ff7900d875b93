from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import CachedText, PagedCache, PagedMemory
from fewshot.model.plan import make_plan

N_CTX = 41
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


@torch.no_grad()
def read(model: GPT, cache: PagedCache, texts: Sequence[CachedText], pieces: Sequence[Tensor]) -> list[Tensor]:
    """The logits at the pieces, which are read in one step."""
    memory = PagedMemory(cache, texts, [len(piece) for piece in pieces])
    logits = model.logits(model.hidden(torch.cat(list(pieces))[None], memory)[0])
    for text in texts:
        cache.trim(text)
    return list(logits.split([len(piece) for piece in pieces]))


def in_pieces(model: GPT, tokens: Tensor, pieces: Sequence[int]) -> Tensor:
    cache = PagedCache(model.config, dtype=model.wte.weight.dtype)
    text = cache.new_text()
    return torch.cat([read(model, cache, [text], [part])[0] for part in tokens.split(list(pieces))])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("pieces", [[N_CTX], [1] * N_CTX, [1, 16, 7, 17], [33] + [1] * 8, [40, 1]])
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(pattern: str, pieces: list[int]) -> None:
    model, tokens = make(pattern), torch.randint(11, (N_CTX,))
    torch.testing.assert_close(in_pieces(model, tokens, pieces), model(tokens[None])[0], rtol=1e-5, atol=1e-5)


def test_gpt1_reads_with_a_cache_too() -> None:
    model, tokens = make("banded(3)", "post-ln"), torch.randint(11, (N_CTX,))
    torch.testing.assert_close(in_pieces(model, tokens, [4, 1, 36]), model(tokens[None])[0], rtol=1e-5, atol=1e-5)


def test_a_sparse_transformer_with_narrow_queries_reads_with_a_cache_too() -> None:
    torch.manual_seed(0)
    config = GPTConfig(
        n_layers=2, d_model=18, n_heads=3, d_qk=2, n_ctx=N_CTX, n_vocab=11, pattern="fixed(4, 1)", tied=False,
        positions="rows(4)", block="sparse-transformer",
    )  # fmt: skip
    model, tokens = GPT(config).eval(), torch.randint(11, (N_CTX,))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for reader in (model, PackedGPT(model)):
        got = in_pieces(reader, tokens, [5, 1, 34, 1])
        torch.testing.assert_close(got, model(tokens[None])[0], rtol=1e-5, atol=1e-5)


def test_a_full_text_refuses_one_more_token_and_stays_as_it_was() -> None:
    model = make()
    cache = PagedCache(model.config)
    text = cache.new_text()
    read(model, cache, [text], [torch.zeros(N_CTX, dtype=torch.long)])
    used = cache.n_used_bytes
    with pytest.raises(ContextTooLong, match="has 42 tokens, the model's context holds 41"):
        read(model, cache, [text], [torch.zeros(1, dtype=torch.long)])
    assert (text.length, cache.n_used_bytes) == (N_CTX, used)


@pytest.mark.parametrize("weight_type", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_token_has_the_same_bits_whatever_is_read_beside_it(pattern: str, weight_type: str) -> None:
    model = PackedGPT(make(pattern), weight_type)
    tokens = [torch.randint(11, (n,)) for n in (N_CTX, 1, 16, 17)]
    alone = []
    for own in tokens:
        cache = PagedCache(model.config, dtype=model.cache_dtype)
        alone.append(read(model, cache, [cache.new_text()], [own])[0])
    for seed in range(2):
        rng, cache = random.Random(seed), PagedCache(model.config, dtype=model.cache_dtype)
        texts, got = [cache.new_text() for _ in tokens], [[] for _ in tokens]
        while left := [i for i, own in enumerate(tokens) if texts[i].length < len(own)]:
            step = rng.sample(left, rng.randint(1, len(left)))
            pieces = [tokens[i][texts[i].length :][: rng.choice([1, 1, 2, 3, 16, 40])] for i in step]
            for i, logits in zip(step, read(model, cache, [texts[i] for i in step], pieces), strict=True):
                got[i].append(logits)
        for expected, parts in zip(alone, got, strict=True):
            assert torch.equal(torch.cat(parts), expected)
        for text in texts:
            cache.drop(text)
        assert cache.n_used_bytes == 0


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_copy_goes_on_as_if_it_were_alone_and_leaves_the_other_as_it_was(pattern: str, n: int) -> None:
    model, tokens = PackedGPT(make(pattern)), torch.randint(11, (2, N_CTX))
    tokens[1, :n] = tokens[0, :n]
    expected = [in_pieces(model, own, [N_CTX]) for own in tokens]
    cache = PagedCache(model.config)
    text = cache.new_text()
    read(model, cache, [text], [tokens[0, :n]])
    twin = cache.copy(text, n)
    assert twin is not None
    for start in range(n, N_CTX, 4):
        logits = read(model, cache, [text, twin], [own[start : start + 4] for own in tokens])
        for got, whole in zip(logits, expected, strict=True):
            assert torch.equal(got, whole[start : start + 4])
    cache.drop(text)
    cache.drop(twin)
    assert cache.n_used_bytes == 0


def test_a_copy_may_begin_in_the_middle_where_nothing_was_let_go() -> None:
    model = make("alternate(dense, banded(3))")
    cache, tokens = PagedCache(model.config), torch.randint(11, (N_CTX,))
    text = cache.new_text()
    with torch.no_grad():
        model.hidden(tokens[None], PagedMemory(cache, [text], [N_CTX]))
    twin = cache.copy(text, 20)
    assert twin is not None
    got = read(model, cache, [twin], [tokens[20:]])[0]
    torch.testing.assert_close(got, model(tokens[None])[0, 20:], rtol=1e-5, atol=1e-5)
    assert cache.trim(text)
    assert cache.copy(text, 20) is None  # the band has let go of it


def test_a_band_of_256_holds_17_pages_whatever_was_read() -> None:
    shape = {"n_layers": 2, "d_model": 2, "n_heads": 1, "n_ctx": 100_008, "n_vocab": 3}
    torch.manual_seed(0)
    model = GPT(GPTConfig(**shape, pattern="alternate(banded(256), block(512))")).eval()
    cache = PagedCache(model.config)
    text = cache.new_text()
    for part in torch.randint(3, (100_001,)).split(20_000):
        read(model, cache, [text], [part])
    assert [len(table) for table in text.tables] == [17, -(-(100_001 % 512) // 16)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_bytes_of_a_text_are_those_of_the_plan_and_those_that_are_held(pattern: str) -> None:
    model = make(pattern).to(torch.bfloat16)
    cache = PagedCache(model.config, dtype=torch.bfloat16)
    text, most = cache.new_text(), 0
    for token in torch.randint(11, (N_CTX, 1)):
        with torch.no_grad():
            model.hidden(token[None], PagedMemory(cache, [text], [1]))
        most = max(most, cache.n_used_bytes)
        cache.trim(text)
    assert make_plan("it", model.config).cache_bytes == cache.bytes_of_text(N_CTX, n_new=1) == most


def test_where_all_is_used_room_is_made_or_it_is_said() -> None:
    model = make()
    cache = PagedCache(model.config, n_bytes=PagedCache(model.config).bytes_of_text(32, n_new=1))
    text, other = cache.new_text(), cache.new_text()
    read(model, cache, [text], [torch.zeros(32, dtype=torch.long)])
    with pytest.raises(AssertionError, match="more pages are asked for than were reserved"):
        read(model, cache, [other], [torch.zeros(1, dtype=torch.long)])
    asked = []

    def make_room() -> bool:
        asked.append(1)
        cache.drop(text)
        return True

    cache.make_room = make_room
    read(model, cache, [other], [torch.zeros(1, dtype=torch.long)])
    assert asked == [1]
