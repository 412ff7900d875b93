from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.base.errors import BadValue, FewshotError, UnknownName
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Fixed, PerHead, Strided
from fewshot.patterns.schedule import Schedule, alternate, parse

numbers = st.integers(1, 300)
fixed = numbers.flatmap(lambda block: st.builds(Fixed, st.just(block), st.integers(1, block)))
columns = st.tuples(st.integers(1, 9), numbers, st.integers(0, 8)).map(
    lambda t: Columns(t[0] * t[1], t[1], t[2] % t[0])
)
simple = st.one_of(
    st.just(Dense()), st.builds(Banded, numbers), st.builds(Strided, numbers), st.builds(Block, numbers), fixed, columns
)
unions = st.lists(simple, min_size=1, max_size=4).map(lambda parts: functools.reduce(operator.or_, parts))
per_head = st.lists(unions, min_size=2, max_size=4).map(lambda patterns: PerHead(*patterns))
schedules = st.lists(st.one_of(unions, per_head), min_size=1, max_size=4).map(lambda patterns: alternate(*patterns))


@given(schedules)
def test_a_printed_schedule_parses_back_to_an_equal_value(schedule: Schedule) -> None:
    assert parse(str(schedule)) == schedule
    assert parse(str(schedule).upper().replace(" ", "")) == schedule
    assert parse(re.sub(r"(\W)", r" \1\n", str(schedule))) == schedule


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("dense", alternate(Dense())),
        ("Dense()", alternate(Dense())),
        ("banded(256)", alternate(Banded(256))),
        ("fixed(128,8)", alternate(Fixed(128, 8))),
        ("columns(128, 8)", alternate(Columns(128, 8, 0))),
        ("columns(128, 8, 3)", alternate(Columns(128, 8, 3))),
        ("strided(32) | banded(32)", alternate(Banded(32) | Strided(32))),
        ("(banded(2) | (strided(3)))", alternate(Banded(2) | Strided(3))),
        ("perhead(banded(128), strided(128))", alternate(PerHead(Banded(128), Strided(128)))),
        ("perhead(banded(2)|strided(3), dense)", alternate(PerHead(Banded(2) | Strided(3), Dense()))),
        (" ALTERNATE ( dense,banded( 256 ) ) ", alternate(Dense(), Banded(256))),
        ("alternate(dense)", alternate(Dense())),
    ],
)
def test_text_means_this_schedule(text: str, schedule: Schedule) -> None:
    assert parse(text) == schedule


def test_a_schedule_prints_as_the_text_that_makes_it() -> None:
    assert str(alternate(Dense(), Banded(256))) == "alternate(dense, banded(256))"
    assert str(alternate(Block(128) | Columns(128, 8))) == "fixed(128, 8)"
    assert str(alternate(Strided(3) | Banded(2))) == "banded(2) | strided(3)"
    assert str(alternate(PerHead(Dense(), Columns(8, 2, 1)))) == "perhead(dense, columns(8, 2, 1))"


def test_layers_take_the_patterns_in_turn() -> None:
    schedule = alternate(Dense(), Banded(4), Strided(3))
    assert [schedule.for_layer(i) for i in range(5)] == [Dense(), Banded(4), Strided(3), Dense(), Banded(4)]


@pytest.mark.parametrize(
    ("text", "character", "problem"),
    [
        ("", 1, "expected a pattern, found the end"),
        ("   ", 4, "expected a pattern, found the end"),
        ("dense | ", 9, "expected a pattern, found the end"),
        ("12", 1, "expected a pattern, found '12'"),
        ("dense dense", 7, "expected the end, found 'dense'"),
        ("dense)", 6, "expected the end, found ')'"),
        ("banded(256", 11, "expected ')', found the end"),
        ("alternate dense", 11, "expected '(', found 'dense'"),
        ("alternate(dense, alternate(dense))", 18, "alternate must be outermost"),
        ("dense | banded(0)", 9, "window of banded must be a whole number from 1"),
        ("banded(dense)", 1, "window of banded must be a whole number"),
        ("banded(1, 2)", 1, "banded takes (window), got 2 argument(s)"),
        ("dense(4)", 1, "dense takes (nothing), got 1 argument(s)"),
        ("fixed(128)", 1, "fixed takes (block, c), got 1 argument(s)"),
        ("alternate(dense, fixed(8, 9))", 18, "c of fixed must be a whole number from 1 to 8"),
        ("perhead(dense, 4)", 1, "perhead takes patterns that do not themselves depend on the head, got '4'"),
        ("banded(-1)", 8, "unexpected '-'"),
        ("banded(1.5)", 9, "unexpected '.'"),
        ("banded(99999999999)", 8, "this number is too large"),
        ("(" * 5000, 21, "brackets are nested more than 20 deep"),
    ],
)
def test_errors_name_the_text_the_position_and_the_problem(text: str, character: int, problem: str) -> None:
    with pytest.raises(BadValue) as raised:
        parse(text)
    assert str(raised.value).startswith(f"pattern {text!r}, character {character}: {problem}")


def test_an_unknown_name_gets_its_position_and_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"character 9 of 'dense \| strided2\(4\)': 'strided2'; nearest: 'strided'"):
        parse("dense | strided2(4)")


@given(st.one_of(st.text(max_size=30), st.text(alphabet="densbad(),| 0123", max_size=30)))
def test_any_text_is_a_schedule_or_a_clear_error(text: str) -> None:
    message, again, schedule = "", None, None
    try:
        schedule = parse(text)
        again = parse(str(schedule))
    except FewshotError as error:
        message = str(error)
    assert repr(text) in message if schedule is None else again == schedule


@pytest.mark.parametrize("bad", [None, 3, Banded(4)])
def test_only_text_is_parsed(bad: object) -> None:
    with pytest.raises(BadValue, match="spelled as text"):
        parse(bad)  # type: ignore[arg-type]


def test_a_schedule_needs_patterns() -> None:
    with pytest.raises(BadValue, match="at least one"):
        alternate()
    with pytest.raises(BadValue, match="holds patterns, got 'alternate"):
        alternate(Dense(), alternate(Dense(), Banded(2)))  # type: ignore[arg-type]


def test_a_text_is_parsed_once_however_often_it_is_asked_for(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    first = parse("alternate(dense, banded(77))")
    set_in_module(Schedule, "_Parser", None)
    assert parse("alternate(dense, banded(77))") is first


def test_a_text_that_is_no_schedule_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(BadValue, match="expected a pattern"):
            parse("banded(3) |")
