"""Every field of a completion request, with OpenAI's own client: honoured or refused, none accepted and ignored."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import openai
import pytest
import torch
from serving import N_CTX, Server

from fewshot.generate.complete import complete
from fewshot.generate.sampling import Sampling
from fewshot.serve.completions import token_text

EXTRA = ("top_k", "logprob_token_ids", "return_token_ids", "receipt", "unknown_field")


CREATE = {}  # of the client that a test runs with


@pytest.fixture(autouse=True, params=["sync", "async"])
def client_kind(request: pytest.FixtureRequest) -> None:
    """Every test runs with both of OpenAI's clients."""
    CREATE["now"] = create_sync if request.param == "sync" else create_async


def create_sync(server: Server, **fields: Any) -> Any:
    answer = server.client.completions.create(**fields)
    return list(answer) if fields.get("stream") else answer


def create_async(server: Server, **fields: Any) -> Any:
    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            answer = await client.completions.create(**fields)
            return [chunk async for chunk in answer] if fields.get("stream") else answer

    return asyncio.run(run())


def create(server: Server, prompt: Any = "the cat", model: str = "tiny", **fields: Any) -> Any:
    return CREATE["now"](server, model=model, prompt=prompt, **fields)


def ask(server: Server, prompt: Any = "the cat", **fields: Any) -> Any:
    extra = {name: fields.pop(name) for name in list(fields) if name in EXTRA}
    return create(server, prompt, extra_body=extra or None, **fields)


def joined(chunks: Any, index: int = 0) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == index)


