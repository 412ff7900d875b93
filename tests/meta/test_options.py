from __future__ import annotations

import pytest

from fewshot.base.config import from_overrides
from fewshot.meta.experiment import EXPERIMENTS, configure
from fewshot.meta.options import description, option_groups


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_the_options_given_with_their_defaults_are_the_default_configuration(kind):
    words = [f"--{option.name}={option.default}" for group in option_groups(kind) for option in group.options]
    assert configure(kind, from_overrides(words)) == EXPERIMENTS[kind][0]()


def test_options_have_the_comments_of_their_fields_and_groups_those_of_theirs():
    by_name = {group.name: group for group in option_groups("regression")}
    assert list(by_name) == ["", "reader", "outer", "learner", "learner_outer"]
    options = {option.name: option for option in by_name["outer"].options}
    assert (options["outer.warmup"].default, options["outer.warmup"].comment) == (
        "300",
        "iterations in which lr rises from 0",
    )
    assert options["outer.clip_norm"].default == "1.0"
    assert by_name["outer"].summary == "Settings of the outer loop. (in context)"
    assert {option.name: option.default for option in by_name[""].options}["test_steps"] == "[1, 10]"
    assert description("regression").startswith("Functions from a few points")
