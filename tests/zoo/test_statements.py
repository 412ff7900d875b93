"""A statement holds exactly where its bounds do."""

from __future__ import annotations

from typing import Any

import pytest
from tests.zoo.test_finding import finding

from fewshot.zoo.finding import Statement
from fewshot.zoo.statements import Outcome, outcomes

RESULTS = {
    "few": {"a": {"mean": 0.5, "low": 0.4, "high": 0.6}, "rows": [{"x": 1}]},
    "many": {"a": {"mean": 0.3, "low": 0.25, "high": 0.35}, "b": {"mean": 0.3, "low": 0.1, "high": 0.5}, "c": 0.3},
    "demo": {"0": {"score": 0.9}, "1": {"score": 0.7}, "2": {"score": 0.85}},
}


def outcome(**given: Any) -> Outcome:
    (only,) = outcomes(finding(expect=(Statement(**given),)), RESULTS)
    return only


@pytest.mark.parametrize(
    ("given", "holds", "band"),
    [
        ({"at_least": 0.5}, True, "at least 0.5"),
        ({"at_least": 0.51}, False, "at least 0.51"),
        ({"at_most": 0.49}, False, "at most 0.49"),
        ({"at_least": 0.4, "at_most": 0.5}, True, "at least 0.4, at most 0.5"),
        ({"above": "many.a", "by": 0.1}, True, "above 0.3 ± 0.05 by 0.1"),
        ({"above": "many.a", "by": 0.21}, False, "above 0.3 ± 0.05 by 0.21"),
        ({"above": "many.a", "times": 1.5}, True, "above 1.5 times 0.3 ± 0.05"),
        ({"above": "many.a", "times": 2}, False, "above 2 times 0.3 ± 0.05"),
        ({"above": "few.a"}, False, "above 0.5 ± 0.1"),
        ({"above": "many.a", "apart": True}, True, "above 0.3 ± 0.05, intervals apart"),
        ({"above": "many.b", "apart": True}, False, "above 0.3 ± 0.2, intervals apart"),
        ({"above": "many.c", "apart": True}, False, "above 0.3, intervals apart"),
        ({"at_least": 0.9, "above": "many.a"}, False, "at least 0.9, above 0.3 ± 0.05"),
    ],
)
def test_bounds_and_margins(given: dict[str, Any], holds: bool, band: str) -> None:
    assert outcome(value="few.a", **given) == Outcome("few.a", holds, "0.5 ± 0.1", band)


def test_bounds_hold_for_so_many_seeds() -> None:
    said = outcome(value="demo.*.score", at_least=0.8, seeds=2, says="copies")
    assert (said.says, said.holds, said.band) == ("copies", True, "at least 0.8 in 2")
    assert said.value.endswith("2 of 3")
    assert not outcome(value="demo.*.score", at_least=0.8, seeds=3).holds


def test_what_is_never_reached_does_not_hold() -> None:
    assert outcome(value="few.rows[x>=2].x", at_most=5) == Outcome(
        "few.rows[x>=2].x", False, "x is never >= 2", "at most 5"
    )


def test_what_is_known_not_to_hold_is_told_and_fails_nothing() -> None:
    known = outcome(value="few.a", at_least=0.9, not_shown="too few steps")
    assert (known.holds, known.fails, known.verdict, known.not_shown) == (False, False, "not shown", "too few steps")
    never = outcome(value="few.rows[x>=2].x", at_most=5, not_shown="too few steps")
    assert (never.holds, never.fails) == (False, False)
    assert outcome(value="few.a", at_least=0.9).fails
    assert outcome(value="few.a", at_least=0.1, not_shown="it came out").verdict == "holds"
