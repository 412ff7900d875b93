from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.complete import complete, complete_requests, stream
from fewshot.generate.request import Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

Scripted = Callable[..., tuple[GPT, Tokenizer]]
WARM = Sampling(temperature=1.5)


def completed(scripted: Scripted, *script: bytes | None, **how: Any) -> Any:
    model, tokenizer = scripted(*script)
    return complete(model, tokenizer, [[0]], **({"max_tokens": 99} | how))[0]


def pieces(scripted: Scripted, *script: bytes | None, **how: Any) -> list[str]:
    model, tokenizer = scripted(*script)
    return list(stream(model, tokenizer, [0], **({"max_tokens": 99} | how)))


# --- where a completion ends


def test_a_completion_ends_at_max_tokens(scripted: Scripted) -> None:
    done = completed(scripted, b"ab", b"c", b"d", max_tokens=2)
    assert (done.text, done.tokens, done.finish_reason) == ("abc", (0, 1), "length")
    assert len(done.logprobs) == 2


def test_a_completion_ends_where_the_context_is_full(scripted: Scripted) -> None:
    done = completed(scripted, b"ab", b"c", b"d")
    assert (done.text, done.finish_reason) == ("abcd", "length")


def test_end_of_text_ends_it_and_is_no_text(scripted: Scripted) -> None:
    done = completed(scripted, b"ab", None, b"d")
    assert (done.text, done.tokens, done.finish_reason) == ("ab", (0, 2), "stop")
    assert pieces(scripted, b"ab", None, b"d") == ["ab"]


@pytest.mark.parametrize(
    ("script", "stop", "text", "n_tokens"),
    [
        ([b"He", b"llo", b" w", b"orld"], ["lo w"], "Hel", 3),  # over three tokens
        ([b"He", b"llo", b" w", b"orld"], ["llo"], "He", 2),  # one token
        ([b"He", b"llo\nQ: x", b"y"], ["\n"], "Hello", 2),  # inside one token
        ([b"a", b"xb", b"c"], ["c", "xb"], "a", 2),  # the one that comes first in the text
        ([b"a", b"bcd", b"e"], ["cd", "b"], "a", 2),  # two in one token: the earlier
        ([b"a", b"a", b"b", b"c"], ["aab"], "", 3),  # begins with the first token
        ([b"a", b"a", b"a", b"b"], ["aab"], "a", 4),  # a false start before it
        ([b"x\xc3", b"\xa9y", b"z"], ["é"], "x", 2),  # a character over two tokens
        ([b"ab", b"c", b"d"], ["never"], "abcd", 3),
    ],
)
def test_a_stop_string_ends_it_and_is_cut_off(
    scripted: Scripted, script: list[bytes], stop: list[str], text: str, n_tokens: int
) -> None:
    done = completed(scripted, *script, stop=stop)
    assert (done.text, len(done.tokens)) == (text, n_tokens)
    assert done.finish_reason == ("length" if stop == ["never"] else "stop")
    assert "".join(pieces(scripted, *script, stop=stop)) == text


def test_a_stop_string_with_the_last_allowed_token_counts_as_stop(scripted: Scripted) -> None:
    assert completed(scripted, b"a", b"b", b"c", stop=["b"], max_tokens=2).finish_reason == "stop"


def test_a_stop_string_that_begins_in_the_prompt_ends_nothing(scripted: Scripted) -> None:
    done = completed(scripted, b"a", b"b", b"c", stop=["aa"])  # the prompt is "a" too
    assert (done.text, done.finish_reason) == ("abc", "length")


# --- streaming


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_clear(scripted: Scripted) -> None:
    assert pieces(scripted, b"x", b"E", b"N", b"y", b"E", b"N", b"D", b"z", stop=["END"]) == ["x", "ENy"]
    assert pieces(scripted, b"x", b"E", b"N", stop=["END"]) == ["x", "EN"]  # the end comes first: it was text
    assert pieces(scripted, b"x", b"E", b"N", stop=["QQ"]) == ["x", "E", "N"]


