from __future__ import annotations

from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.generate.request import Request
from fewshot.generate.sampling import GREEDY


def test_a_draw_depends_on_seed_place_and_position_alone() -> None:
    request = Request(prompt=[1], max_tokens=5, seed=2, place=3)
    other = Request(prompt=[7, 8, 9], max_tokens=99, stop=["x"], sampling=GREEDY, seed=2, place=3)
    assert [request.draw(position) for position in range(9)] == [other.draw(position) for position in range(9)]
    draws = {
        Request(prompt=[1], max_tokens=1, seed=seed, place=place).draw(position)
        for seed in range(5)
        for place in range(5)
        for position in range(40)
    }
    assert len(draws) == 1000
    assert all(0 <= draw < 1 for draw in draws)
    assert sum(draws) / 1000 == pytest.approx(0.5, abs=0.03)  # three standard errors


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, must be at least 1"),
        ({"stop": ["a", ""]}, "a stop string is empty; give at least one character"),
        ({"stop": "END"}, "stop is the text 'END'; give a list of texts"),
        ({"prompt": []}, "the prompt is empty; give at least one token (<|endoftext|> starts a fresh document)"),
    ],
)
def test_a_request_that_means_nothing_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue) as caught:
        Request(**({"prompt": [1], "max_tokens": 1} | changed))
    assert str(caught.value) == message


def test_a_request_does_not_change_with_the_lists_it_was_made_of() -> None:
    prompt, stop = [1, 2], ["x"]
    request = Request(prompt=prompt, max_tokens=1, stop=stop)
    prompt.append(3)
    stop.append("y")
    assert (request.prompt, request.stop) == ((1, 2), ("x",))
    assert hash(request) == hash(Request(prompt=(1, 2), max_tokens=1, stop=("x",)))
