"""What autograd holds is what the arithmetic says, in float32 and under autocast."""

from __future__ import annotations

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import (
    activation_bytes,
    backward_bytes,
    block_bytes,
    end_bytes,
    held_bytes,
)
from fewshot.model.gpt import GPT
from fewshot.model.plan import make_plan
from fewshot.model.presets import PRESETS

SMALL = GPTConfig(n_layers=3, d_model=10, n_heads=2, d_head=4, d_ff=30, n_ctx=7, n_vocab=19, pattern="banded(3)")
SHAPES = {
    "shallow": GPTConfig(n_layers=1, d_model=64, n_heads=4, n_ctx=128, n_vocab=97),
    "widths": GPTConfig(n_layers=4, d_model=48, n_heads=3, d_head=32, d_ff=80, n_ctx=200, n_vocab=97),
    "post-ln": GPTConfig(n_layers=3, d_model=64, n_heads=4, n_ctx=128, n_vocab=97, block="post-ln"),
    "sparse": GPTConfig(
        n_layers=3,
        d_model=64,
        n_heads=4,
        d_qk=8,
        d_ff=128,
        n_ctx=128,
        n_vocab=97,
        positions="rows(16)",
        block="sparse-transformer",
        tied=False,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_bytes_are_what_autograd_keeps(name: str, dtype: torch.dtype) -> None:
    config = SHAPES[name]
    model = GPT(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {parameter.shape for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by storage; the tensors are held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        is_copy = dtype == tensor.dtype == torch.bfloat16 and ({tensor.shape, tensor.mT.shape} & shapes)  # of a weight
        if address not in weights and not is_copy:
            kept.setdefault(address, tensor)
        return tensor

    tokens = torch.randint(97, (3, config.n_ctx))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        hidden = model.hidden(tokens)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in [*kept.values(), hidden])
    if config.block == "sparse-transformer" and dtype == torch.bfloat16:  # the C++ of a CPU does without the sigmoid
        measured += 3 * config.n_ctx * config.n_layers * config.ff_width * dtype.itemsize
    assert 3 * activation_bytes(config, size=dtype.itemsize) == pytest.approx(measured, rel=0.05)


def test_recomputation_keeps_the_inputs_of_all_blocks_and_one_block() -> None:
    # norms and their statistics, attention of width 8, log-sum-exp of 2 heads, feed-forward
    block = 4 * 10 + 4 + 4 * 8 + 2 + 2 * 30
    assert activation_bytes(SMALL) == 4 * 7 * (3 * block + 20)
    assert activation_bytes(SMALL, recompute="full") == 4 * 7 * (3 * 10 + block - 10 + 20)
    plan = make_plan("st-enwik8", PRESETS["st-enwik8"])
    assert plan.recomputed_bytes < plan.activation_bytes / 11


def test_selective_recomputation_keeps_all_but_the_feed_forward_half() -> None:
    assert held_bytes(SMALL, recompute="selective") == block_bytes(SMALL) - 4 * (10 + 2 * 30)
    assert held_bytes(SMALL, recompute="full") < held_bytes(SMALL, recompute="selective") < held_bytes(SMALL)
    assert backward_bytes(SMALL, recompute="selective") == 4 * (10 + 2 * 30) + 4 * (30 + 10)


def test_the_backward_pass_of_a_block_has_its_recomputed_parts_and_the_gradients_beside_them() -> None:
    assert backward_bytes(SMALL, recompute="none") == 4 * (30 + 10)
    again = block_bytes(SMALL) - 4 * 10
    assert backward_bytes(SMALL, recompute="full") == again + 4 * (30 + 10)


def test_bfloat16_halves_what_goes_into_products_and_leaves_the_stream() -> None:
    stays = 4 * (2 * 10 + 4 + 2)  # inputs of norms and their statistics, log-sum-exp
    assert block_bytes(SMALL, size=2) - stays == (block_bytes(SMALL) - stays) / 2
    assert end_bytes(SMALL) == 4 * 20
    assert held_bytes(SMALL, recompute="full", size=2) == 4 * 10


def test_tensor_parallelism_divides_heads_and_feed_forward_alone() -> None:
    shared = 4 * (4 * 10 + 4)  # the stream and the norms' outputs
    assert 2 * (block_bytes(SMALL, tp=2) - shared) == block_bytes(SMALL) - shared
