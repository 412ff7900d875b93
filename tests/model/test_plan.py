from __future__ import annotations

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT, count_parameters
from fewshot.model.plan import activation_bytes, make_plan, n_block_parameters, n_parameters
from fewshot.model.presets import PRESETS

SMALL = GPTConfig(n_layers=3, d_model=10, n_heads=2, d_head=4, d_ff=30, n_ctx=7, n_vocab=19, pattern="banded(3)")


def test_the_costs_of_a_small_model_are_those_worked_by_hand() -> None:
    # a block: norms 2 x 20, qkv 10 x 24 + 24, projection 8 x 10 + 10, feed-forward 10 x 30 + 30 + 30 x 10 + 10
    blocks = 3 * (40 + 264 + 90 + 640) + 20
    total = blocks + 19 * 10 + 7 * 10
    plan = make_plan("small", SMALL, n_tokens=1000)
    assert (plan.n_parameters, plan.n_non_embedding) == (total, blocks)
    assert plan.flops == 6 * total * 1000
    assert plan.pf_days == pytest.approx(6 * total * 1000 / 8.64e19)
    assert plan.training_state_bytes == 4 * 4 * total
    assert plan.inference_weight_bytes == 2 * total
    assert plan.cache_bytes == 3 * 3 * (8 + 8) * 2  # layers, keys of the band, key and value of both heads, bfloat16
    assert (plan.name, plan.pattern, plan.n_ctx, plan.d_head) == ("small", "banded(3)", 7, 4)


def test_a_plan_of_gpt3_needs_no_memory_and_counts_300_billion_tokens() -> None:
    plan = make_plan("gpt3-175b", PRESETS["gpt3-175b"])
    assert plan.n_tokens == 300_000_000_000
    assert plan.cache_bytes == (48 * 2048 + 48 * 256) * 2 * 12288 * 2  # 5.4 GB: every other layer is banded
    assert plan.training_state_bytes == 16 * 174_604_259_328  # 2.8 TB


@pytest.mark.parametrize(
    ("preset", "flops", "pf_days"),
    [
        ("gpt3-small", "2.25E+20", "2.60E+00"),
        ("gpt3-medium", "6.41E+20", "7.42E+00"),
        ("gpt3-large", "1.37E+21", "1.58E+01"),
        ("gpt3-xl", "2.38E+21", "2.75E+01"),
        ("gpt3-2.7b", "4.77E+21", "5.52E+01"),
        ("gpt3-6.7b", "1.20E+22", "1.39E+02"),
        ("gpt3-13b", "2.31E+22", "2.68E+02"),
        ("gpt3-175b", "3.14E+23", "3.64E+03"),
    ],
)
def test_the_digits_of_table_d_1_come_out(preset: str, flops: str, pf_days: str) -> None:
    plan = make_plan(preset, PRESETS[preset])
    assert (f"{plan.table_d1_flops:.2E}", f"{plan.table_d1_pf_days:.2E}") == (flops, pf_days)


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(n_layers=1, d_model=64, n_heads=4, n_ctx=128, n_vocab=97),
        GPTConfig(n_layers=4, d_model=48, n_heads=3, d_head=32, d_ff=80, n_ctx=200, n_vocab=97),
        GPTConfig(n_layers=3, d_model=64, n_heads=4, n_ctx=128, n_vocab=97, block="post-ln"),
        GPTConfig(
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
    ],
)
def test_activation_bytes_are_what_autograd_keeps(config: GPTConfig) -> None:
    model = GPT(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by storage; the tensors are held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept.setdefault(address, tensor)
        return tensor

    tokens = torch.randint(97, (1, config.n_ctx))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(tokens, tokens)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert activation_bytes(config) == pytest.approx(measured, rel=0.1)


def test_recomputation_keeps_the_inputs_of_all_blocks_and_one_block() -> None:
    block = 4 * 10 + 4 * 8 + 2 + 2 * 30  # as above: norms, attention of width 8, log-sum-exp of 2 heads, feed-forward
    assert activation_bytes(SMALL) == 4 * 7 * (3 * block + 20)
    assert activation_bytes(SMALL, recompute=True) == 4 * 7 * (3 * 10 + block + 20)
    plan = make_plan("st-enwik8", PRESETS["st-enwik8"])
    assert plan.recomputed_bytes < plan.activation_bytes / 11


VARIANTS = {
    "widths": SMALL,
    "untied": GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=5, n_vocab=11, tied=False),
    "post-ln": GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=5, n_vocab=11, block="post-ln"),
    "narrow": GPTConfig(n_layers=3, d_model=12, n_heads=2, d_qk=4, n_ctx=15, n_vocab=7, positions="rows(4)"),
    "image": GPTConfig(n_layers=1, d_model=12, n_heads=2, n_ctx=30, n_vocab=7, positions="image(2, 5, 3)"),
    **PRESETS,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_by_arithmetic_are_those_of_the_model_that_is_built(name: str) -> None:
    assert n_parameters(VARIANTS[name]) == count_parameters(VARIANTS[name])["total"]


def test_parameters_of_the_blocks_are_those_in_them() -> None:
    for config in (SMALL, VARIANTS["narrow"]):
        built = sum(p.numel() for name, p in GPT(config).named_parameters() if name.startswith("h."))
        assert n_block_parameters(config) == built


def test_a_model_that_could_never_be_built_is_counted_at_once() -> None:
    assert n_parameters(GPTConfig(n_layers=10**9, d_model=10**9, n_heads=1)) > 10**27
