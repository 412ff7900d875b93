"""All blocks in one call against the blocks' own modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fewshot.kernels.invariant import blocks
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import PagedCache, PagedMemory

SHAPE: dict[str, Any] = {"n_layers": 3, "n_heads": 3, "d_head": 5, "n_ctx": 64, "n_vocab": 20, "init_std": 0.3}
KINDS: list[dict[str, Any]] = [
    {},
    {"pattern": "alternate(dense, banded(9))"},
    {"pattern": "perhead(banded(4), dense, strided(3))"},
    {"block": "post-ln"},
    {"activation": "gelu"},
    {"activation": "relu"},
    {"block": "sparse-transformer", "tied": False, "init_std": 1.0},
]


@pytest.fixture(autouse=True)
def _with_a_compiler(request: pytest.FixtureRequest) -> None:
    if "C++" not in request.node.callspec.params.values():
        pytest.skip("without a compiler there is no such call")


def both(kind: dict[str, Any], weight_type: str, d_model: int = 21) -> list[torch.Tensor]:
    """Hidden states of three texts, in two steps: in one call, and by the modules."""
    model = PackedGPT(GPT(GPTConfig(**SHAPE | {"d_model": d_model} | kind), seed=1).eval(), weight_type)
    assert isinstance(model._blocks, blocks.Blocks)
    outputs = []
    for native in (model._blocks, None):
        model._blocks = native
        cache = PagedCache(model.config, dtype=model.cache_dtype)
        texts = [cache.new_text() for _ in range(3)]
        hidden = []
        for counts in ([17, 1, 5], [1, 20, 3]):
            tokens = torch.arange(sum(counts)) * 7 % 20
            hidden.append(model.hidden(tokens[None], PagedMemory(cache, texts, counts))[0])
        outputs.append(torch.cat(hidden))
    return outputs


@pytest.mark.parametrize("weight_type", ["float32", "int8", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_call_is_what_the_modules_give(kind: dict[str, Any], weight_type: str) -> None:
    native, modules = both(kind, weight_type)
    # What is rounded on the way, inputs or what is cached, may fall to the other side.
    close = 2e-5 if weight_type == "float32" else 3e-2
    torch.testing.assert_close(native, modules, rtol=close, atol=close)


@pytest.mark.parametrize("d_model", [1, 7, 8, 16, 33])
def test_norms_of_any_width_are_torchs(d_model: int) -> None:
    native, modules = both({}, "float32", d_model)
    torch.testing.assert_close(native, modules, rtol=2e-5, atol=2e-5)


def test_narrow_queries_go_through_the_modules() -> None:
    config = GPTConfig(**SHAPE | {"d_model": 15, "d_qk": 3})
    assert PackedGPT(GPT(config).eval())._blocks is None
    assert isinstance(PackedGPT(GPT(GPTConfig(**SHAPE, d_model=15)).eval())._blocks, blocks.Blocks)


def test_blocks_keep_their_weights_and_copies_have_their_own() -> None:
    model = GPT(GPTConfig(**SHAPE, d_model=15), seed=1).eval()
    packed = PackedGPT(model)

    def hidden(of: PackedGPT) -> torch.Tensor:
        cache = PagedCache(of.config)
        return of.hidden(torch.arange(9)[None], PagedMemory(cache, [cache.new_text()], [9]))

    expected, twin = hidden(packed), copy.deepcopy(packed)
    assert torch.equal(hidden(twin), expected)
    packed.h.double()  # which replaces the norms' tensors
    filler = [torch.full((15,), 1e9) for _ in range(100)]
    assert torch.equal(hidden(packed), expected)
    assert len(filler) == 100