# --- what is refused: the field, and what the error names

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "3"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": N_CTX}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 1.0}, "n"),
    ({"best_of": 0}, "best_of"),
    ({"best_of": 1, "n": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"other": True}}, "stream_options.other"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"echo": 1}, "echo"),
    ({"stop": ""}, None),
    ({"stop": ["a", ""]}, None),
    ({"stop": []}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": 3}, "stop"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"presence_penalty": -2.1}, "presence_penalty"),
    ({"frequency_penalty": 2.1}, "frequency_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"5": -101}}, "logit_bias"),
    ({"logit_bias": {"300": 1}}, None),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"1" * 5000: 1}}, "logit_bias"),
    ({"suffix": "end"}, "suffix"),
    ({"suffix": ""}, "suffix"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"user": 3}, "user"),
    ({"top_k": 0}, "top_k"),
    ({"logprob_token_ids": [300]}, None),
    ({"logprob_token_ids": []}, "logprob_token_ids"),
    ({"return_token_ids": 1}, "return_token_ids"),
    ({"receipt": "yes"}, "receipt"),
    ({"unknown_field": 1}, "unknown_field"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [[1], []]}, "prompt"),
    ({"prompt": [300]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[1], [300]]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": 3}, "prompt"),
    ({"prompt": ["a"] * 257}, "prompt"),
    ({"prompt": "the cat " * 60}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_not_allowed_is_an_error_that_names_its_field(
    server: Server, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, **fields)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert 0 < len(caught.value.body["message"]) < 400
    assert "\n" not in caught.value.body["message"]
    assert server.worker.n_open == 0


def test_a_model_that_is_not_served_is_not_found(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-9' does not exist; there is 'tiny'"):
        create(server, "a", model="gpt-9")
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("gpt-9")
    assert server.client.models.retrieve("tiny").id == "tiny"
    assert [model.id for model in server.client.models.list()] == ["tiny"]


# --- defaults: null and absent are the same

DEFAULTS: list[tuple[str, Any]] = [
    ("max_tokens", 16), ("temperature", 1), ("top_p", 1), ("n", 1), ("best_of", 1), ("stream", False),
    ("stream_options", None), ("logprobs", None), ("echo", False), ("stop", None), ("presence_penalty", 0),
    ("frequency_penalty", 0), ("logit_bias", {}), ("suffix", None), ("user", "someone"), ("top_k", 300),
    ("return_token_ids", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), DEFAULTS, ids=str)
def test_null_absent_and_the_default_are_the_same(server: Server, name: str, value: Any) -> None:
    absent = ask(server, seed=3)
    for same in (None, value):
        answer = create(server, seed=3, extra_body={name: same})
        assert answer.choices == absent.choices
        assert answer.usage.completion_tokens == absent.usage.completion_tokens


@pytest.mark.parametrize("prompt", [None, "", [""]])
def test_without_a_prompt_a_fresh_document_begins(server: Server, prompt: Any) -> None:
    answer = create(server, prompt, seed=1, logprobs=0, echo=True)
    fresh = ask(server, [server.tokenizer.eot], seed=1, logprobs=0)
    assert answer.choices[0].text == fresh.choices[0].text
    assert answer.usage.prompt_tokens == 1
    assert answer.choices[0].logprobs.text_offset[0] == 0
    assert answer.choices[0].logprobs.token_logprobs == fresh.choices[0].logprobs.token_logprobs


# --- what is honoured


def test_prompts_may_be_texts_or_tokens_one_or_many(server: Server) -> None:
    tokens = server.tokenizer.encode("the cat")
    expected = ask(server, "the cat", seed=5).choices[0].text
    for prompt in ("the cat", ["the cat"], tokens, [tokens]):
        assert ask(server, prompt, seed=5).choices[0].text == expected
    many = ask(server, ["a dog", "the cat"], n=2, seed=5)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[2].text == expected
    assert many.choices[3].text == ask(server, "the cat", n=2, seed=5).choices[1].text != expected
    assert many.usage.prompt_tokens == len(tokens) + len(server.tokenizer.encode("a dog"))


@pytest.mark.parametrize("fields", [{}, {"temperature": 0}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}], ids=str)
def test_sampling_is_that_of_complete(server: Server, fields: dict[str, Any]) -> None:
    answer = ask(server, seed=9, n=2, **fields)
    sampling = Sampling(**({"temperature": 1.0} | fields))
    prompt = server.tokenizer.encode("the cat")
    done = complete(server.model, server.tokenizer, [prompt, prompt], max_tokens=16, sampling=sampling, seed=9)
    assert [choice.text for choice in answer.choices] == [completion.text for completion in done]
    assert [choice.finish_reason for choice in answer.choices] == [completion.finish_reason for completion in done]


def test_top_p_0_and_a_tiny_temperature_are_greedy(server: Server) -> None:
    greedy = ask(server, temperature=0).choices[0].text
    assert ask(server, top_p=0, seed=4).choices[0].text == greedy
    assert ask(server, temperature=1e-300, seed=4).choices[0].text == greedy


def test_a_seed_makes_the_same_text_and_one_that_is_not_given_is_told(server: Server) -> None:
    drawn = ask(server, n=3)
    assert len({choice.text for choice in drawn.choices}) > 1
    again = ask(server, n=3, seed=drawn.seed)
    assert again.choices == drawn.choices
    assert ask(server).choices[0].text != ask(server).choices[0].text
    assert drawn.system_fingerprint == again.system_fingerprint
    assert drawn.system_fingerprint.startswith("fs-")


def test_max_tokens_0_with_echo_returns_the_prompt_and_writes_nothing(server: Server) -> None:
    answer = ask(server, max_tokens=0, echo=True, logprobs=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("the cat", "length")
    assert answer.usage.completion_tokens == 0
    logprobs = answer.choices[0].logprobs
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    assert len(logprobs.tokens) == answer.usage.prompt_tokens


@pytest.mark.parametrize(("stream", "prompt_kind"), list(itertools.product([False, True], ["text", "tokens"])))
@torch.no_grad()
def test_echo_with_logprobs_scores_the_whole_text(server: Server, stream: bool, prompt_kind: str) -> None:
    tokens = server.tokenizer.encode("the cat 日本 sat")
    prompt = tokens if prompt_kind == "tokens" else "the cat 日本 sat"
    answer = ask(server, prompt, echo=True, logprobs=3, seed=2, stream=stream, return_token_ids=True)
    if stream:
        choices = [choice for chunk in answer for choice in chunk.choices]
        text = "".join(choice.text for choice in choices)
        parts = [choice.logprobs for choice in choices]
        ids = [token for choice in choices for token in choice.token_ids]
    else:
        text, parts, ids = answer.choices[0].text, [answer.choices[0].logprobs], answer.choices[0].token_ids
    assert ids[: len(tokens)] == tokens
    values = [value for part in parts for value in part.token_logprobs]
    tops = [top for part in parts for top in part.top_logprobs]
    offsets = [offset for part in parts for offset in part.text_offset]
    expected = server.model(torch.tensor([ids]))[0, :, : server.tokenizer.n_vocab].log_softmax(-1)
    assert values[0] is None
    for at in range(1, len(ids)):
        assert values[at] == pytest.approx(float(expected[at - 1, ids[at]]), abs=1e-4)
        assert 3 <= len(tops[at]) <= 4
        assert max(tops[at].values()) == pytest.approx(float(expected[at - 1].max()), abs=1e-4)
        assert values[at] in tops[at].values()
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    assert text.startswith("the cat 日本 sat")


def test_offsets_slice_the_text_to_its_tokens(server: Server) -> None:
    for seed in range(8):
        answer = ask(server, "the é 日本 cat", echo=True, logprobs=0, seed=seed, max_tokens=30)
        choice = answer.choices[0]
        ends = [*choice.logprobs.text_offset[1:], len(choice.text)]
        for token, start, end in zip(choice.logprobs.tokens, choice.logprobs.text_offset, ends, strict=True):
            if not token.startswith("bytes:"):
                assert choice.text[start:end] == token


def test_without_echo_offsets_count_from_the_beginning_of_the_prompt(server: Server) -> None:
    with_echo = ask(server, echo=True, logprobs=1, seed=2).choices[0].logprobs
    without = ask(server, logprobs=1, seed=2).choices[0].logprobs
    n = len(with_echo.tokens) - len(without.tokens)
    assert without.text_offset == with_echo.text_offset[n:]
    assert without.token_logprobs == with_echo.token_logprobs[n:]


@pytest.mark.parametrize("n_top", [0, 1, 5, 20])
def test_logprobs_tell_the_likeliest_and_the_chosen(server: Server, n_top: int) -> None:
    logprobs = ask(server, logprobs=n_top, seed=6).choices[0].logprobs
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert top[token] == value
        assert n_top <= len(top) <= n_top + 1 or (n_top == 0 and len(top) == 1)
    assert ask(server, seed=6).choices[0].logprobs is None


@torch.no_grad()
def test_the_ids_of_the_likeliest_tokens_are_told_by_their_texts(server: Server) -> None:
    logprobs = ask(server, logprobs=3, echo=True, seed=6, return_token_ids=True).choices[0].logprobs
    tokens = server.tokenizer.encode("the cat")
    expected = server.model(torch.tensor([tokens]))[0, :, : server.tokenizer.n_vocab].log_softmax(-1)
    assert logprobs.top_token_ids[0] is None
    for at, (texts, ids) in enumerate(zip(logprobs.top_logprobs, logprobs.top_token_ids, strict=True)):
        if texts is not None:
            assert list(texts) == list(ids)
            assert all(token_text(server.tokenizer, token) == text for text, token in ids.items())
            if at < len(tokens):
                assert list(ids.values())[:3] == expected[at - 1].topk(3).indices.tolist()
    assert not hasattr(ask(server, logprobs=3).choices[0].logprobs, "top_token_ids")


def test_log_probabilities_of_given_tokens_are_told_at_every_place(server: Server) -> None:
    answer = ask(server, seed=6, logprob_token_ids=[7, 2], max_tokens=4)
    given = answer.choices[0].logprobs.given_logprobs
    assert len(given) == len(answer.choices[0].logprobs.tokens)
    assert all(set(place) == {"7", "2"} for place in given)


def test_a_stop_ends_the_text_before_it_whole_and_streamed(server: Server) -> None:
    plain = ask(server, seed=11, max_tokens=30).choices[0].text
    stop = next(pair for pair in (plain[i : i + 2] for i in range(3, len(plain))) if pair.isascii())
    cut = ask(server, seed=11, max_tokens=30, stop=stop)
    assert cut.choices[0].text == plain[: plain.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    for stops in ([stop], ["never there", stop], [stop, *map(str, range(15))]):
        chunks = list(ask(server, seed=11, max_tokens=30, stop=stops, stream=True))
        text = joined(chunks)
        assert plain.startswith(text)
        assert not any(one_stop in text for one_stop in stops)


def test_penalties_and_biases_change_what_is_written(server: Server) -> None:
    plain = ask(server, temperature=0, max_tokens=30, return_token_ids=True)
    varied = ask(server, temperature=0, max_tokens=30, return_token_ids=True, frequency_penalty=2, presence_penalty=2)
    assert len(set(varied.choices[0].token_ids)) > len(set(plain.choices[0].token_ids))
    first = plain.choices[0].token_ids[0]
    banned = ask(server, temperature=0, max_tokens=30, return_token_ids=True, logit_bias={str(first): -100})
    assert first not in banned.choices[0].token_ids
    forced = ask(server, temperature=0, max_tokens=3, return_token_ids=True, logit_bias={"70": 100})
    assert forced.choices[0].token_ids == [70] * 3


def test_best_of_returns_the_likeliest_per_token_and_counts_all(server: Server) -> None:
    all_five = ask(server, n=5, seed=8, logprobs=0)
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens) for choice in all_five.choices]
    best = ask(server, n=2, best_of=5, seed=8)
    order = sorted(range(5), key=lambda i: -means[i])
    assert [choice.text for choice in best.choices] == [all_five.choices[i].text for i in order[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == all_five.usage.completion_tokens


# --- streams


@pytest.mark.parametrize(("n", "prompts", "echo"), list(itertools.product([1, 3], [1, 2], [False, True])))
def test_a_stream_joined_is_the_whole_answer(server: Server, n: int, prompts: int, echo: bool) -> None:
    prompt = ["the cat", "a dog é"][:prompts]
    whole = ask(server, prompt, n=n, seed=13, echo=echo, logprobs=2, max_tokens=20)
    chunks = list(ask(server, prompt, n=n, seed=13, echo=echo, logprobs=2, max_tokens=20, stream=True))
    for choice in whole.choices:
        own = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [value for part in own for value in getattr(part.logprobs, name)] == getattr(choice.logprobs, name)
        assert [part.finish_reason for part in own] == [None] * (len(own) - 1) + [choice.finish_reason]
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


def test_usage_is_one_more_chunk_only_when_asked_for(server: Server) -> None:
    whole = ask(server, seed=13)
    chunks = list(ask(server, seed=13, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    off = list(ask(server, seed=13, stream=True, stream_options={"include_usage": False}))
    assert joined(off) == whole.choices[0].text
    assert off[-1].choices


def test_what_was_read_before_is_counted_as_cached(server: Server) -> None:
    prompt = "the cat sat on the log. the dog"
    ask(server, prompt)
    again = ask(server, prompt)
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1


def test_the_asynchronous_client_gets_the_same(server: Server) -> None:
    async def run() -> tuple[Any, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            how: dict[str, Any] = {"model": "tiny", "prompt": "the cat", "seed": 21, "logprobs": 1}
            answers = await asyncio.gather(*(client.completions.create(**how) for _ in range(4)))
            text = ""
            async for chunk in await client.completions.create(**how, stream=True):
                text += chunk.choices[0].text
            return answers, text

    answers, text = asyncio.run(run())
    expected = ask(server, seed=21, logprobs=1).choices
    assert all(answer.choices == expected for answer in answers)
    assert text == expected[0].text