def test_characters_over_several_tokens_are_shown_whole(scripted: Scripted) -> None:
    emoji = "😀".encode()
    script = [b"a\xc3", b"\xa9", emoji[:1], emoji[1:3], emoji[3:] + b"b"]
    assert pieces(scripted, *script) == ["a", "é", "😀b"]


def test_a_character_that_never_comes_whole_is_marked_once(scripted: Scripted) -> None:
    assert pieces(scripted, b"a", b"\xf0\x9f") == ["a", "\N{REPLACEMENT CHARACTER}"]
    assert completed(scripted, b"a", b"\xf0\x9f").text == "a\N{REPLACEMENT CHARACTER}"


def test_a_stream_gives_what_complete_gives_when_sampling(random_model: GPT, letters: Tokenizer) -> None:
    for seed in range(5):
        how: dict[str, Any] = {"max_tokens": 40, "sampling": WARM, "seed": seed, "slide": True}
        whole = complete(random_model, letters, [[3, 1]], **how)[0]
        assert "".join(stream(random_model, letters, [3, 1], **how)) == whole.text


def test_a_stream_begins_before_the_text_is_complete(random_model: GPT, letters: Tokenizer) -> None:
    first = next(stream(random_model, letters, [3], max_tokens=10**9, slide=True))
    assert len(first) == 1


# --- many prompts


PROMPTS = [[1, 2, 3], [4], [5, 6, 7], [8], [9, 10, 11], [1, 2, 3], list(range(12))]


def texts(model: GPT, tokenizer: Tokenizer, prompts: list[list[int]], **how: Any) -> list[str]:
    how = {"max_tokens": 8, "sampling": WARM, "seed": 3} | how
    return [done.text for done in complete(model, tokenizer, prompts, **how)]


def test_the_same_seed_gives_the_same_text_and_another_seed_another(random_model: GPT, letters: Tokenizer) -> None:
    assert texts(random_model, letters, PROMPTS) == texts(random_model, letters, PROMPTS)
    assert texts(random_model, letters, PROMPTS) != texts(random_model, letters, PROMPTS, seed=4)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_text_does_not_depend_on_the_batch_size(random_model: GPT, letters: Tokenizer, batch_size: int) -> None:
    assert texts(random_model, letters, PROMPTS, batch_size=batch_size) == texts(random_model, letters, PROMPTS)


def test_the_text_does_not_depend_on_the_neighbours(random_model: GPT, letters: Tokenizer) -> None:
    before = texts(random_model, letters, PROMPTS)
    after = texts(random_model, letters, [[12, 13, 14], *PROMPTS[1:4], [15] * 3, *PROMPTS[5:]])
    assert [after[i] for i in (1, 2, 3, 5, 6)] == [before[i] for i in (1, 2, 3, 5, 6)]
    assert after[0] != before[0]


def test_equal_prompts_are_sampled_apart(random_model: GPT, letters: Tokenizer) -> None:
    assert len(set(texts(random_model, letters, [[1, 2, 3]] * 5))) == 5


def test_completions_come_in_the_order_of_their_prompts(random_model: GPT, letters: Tokenizer) -> None:
    greedy: dict[str, Any] = {"sampling": Sampling(temperature=0.0), "max_tokens": 1}
    expected = [int(random_model(torch.tensor([prompt]))[0, -1].argmax()) for prompt in PROMPTS]
    assert [done.tokens[0] for done in complete(random_model, letters, PROMPTS, **greedy)] == expected
    assert complete(random_model, letters, [], **greedy) == []


MIXED = [
    Request(prompt=[1, 2, 3], max_tokens=8, sampling=WARM, seed=3),
    Request(prompt=[4], max_tokens=5, stop=["a", "f"], seed=3),
    Request(prompt=[1, 2, 3], max_tokens=9, sampling=Sampling(temperature=0.9, top_k=4), seed=3, place=1),
    Request(prompt=[5, 6], max_tokens=7, sampling=Sampling(top_p=0.8), seed=4),
    Request(prompt=[1, 2, 3], max_tokens=8, sampling=GREEDY),
]


