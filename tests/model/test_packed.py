from __future__ import annotations

import pytest
import torch

from fewshot.kernels.library import library
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT

SHAPE = {"n_layers": 2, "d_model": 24, "n_heads": 3, "n_ctx": 13, "n_vocab": 17, "init_std": 0.2}


@pytest.mark.parametrize(
    ("block", "tied"), [("pre-ln", True), ("pre-ln", False), ("post-ln", True), ("sparse-transformer", False)]
)
@pytest.mark.parametrize(("weight_type", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("int8", 0.1)])
def test_it_computes_what_the_model_does_as_exactly_as_its_weights_allow(
    weight_type: str, tolerance: float, block: str, tied: bool
) -> None:
    model = GPT(GPTConfig(**SHAPE, tied=tied, block=block), seed=3).eval()
    for name, parameter in model.named_parameters():  # a Sparse Transformer begins with zeros
        torch.nn.init.normal_(parameter, std=0.2, mean=1.0 if name.endswith("ln_1.weight") else 0.0)
    packed, tokens = PackedGPT(model, weight_type), torch.arange(13)[None]
    difference = (packed(tokens) - model(tokens)).abs().max()
    assert difference < tolerance * model(tokens).std()
    assert difference > 0 or weight_type == "float32"


def test_the_model_stays_as_it_was_and_shares_its_embeddings() -> None:
    model = GPT(GPTConfig(**SHAPE), seed=3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    packed = PackedGPT(model, "int8")
    packed(torch.arange(13)[None])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.h[0].mlp.c_fc, torch.nn.Linear)
    assert packed.wte is model.wte
    assert model.wte.weight.requires_grad


def test_a_model_in_bfloat16_computes_in_float32_between_its_layers() -> None:
    model = GPT(GPTConfig(**SHAPE), seed=3).eval().to(torch.bfloat16)
    packed = PackedGPT(model, "bfloat16")
    assert packed(torch.arange(13)[None]).dtype == torch.float32
    assert packed.cache_dtype == torch.bfloat16
    assert PackedGPT(model, "float32").cache_dtype == torch.float32


@pytest.mark.skipif(library().problem is not None, reason="without a compiler all weights are float32")
@pytest.mark.parametrize(("weight_type", "size"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_the_bytes_that_a_step_reads_are_those_of_matrices_with_outputs_in_sixteens(
    weight_type: str, size: int
) -> None:
    weights = 2 * (80 * 24 + 32 * 24 + 96 * 24 + 32 * 96) + 32 * 24  # of two blocks, and of the logits
    n_outputs = 2 * (72 + 24 + 96 + 24)
    scales = 4 * (n_outputs + 17) if weight_type == "int8" else 0
    assert PackedGPT(GPT(GPTConfig(**SHAPE)), weight_type).n_bytes == size * weights + 4 * n_outputs + scales
