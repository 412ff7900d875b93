from __future__ import annotations

from typing import Any

from fewshot.generate.request import Request, TokenScore
from fewshot.generate.stop import RequestState, first_stop
from fewshot.tokenizer.bytes import Bytes


def written(text: bytes, **how: Any) -> tuple[list[str], RequestState]:
    """What can be shown after each byte, and the state in the end."""
    state = RequestState(Request(prompt=[1], **({"max_tokens": 99} | how)), Bytes())
    pieces = []
    for byte in text:
        if state.finish_reason is None:
            state.add(byte, TokenScore(-1.0))
            pieces.append(state.next_text())
    return pieces, state


def test_what_is_shown_is_whole_characters_and_no_part_of_a_stop_string() -> None:
    pieces, state = written("né\nQ: x".encode(), stop=["\nQ:"])
    assert pieces == ["n", "", "é", "", "", ""]
    assert state.completion().text == "né"
    assert (state.finish_reason, len(state.completion().tokens)) == ("stop", 6)
    assert written(b"a\nb", stop=["\nQ:"])[0] == ["a", "", "\nb"]


def test_the_last_allowed_token_shows_what_was_held_back() -> None:
    pieces, state = written(b"ab\n", stop=["\nQ:"], max_tokens=3)
    assert pieces == ["a", "b", "\n"]
    assert state.finish_reason == "length"


def test_a_completion_ends_where_no_token_fits_behind_the_prompt() -> None:
    state = RequestState(Request(prompt=[1], max_tokens=99), Bytes(), n_free=1)
    state.add(97, TokenScore(-0.5))
    assert (state.finish_reason, state.completion().logprobs) == ("length", (-0.5,))


def test_the_first_stop_in_the_text_is_taken_not_the_first_in_the_list() -> None:
    assert first_stop(b"abcd", [b"cd", b"b"]) == 1
    assert first_stop(b"abcd", [b"b"], 2) is None
    assert first_stop(b"abcd", []) is None


def test_the_stop_that_is_whole_first_is_taken_however_the_text_is_cut_into_tokens() -> None:
    assert first_stop(b"abcd", [b"abcd", b"bc"]) == first_stop(b"abc", [b"abcd", b"bc"]) == 1
    assert first_stop(b"abc", [b"bc", b"abc"]) == 0