@pytest.mark.parametrize("slide", [True, False])
def test_requests_of_one_batch_have_settings_of_their_own_and_each_is_as_if_alone(
    random_model: GPT, letters: Tokenizer, slide: bool
) -> None:
    requests = [replace(request, slide=slide) for request in MIXED]
    together = complete_requests(random_model, letters, requests)
    for request, completion in zip(requests, together, strict=True):
        (alone,) = complete_requests(random_model, letters, [request])
        assert completion == alone
        how = {name: vars(request)[name] for name in ("max_tokens", "sampling", "stop", "seed", "place", "slide")}
        assert completion.text == "".join(stream(random_model, letters, request.prompt, **how))
    greedy = complete(random_model, letters, [[1, 2, 3]], max_tokens=8, slide=slide)[0]
    assert together[4].tokens == greedy.tokens


@pytest.mark.parametrize("n_first", [1, 4, 8])
def test_a_stopped_text_goes_on_as_if_it_had_not_been_stopped(
    random_model: GPT, letters: Tokenizer, n_first: int
) -> None:
    whole = Request(prompt=[1, 2, 3], max_tokens=9, sampling=WARM, seed=7, place=5)
    (expected,) = complete_requests(random_model, letters, [whole])
    (first,) = complete_requests(random_model, letters, [replace(whole, max_tokens=n_first)])
    rest = replace(whole, prompt=(*whole.prompt, *first.tokens), max_tokens=9 - n_first)
    (second,) = complete_requests(random_model, letters, [rest])
    assert (*first.tokens, *second.tokens) == expected.tokens


def test_rows_that_end_early_leave_the_others_alone(random_model: GPT, letters: Tokenizer) -> None:
    prompts = [[i, j] for i in range(5) for j in range(5)]
    together = complete(random_model, letters, prompts, max_tokens=10, stop=["a", "f"])
    for prompt, done in zip(prompts, together, strict=True):
        alone = complete(random_model, letters, [prompt], max_tokens=10, stop=["a", "f"])[0]
        assert (done.text, done.tokens, done.finish_reason) == (alone.text, alone.tokens, alone.finish_reason)
        assert done.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert {done.finish_reason for done in together} == {"stop", "length"}
    assert len({len(done.tokens) for done in together}) > 2


def test_beyond_the_context_it_goes_on_only_if_it_may_slide(random_model: GPT, letters: Tokenizer) -> None:
    how: dict[str, Any] = {"max_tokens": 50, "sampling": Sampling(temperature=0.3), "stop": []}
    stays, slides = (complete(random_model, letters, [[1, 2]], slide=slide, **how)[0] for slide in (False, True))
    assert slides.tokens[: len(stays.tokens)] == stays.tokens
    assert len(stays.tokens) == 11  # 12 positions: 2 of the prompt and 10; the last token is not read
    assert len(slides.tokens) == 50
    assert (stays.finish_reason, slides.finish_reason) == ("length", "length")


# --- what is refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, must be at least 1"),
        ({"stop": ["a", ""]}, "a stop string is empty; give at least one character"),
        ({"stop": "END"}, "stop is the text 'END'; give a list of texts"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_both(scripted: Scripted, changed: Any, message: str) -> None:
    for ask in (completed, pieces):
        with pytest.raises(BadValue) as caught:
            ask(scripted, b"a", **changed)
        assert str(caught.value) == message


def test_an_empty_batch_is_refused(scripted: Scripted) -> None:
    with pytest.raises(BadValue, match="batch_size is 0, must be at least 1"):
        completed(scripted, b"a", batch_size=0)


def test_a_prompt_that_does_not_fit_is_refused_by_both(random_model: GPT, letters: Tokenizer) -> None:
    for slide in (True, False):
        with pytest.raises(ContextTooLong, match="the prompt has 13 tokens, the model's context holds 12"):
            complete(random_model, letters, [[1] * 13], max_tokens=1, slide=slide)
        with pytest.raises(ContextTooLong):
            next(stream(random_model, letters, [1] * 13, max_tokens=1, slide=slide))
    with pytest.raises(BadValue, match="the prompt is empty"):
        complete(random_model, letters, [[1], []], max_tokens=1)
