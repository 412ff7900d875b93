from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.base.errors import BadValue
from fewshot.dataset.ngrams import MAX_ORDER, bits_of


def one_by_one(held_out: list[bytes], training: list[bytes], order: int) -> float:
    """The definition, a byte at a time."""
    bits = 0.0
    for piece in held_out:
        for place, byte in enumerate(piece):
            p = 1 / 256
            for n in range(1, min(order, place + 1) + 1):
                context = piece[place - n + 1 : place]
                after = Counter(
                    text[i + n - 1]
                    for text in training
                    for i in range(len(text) - n + 1)
                    if text[i : i + n - 1] == context
                )
                if after:
                    p = (after[byte] + len(after) * p) / (after.total() + len(after))
            bits -= math.log2(p)
    return bits


@settings(deadline=None, max_examples=60)
@given(
    training=st.lists(st.binary(max_size=40) | st.text("ab", max_size=60).map(str.encode), max_size=3),
    held_out=st.lists(st.binary(max_size=12) | st.text("abc", max_size=20).map(str.encode), max_size=3),
    order=st.integers(1, MAX_ORDER),
)
def test_bits_are_those_of_the_definition(training: list[bytes], held_out: list[bytes], order: int) -> None:
    assert bits_of(held_out, counted_in=training, order=order) == pytest.approx(
        one_by_one(held_out, training, order), abs=1e-9
    )


def test_all_bytes_of_a_context_have_a_probability_of_one_together() -> None:
    training = [b"abracadabra" * 3]
    costs = [
        bits_of([b"abra" + bytes([byte])], counted_in=training) - bits_of([b"abra"], counted_in=training)
        for byte in range(256)
    ]
    assert sum(2**-cost for cost in costs) == pytest.approx(1)


@pytest.mark.parametrize("order", [0, MAX_ORDER + 1])
def test_an_order_that_no_key_holds_is_refused(order: int) -> None:
    with pytest.raises(BadValue, match=f"order is {order}"):
        bits_of([b"a"], counted_in=[b"a"], order=order)
