from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Server, send

from fewshot.base.errors import BadFile, BadValue
from fewshot.serve.completions import Served
from fewshot.serve.receipt import read_receipt, replay

BODIES: list[dict[str, Any]] = [
    {"prompt": "the cat", "max_tokens": 12},
    {"prompt": ["the dog", "é 日本"], "n": 2, "temperature": 1.7, "seed": -3},
    {"prompt": "", "best_of": 4, "n": 2, "max_tokens": 9},
    {"prompt": [5, 6, 7], "echo": True, "logprobs": 2, "max_tokens": 8, "stop": ["a", "e"]},
    {"prompt": "the cat", "echo": True, "max_tokens": 0},
    {"prompt": ["", "a"], "echo": True, "max_tokens": 3, "logprobs": 0},
    {"prompt": "the", "temperature": 0, "frequency_penalty": 1.5, "logit_bias": {"285": -100, "7": 3}},
    {"prompt": "the", "top_p": 0.7, "top_k": 20, "presence_penalty": -1, "logprob_token_ids": [4], "user": "me"},
]


def completed(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    status, answer = send(server, "POST", "/v1/completions", {**body, "receipt": True})
    assert status == 200, answer
    return answer


def replayed(server: Server, receipt: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "receipt.json"
    path.write_text(json.dumps(receipt))
    served = Served(name="tiny", tokenizer=server.tokenizer, n_ctx=64, identity={"weights": "tiny"})
    return list(replay(read_receipt(path), server.model, served))


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_an_answer_with_its_receipt_is_made_again_with_the_same_bits(
    server: Server, number: int, tmp_path: Path
) -> None:
    answer = completed(server, BODIES[number])
    assert replayed(server, answer, tmp_path) == []
    assert replayed(server, answer["receipt"], tmp_path) == []
    assert len(answer["receipt"]["choices"]) == len(answer["choices"])


def test_a_stream_ends_with_the_receipt_of_the_whole_answer(server: Server) -> None:
    body = {"prompt": "the cat", "seed": 1, "n": 2, "max_tokens": 9}
    chunks = list(
        server.client.completions.create(
            model="tiny", stream=True, stream_options={"include_usage": True}, extra_body={"receipt": True}, **body
        )
    )
    whole = completed(server, body)["receipt"]
    receipt, usage = chunks[-2], chunks[-1]
    assert (receipt.choices, usage.choices) == ([], [])
    assert receipt.usage is None
    assert usage.usage.completion_tokens
    different = {"id", "created"}
    told = {name: value for name, value in receipt.receipt.items() if name not in different}
    assert told == {name: value for name, value in whole.items() if name not in different}
    with_none = server.client.completions.create(model="tiny", **body)
    assert not hasattr(with_none, "receipt")


CHANGES: dict[str, Callable[[dict[str, Any], random.Random], int]] = {}


def change(function: Callable[[dict[str, Any], random.Random], int]) -> None:
    CHANGES[function.__name__] = function


@change
def a_token(choice: dict[str, Any], rng: random.Random) -> int:
    at = rng.randrange(len(choice["tokens"]))
    choice["tokens"][at] = (choice["tokens"][at] + 1) % 280
    return at


@change
def the_last_bit_of_a_logprob(choice: dict[str, Any], rng: random.Random) -> int:
    at = rng.randrange(len(choice["tokens"]))
    choice["logprobs"][at] *= 1 + 2**-23
    return at


@change
def a_token_left_out(choice: dict[str, Any], rng: random.Random) -> int:
    del choice["tokens"][-1], choice["logprobs"][-1]
    return len(choice["tokens"])


@change
def a_token_too_many(choice: dict[str, Any], rng: random.Random) -> int:
    choice["tokens"].append(3)
    choice["logprobs"].append(-1.0)
    return len(choice["tokens"]) - 1


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_in_a_doctored_receipt_the_token_is_named(server: Server, kind: str, seed: int, tmp_path: Path) -> None:
    honest = completed(server, {"prompt": ["the cat", "the dog"], "seed": seed, "max_tokens": 20})["receipt"]
    rng, doctored = random.Random(seed), copy.deepcopy(honest)
    which = rng.randrange(2)
    at = CHANGES[kind](doctored["choices"][which], rng)
    (line,) = replayed(server, doctored, tmp_path)
    assert re.match(rf"choice {which} parts at token {at}: ", line), line


def test_another_seed_prompt_or_end_is_found(server: Server, tmp_path: Path) -> None:
    honest = completed(server, {"prompt": "the cat", "seed": 1, "max_tokens": 20, "temperature": 2})["receipt"]
    for request in ({"seed": 2}, {"prompt": [[9, 8, 7]]}, {"temperature": 0.5}, {"n": 2}):
        doctored = {**honest, "request": {**honest["request"], **request}}
        assert replayed(server, doctored, tmp_path)
    doctored = copy.deepcopy(honest)
    doctored["choices"][0]["n_written"] += 1
    assert replayed(server, doctored, tmp_path)[0].startswith("choice 0 ends otherwise: ")


def test_what_is_no_receipt_is_refused(server: Server, tmp_path: Path) -> None:
    honest = completed(server, {"prompt": "the cat"})["receipt"]
    for value in ([], {}, {"receipt": None}, {**honest, "choices": 1}, {**honest, "version": 2}, {**honest, "x": 1}):
        with pytest.raises(BadFile, match="receipt"):
            replayed(server, value, tmp_path)  # type: ignore[arg-type]
    for request in ({"n": 0}, {"prompt": [[10**6]]}, {"max_tokens": 10**6}):
        with pytest.raises(BadValue, match="the receipt's request: "):
            replayed(server, {**honest, "request": {**honest["request"], **request}}, tmp_path)
