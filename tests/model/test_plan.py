from __future__ import annotations

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.paged_cache import PagedCache
from fewshot.model.plan import cache_bytes, make_plan
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
    assert plan.cache_bytes == 3 * 16 * (2 * 16 + 2 * 16) * 2  # layers, a page, key and value of both heads, bfloat16
    assert (plan.name, plan.pattern, plan.n_ctx, plan.d_head) == ("small", "banded(3)", 7, 4)


def test_a_plan_of_gpt3_needs_no_memory_and_counts_300_billion_tokens() -> None:
    plan = make_plan("gpt3-175b", PRESETS["gpt3-175b"])
    assert plan.n_tokens == 300_000_000_000
    assert plan.cache_bytes == (48 * 2048 + 48 * 272) * 2 * 12288 * 2  # 5.5 GB: every other layer is banded
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


@pytest.mark.parametrize("name", ["gpt3-small", "gpt2-small", "st-enwik8", "st-cifar10", "tiny-10m"])
def test_the_cache_has_the_bytes_of_one_that_is_made(name: str) -> None:
    config = PRESETS[name]
    for size, dtype in ((2, torch.bfloat16), (4, torch.float32)):
        cache = PagedCache(config, dtype=dtype, device="meta")
        assert cache_bytes(config, size=size) == cache.bytes_of_text(config.n_ctx, n_new=1)
