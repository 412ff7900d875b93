"""The smaller sizes: of one family with the largest, at any size that a user may ask for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.model.footprint.parameters import n_block_parameters, n_parameters
from fewshot.model.presets import PRESETS
from fewshot.train.ladder.sizes import POINTS, shrunk
from fewshot.train.resolving.recipes import lr_for
from fewshot.train.resolving.resolve import RunConfig, data_config, resolve
from fewshot.train.schedule import count_steps


def resolved(preset: str, **sections: Any) -> RunConfig:
    given = {"text": ["/"], "preset": preset, "n_tokens": 26_000_000, **sections}
    data = data_config(given)
    return resolve(given, data, n_vocab=4096, n_text_tokens=10**7, device="cpu", say=lambda line: None)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_ladder_of_five_sizes_of_one_family(preset: str) -> None:
    largest = resolved(preset)
    sizes = [shrunk(largest, halvings=i) for i in range(5)]
    assert dataclasses.replace(sizes[0], loop=largest.loop) == largest
    for i, size in enumerate(sizes):
        share = n_block_parameters(size.model) / n_block_parameters(largest.model)
        assert 0.6 < share * 2**i < 1.5
        assert (size.model.n_layers, size.model.n_heads) == (largest.model.n_layers, largest.model.n_heads)
        assert size.model.pattern == largest.model.pattern
        assert size.schedule.n_tokens == pytest.approx(share * largest.schedule.n_tokens, abs=1)
    counts = [n_block_parameters(size.model) for size in sizes]
    assert counts == sorted(set(counts), reverse=True)


def test_sizes_have_about_as_many_steps_and_the_same_share_of_warm_up() -> None:
    largest = resolved("tiny-1m")
    n_steps = count_steps(largest.schedule, n_ctx=128)
    for i in range(5):
        schedule = shrunk(largest, halvings=i).schedule
        assert count_steps(schedule, n_ctx=128) == pytest.approx(n_steps, rel=0.1)
        for clock in ("warmup_tokens", "decay_tokens", "ramp_tokens"):
            wanted = getattr(largest.schedule, clock) / largest.schedule.n_tokens
            assert getattr(schedule, clock) / schedule.n_tokens == pytest.approx(wanted, abs=1e-5)


def test_every_size_is_validated_twenty_times() -> None:
    for i in range(5):
        size = shrunk(resolved("tiny-1m"), halvings=i)
        assert count_steps(size.schedule, n_ctx=128) // size.loop.validate_every in (POINTS, POINTS + 1)


def test_a_smaller_size_learns_faster_by_the_line_through_table_2_1_from_the_rate_that_is_given() -> None:
    largest = resolved("gpt3-small", optimizer={"lr": 1e-4})
    smaller = shrunk(largest, halvings=2)
    faster = lr_for(n_parameters(smaller.model)) / lr_for(n_parameters(largest.model))
    assert faster > 1.2
    assert smaller.optimizer.lr == pytest.approx(1e-4 * faster)
    assert smaller.optimizer.name == largest.optimizer.name == "adamw"


def test_a_model_that_cannot_be_halved_so_often_is_refused_with_the_way_out() -> None:
    narrow = resolved("tiny-1m", model={"d_model": 16, "n_heads": 4})
    shrunk(narrow, halvings=1)
    with pytest.raises(BadValue, match=r"too narrow for 4 heads: ask for fewer sizes \(--ladder N\)"):
        shrunk(narrow, halvings=4)
