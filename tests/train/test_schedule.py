"""The paper's clocks, by hand-worked numbers."""

from __future__ import annotations

import math

import pytest

from fewshot.train.config import ScheduleConfig
from fewshot.train.schedule import batch_rows, count_steps, lr_fraction


def paper_175b() -> ScheduleConfig:
    return ScheduleConfig(
        n_tokens=300_000_000_000,
        batch_tokens=3_200_000,
        batch_start_tokens=32_768,
        ramp_tokens=12_000_000_000,
        warmup_tokens=375_000_000,
        decay_tokens=260_000_000_000,
    )


def test_learning_rate_rises_linearly_over_375_million_tokens_then_follows_a_cosine_to_a_tenth() -> None:
    schedule = paper_175b()
    assert lr_fraction(schedule, 0) == 0
    assert lr_fraction(schedule, 187_500_000) == pytest.approx(0.5)
    assert lr_fraction(schedule, 375_000_000) == pytest.approx(1.0)
    middle = (375_000_000 + 260_000_000_000) // 2
    assert lr_fraction(schedule, middle) == pytest.approx(0.55)
    quarter = 375_000_000 + (260_000_000_000 - 375_000_000) // 4
    assert lr_fraction(schedule, quarter) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("tokens", [260_000_000_000, 280_000_000_000, 300_000_000_000])
def test_learning_rate_stays_at_a_tenth_after_260_billion_tokens(tokens: int) -> None:
    assert lr_fraction(paper_175b(), tokens) == pytest.approx(0.1)


def test_batch_grows_linearly_from_32k_tokens_to_full_size() -> None:
    schedule = paper_175b()
    assert batch_rows(schedule, 0, n_ctx=2048) == 16
    assert batch_rows(schedule, 6_000_000_000, n_ctx=2048) == round((32_768 + 3_167_232 / 2) / 2048)
    assert batch_rows(schedule, 12_000_000_000, n_ctx=2048) == round(3_200_000 / 2048)
    assert batch_rows(schedule, 299_000_000_000, n_ctx=2048) == round(3_200_000 / 2048)


def test_counted_steps_are_those_that_the_loop_will_take() -> None:
    schedule = ScheduleConfig(
        n_tokens=5_003, batch_tokens=160, batch_start_tokens=16, ramp_tokens=1_000, warmup_tokens=0, decay_tokens=5_000
    )
    seen = steps = 0
    while seen < schedule.n_tokens:
        seen += batch_rows(schedule, seen, n_ctx=16) * 16
        steps += 1
    assert count_steps(schedule, n_ctx=16) == steps


def test_without_a_ramp_every_batch_is_full() -> None:
    schedule = ScheduleConfig(
        n_tokens=768 * 2000, batch_tokens=768, batch_start_tokens=768, ramp_tokens=0, warmup_tokens=0, decay_tokens=1
    )
    assert count_steps(schedule, n_ctx=64) == 2000
    assert batch_rows(schedule, 0, n_ctx=64) == 12
