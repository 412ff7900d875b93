from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadValue, UnknownName
from fewshot.model.config import GPTConfig
from fewshot.patterns.pattern import Banded, Dense


def test_head_and_feed_forward_widths_follow_from_d_model_unless_given() -> None:
    config = GPTConfig(n_layers=1, d_model=12, n_heads=3)
    assert (config.head_width, config.ff_width, config.qk_width) == (4, 48, 4)
    config = GPTConfig(n_layers=1, d_model=10, n_heads=3, d_head=7, d_ff=11, d_qk=2)
    assert (config.head_width, config.ff_width, config.qk_width) == (7, 11, 2)


def test_the_pattern_text_is_the_schedule_of_the_layers() -> None:
    schedule = GPTConfig(n_layers=3, d_model=4, n_heads=1, pattern="alternate(dense, banded(5))").schedule()
    assert [schedule.for_layer(i) for i in range(3)] == [Dense(), Banded(5), Dense()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_layers": 0}, "n_layers is 0, must be at least 1"),
        ({"n_ctx": -1}, "n_ctx is -1, must be at least 1"),
        ({"n_vocab": 0}, "n_vocab is 0, must be at least 1"),
        ({"d_head": 0}, "d_head is 0, must be at least 1"),  # not taken for "not given"
        ({"d_ff": 0}, "d_ff is 0, must be at least 1"),
        ({"n_heads": 5}, "d_model 12 is not a multiple of n_heads 5: change one, or give d_head"),
        ({"dropout": 1.0}, "dropout is 1.0, must be in [0, 1)"),
        ({"dropout": float("nan")}, "dropout is nan, must be in [0, 1)"),
        ({"init_std": 0.0}, "init_std is 0.0, must be above 0 and at most 10"),
        ({"init_std": 1e30}, "init_std is 1e+30, must be above 0 and at most 10"),
        ({"activation": "silu"}, "activation is 'silu', allowed: gelu_tanh, gelu, relu, quick_gelu"),
        ({"block": "pre"}, "block is 'pre', allowed: pre-ln, post-ln, sparse-transformer"),
        ({"d_qk": 0}, "d_qk is 0, must be at least 1"),
        ({"d_qk": 5}, "d_qk 5 is above d_head 4: lower it"),
        ({"positions": "rows(4096)"}, "positions is 'rows(4096)': the width must be from 1 to n_ctx, 2048"),
        (
            {"block": "sparse-transformer"},
            "the output matrix of a sparse-transformer starts at 0, so it cannot be the embedding: give tied: false",
        ),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(changed: dict[str, Any], message: str) -> None:
    good = {"n_layers": 2, "d_model": 12, "n_heads": 3}
    with pytest.raises(BadValue) as caught:
        GPTConfig(**(good | changed))
    assert str(caught.value) == message


def test_an_unknown_pattern_is_refused_when_the_config_is_made() -> None:
    with pytest.raises(UnknownName, match="'bandet'; nearest: 'banded'"):
        GPTConfig(n_layers=1, d_model=4, n_heads=1, pattern="bandet(3)")


def test_standard_deviation_and_inner_dropout_are_those_of_the_block() -> None:
    gpt = GPTConfig(n_layers=1, d_model=4, n_heads=1, dropout=0.2)
    sparse = dataclasses.replace(gpt, block="sparse-transformer", tied=False)
    assert (gpt.matrix_std, gpt.inner_dropout) == (0.02, 0.2)
    assert (sparse.matrix_std, sparse.inner_dropout) == (0.125, 0.0)
    assert dataclasses.replace(sparse, init_std=0.3).matrix_std == 0.3


def test_a_config_is_a_frozen_value_that_survives_plain_text() -> None:
    config = GPTConfig(n_layers=2, d_model=12, n_heads=3, d_head=5, pattern="banded(4)", block="post-ln", tied=False)
    assert from_plain(GPTConfig, to_plain(config), where="model") == config
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layers = 3  # type: ignore[misc]
