from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from serving import tiny_model

from fewshot.generate.request import TokenScore
from fewshot.generate.stop import RequestState
from fewshot.serve.completions import Call, Served, token_text
from fewshot.serve.schema import ApiError, parse_request
from fewshot.serve.worker import Piece, piece_of
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.vocab import EOT, Tokenizer


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


# --- streams at random, against a reference that has the whole text before it


class AnyCut(Tokenizer):
    """Any one to three bytes are a token, whose id is their number behind a byte of 1."""

    n_vocab, eot = 2**25, 0

    def encode_to_numpy(self, text: str) -> np.ndarray:
        raise NotImplementedError

    def to_json(self) -> str:
        raise NotImplementedError

    def _join(self, ids: list[int]) -> bytes:
        return b"".join(token.to_bytes(4).lstrip(b"\0")[1:] if token else EOT.encode() for token in ids)


CHARACTERS = "aaab\né日😀\N{REPLACEMENT CHARACTER}"


def some_bytes(random: Random) -> bytes:
    """Characters of one to four bytes, some of them broken, and bytes of no character."""
    whole = [random.choice(CHARACTERS).encode() for _ in range(random.randint(1, 10))]
    return b"".join(random.choice([c, c, c, c, c[:-1], c[1:], random.randbytes(1)]) for c in whole)


def some_stops(text: str, random: Random) -> list[str]:
    """Parts of the text, over whichever tokens they lie, and others."""
    places = random.choices(range(len(text)), k=random.randrange(3)) if text else []
    others = ["".join(random.choices(CHARACTERS, k=random.randint(2, 3))) for _ in range(random.randrange(3))]
    return [*(text[at : at + random.randint(1, 4)] for at in places), *others]


def some_cut(data: bytes, random: Random) -> list[bytes]:
    pieces = []
    while data:
        n = random.randint(1, 3)
        pieces.append(data[:n])
        data = data[n:]
    return pieces


def ids(pieces: Sequence[bytes]) -> list[int]:
    return [int.from_bytes(b"\1" + piece) for piece in pieces]


def until_a_stop(data: bytes, stops: Sequence[str]) -> tuple[bytes, bool]:
    """What stands before the stop that is whole first, and whether there is one."""
    for end in range(len(data)):
        ended = [len(stop.encode()) for stop in stops if data[: end + 1].endswith(stop.encode())]
        if ended:
            return data[: end + 1 - max(ended)], True
    return data, False


def told_of(data: bytes, pieces: Sequence[bytes]) -> tuple[str, list[int], list[int]]:
    """A text, the tokens that begin in it, and in which of its characters each does."""
    starts = [start for start in itertools.accumulate(map(len, pieces), initial=0) if start < len(data)]
    places = [len(data[: start + 1].decode(errors="replace")) - 1 for start in starts]
    return data.decode(errors="replace"), ids(pieces[: len(starts)]), places


def test_joined_streams_are_the_whole_text_with_its_tokens_and_offsets_for_random_bytes_stops_and_cuts() -> None:
    random = Random(0)
    served = Served(name="it", tokenizer=AnyCut(), n_ctx=99, identity={})
    ends: Counter[tuple[str, bool]] = Counter()
    for _ in range(10_000):
        prompt, written = some_bytes(random) or b"a", some_bytes(random)
        prompt_cut, cut = some_cut(prompt, random), some_cut(written, random)
        tokens = [*ids(cut), AnyCut.eot] if not cut or random.random() < 0.5 else ids(cut)
        stops, echo = some_stops(written.decode(errors="replace"), random), random.random() < 0.5
        body = {"prompt": ids(prompt_cut), "max_tokens": len(tokens), "stop": stops or None, "echo": echo}
        streamed, whole = (call(served, **body, logprobs=0, return_token_ids=True) for _ in range(2))
        state, chunks = RequestState(streamed.requests[0], served.tokenizer), []
        for token in tokens:
            if not state.ended:
                state.add(token, TokenScore(-1.0))
                piece = piece_of(state)
                chunks += [chunk["choices"][0] for chunk in streamed.chunks(0, piece)]
                whole.choices[0].add(piece)

        kept, is_stopped = until_a_stop(written, stops)
        before, (text, told, places) = told_of(prompt, prompt_cut), told_of(kept, cut)
        places = [len(before[0]) + place for place in places]
        if echo:
            text, told, places = before[0] + text, before[1] + told, before[2] + places
        reason = "stop" if is_stopped or tokens[-1] == AnyCut.eot else "length"
        ends[reason, is_stopped] += 1
        case = (prompt_cut, cut, stops, echo)
        assert "".join(chunk["text"] for chunk in chunks) == text, case
        assert [token for chunk in chunks for token in chunk["token_ids"]] == told, case
        assert [place for chunk in chunks for place in chunk["logprobs"]["text_offset"]] == places, case
        assert [chunk["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + [reason], case
        (answer,) = whole.whole()["choices"]
        assert (answer["text"], answer["token_ids"], answer["finish_reason"]) == (text, told, reason), case
        assert answer["logprobs"]["text_offset"] == places, case
    assert len(ends) == 3
    assert min(ends.values()) > 1000
