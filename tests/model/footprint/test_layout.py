from __future__ import annotations

import dataclasses
import math

import pytest

from fewshot.model.config import GPTConfig
from fewshot.model.footprint.layout import Layout, divisors, layouts, stage_layers, why_not

CONFIG = GPTConfig(n_layers=6, d_model=24, n_heads=6, d_ff=40, n_ctx=32, n_vocab=50)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(tp=4), "parallel.tp is 4, but model.n_heads 6 is not a multiple of it: lower --parallel.tp"),
        (Layout(tp=3), "parallel.tp is 3, but model.d_ff 40 is not a multiple"),
        (Layout(pp=7), "parallel.pp is 7, but the model has 6 layers: lower --parallel.pp"),
        (Layout(cp=5), "parallel.cp is 5, but model.n_ctx 32 is not a multiple of it: lower --parallel.cp"),
        (Layout(cp=2, pp=2), "parallel.cp and parallel.pp cannot be used together: leave one of them out"),
    ],
)
def test_what_does_not_divide_the_model_is_named(layout: Layout, reason: str) -> None:
    problem = why_not(layout, CONFIG)
    assert problem is not None
    assert problem.startswith(reason)


def test_heads_of_several_kinds_stay_in_whole_rounds() -> None:
    config = GPTConfig(n_layers=1, d_model=24, n_heads=6, n_ctx=32, pattern="perhead(dense, banded(4))")
    assert why_not(Layout(tp=3), config) is None
    problem = why_not(Layout(tp=2), config)
    assert problem is not None
    assert problem.startswith("parallel.tp is 2, which leaves 3 heads for the 2 kinds of perhead")


def test_positions_are_not_divided_where_dropout_is_drawn_for_whole_rows() -> None:
    config = dataclasses.replace(CONFIG, dropout=0.1)
    assert why_not(Layout(fsdp=2), config) is None
    problem = why_not(Layout(cp=2), config)
    assert problem is not None
    assert problem.startswith("parallel.cp is 2, but model.dropout is 0.1, drawn for whole rows")


def test_what_divides_the_model_is_allowed() -> None:
    assert why_not(Layout(dp=5, fsdp=7, tp=2, cp=16), CONFIG) is None
    assert why_not(Layout(dp=5, fsdp=7, tp=2, pp=6), CONFIG) is None


def test_a_layout_has_the_product_of_its_sizes_as_processes_and_says_them() -> None:
    layout = Layout(dp=2, fsdp=3, tp=5, pp=7)
    assert (layout.n_processes, layout.n_data) == (210, 6)
    assert layout.text == "dp 2 x fsdp 3 x tp 5 x pp 7"
    assert Layout(fsdp=3, pp=2).options == "--parallel.fsdp 3 --parallel.pp 2"


@pytest.mark.parametrize(("n_layers", "pp"), [(96, 16), (7, 3), (5, 5), (10, 4)])
def test_stages_hold_all_layers_as_evenly_as_can_be(n_layers: int, pp: int) -> None:
    layers = stage_layers(n_layers, pp)
    assert (len(layers), sum(layers)) == (pp, n_layers)
    assert max(layers) - min(layers) <= 1
    assert layers == sorted(layers)  # the first stage holds most micro-batches


def test_all_divisors_come_in_order() -> None:
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert divisors(1) == [1]


def test_layouts_are_all_that_have_the_given_sizes_and_the_number_of_processes() -> None:
    made = list(layouts(12, given={"tp": 2}))
    expected = {(dp, fsdp, 6 // dp // fsdp) for dp in (1, 2, 3, 6) for fsdp in (1, 2, 3, 6) if 6 % (dp * fsdp) == 0}
    assert {(layout.dp, layout.fsdp, layout.pp) for layout in made} == expected
    assert len(made) == len(expected)
    assert {layout.tp for layout in made} == {2}
    assert all(math.prod((layout.dp, layout.fsdp, layout.tp, layout.pp)) == 12 for layout in made)
    assert list(layouts(12, given={"tp": 5})) == []
    assert list(layouts(12, given={"dp": 2, "fsdp": 2, "tp": 1, "pp": 1})) == []


def test_positions_are_divided_only_where_that_is_asked_for() -> None:
    assert all(layout.cp == 1 for layout in layouts(8, given={}))
    asked = list(layouts(8, given={"cp": 4}))
    assert {(layout.cp, layout.n_processes) for layout in asked} == {(4, 8)}
    assert {layout.text for layout in asked} == {
        "dp 2 x fsdp 1 x tp 1 x pp 1 x cp 4",
        "dp 1 x fsdp 2 x tp 1 x pp 1 x cp 4",
        "dp 1 x fsdp 1 x tp 2 x pp 1 x cp 4",
        "dp 1 x fsdp 1 x tp 1 x pp 2 x cp 4",
    }
    assert "--parallel.cp 4" in asked[0].options
