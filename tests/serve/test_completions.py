from __future__ import annotations

import json

import pytest
from serving import tiny_model

from fewshot.generate.request import TokenScore
from fewshot.serve.completions import Call, Served, token_text
from fewshot.serve.schema import ApiError, parse_request
from fewshot.serve.worker import Piece
from fewshot.tokenizer.bytes import Bytes


def call(served: Served | None = None, **body: object) -> Call:
    served = served or Served(name="it", tokenizer=Bytes(), n_ctx=64, identity={})
    return Call(parse_request(json.dumps(body).encode()), served)


def test_tokens_that_are_no_characters_are_written_by_their_bytes_and_none_look_alike() -> None:
    names = [token_text(Bytes(), token) for token in range(257)]
    assert len(set(names)) == 257
    assert names[ord("a")] == "a"
    assert names[0xF0] == "bytes:\\xf0"
    tokenizer = tiny_model()[1]
    assert len({token_text(tokenizer, token) for token in range(tokenizer.n_vocab)}) == tokenizer.n_vocab


def test_candidates_of_a_prompt_differ_in_their_place_alone_and_prompts_share_it() -> None:
    made = call(prompt=["a", "bc"], n=2, best_of=3, seed=-5)
    assert [request.place for request in made.requests] == [0, 1, 2] * 2
    assert {request.seed for request in made.requests} == {-5}
    assert [len(request.prompt) for request in made.requests] == [1, 1, 1, 2, 2, 2]


def test_a_seed_that_is_not_given_is_another_each_time() -> None:
    assert len({call(prompt="a").seed for _ in range(20)}) == 20


def test_prompt_and_max_tokens_may_fill_the_context_exactly() -> None:
    assert call(prompt="a" * 60, max_tokens=4).requests[0].max_tokens == 4
    with pytest.raises(ApiError, match=r"60 tokens and max_tokens is 5: together they must not exceed .* 64"):
        call(prompt="a" * 60, max_tokens=5)


def test_a_key_of_a_user_is_that_of_his_requests() -> None:
    body = parse_request(b'{"prompt": "a"}')
    served = Served(name="it", tokenizer=Bytes(), n_ctx=64, identity={})
    assert [Call(body, served, key=key).requests[0].key for key in ("mine", "")] == ["mine", ""]


def test_the_mean_of_a_candidate_is_of_what_it_wrote_though_the_prompt_is_echoed_and_a_stop_was_cut_off() -> None:
    choice = call(prompt="abc", echo=True, logprobs=0, n=1, best_of=2).choices[0]
    prompt = (TokenScore(-50.0), TokenScore(-50.0))
    written = {"tokens": (100,), "scores": (TokenScore(-1.0),), "text": "d", "finish_reason": "stop"}
    choice.add(Piece(**written, n_written=3, n_cached=0, prompt_scores=prompt))  # two of three belong to a stop string
    assert choice.mean_logprob == -1.0
