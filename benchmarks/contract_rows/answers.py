"""Prompts, what every answer has, max_tokens, echo and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import openai
from contract_rows.side import N_TOKENS, PROMPTS, Miss, Rows, Side, same

ROWS = Rows()
NULLABLE = (
    "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed",
    "stop", "stream", "stream_options", "suffix", "temperature", "top_p",
)  # fmt: skip
CLOSE = 0.02  # nats: a peer may hold its keys and values in half precision


def close(actual: float | None, expected: float) -> None:
    if actual is None or not abs(actual - expected) < CLOSE:
        raise Miss("wrong", f"log-probability {actual}, not {expected:.4f}")


def told(choice: Any) -> Any:
    """Return a choice's log-probabilities, whose shape is checked."""
    logprobs = choice.logprobs
    if logprobs is None:
        raise Miss("ignored", "no logprobs")
    lists = [getattr(logprobs, name, None) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
    if not all(isinstance(part, list) and len(part) == len(lists[0]) for part in lists):
        raise Miss("wrong", f"logprobs have another shape: {sorted(logprobs.model_dump(exclude_none=True))}")
    return logprobs


# --- the prompt, and what every answer has


@ROWS.row("prompt", "a text", "its continuation")
def _(side: Side) -> None:
    same(side.greedy().text, side.texts[0])


@ROWS.row("prompt", "a list of one text", "its continuation")
def _(side: Side) -> None:
    same(side.greedy(prompt=[PROMPTS[0]]).text, side.texts[0])


@ROWS.row("prompt", "tokens", "their continuation")
def _(side: Side) -> None:
    same(side.greedy(prompt=side.ids[0]).text, side.texts[0])


@ROWS.row("prompt", "a list of tokens", "their continuation")
def _(side: Side) -> None:
    same(side.greedy(prompt=[side.ids[0]]).text, side.texts[0])


@ROWS.row("prompt", "two texts", "a choice for each, in their order")
def _(side: Side) -> None:
    choices = side.choices(2, prompt=list(PROMPTS), temperature=0, max_tokens=N_TOKENS)
    same([choice.text for choice in choices], side.texts)


@ROWS.row("prompt", "two lists of tokens", "a choice for each, in their order")
def _(side: Side) -> None:
    choices = side.choices(2, prompt=side.ids, temperature=0, max_tokens=N_TOKENS)
    same([choice.text for choice in choices], side.texts)


@ROWS.row("prompt", "null", "the beginning of a new document, as behind <|endoftext|>")
def _(side: Side) -> None:
    same(side.greedy(prompt=None).text, side.expected([side.truth.eot]))


@ROWS.row("object", "", "`text_completion`, with an id, a time and the model's name")
def _(side: Side) -> None:
    answer = side.ask(max_tokens=1)
    same((answer.object, answer.model), ("text_completion", side.model))
    if not answer.id or not isinstance(answer.created, int):
        raise Miss("wrong", f"id {answer.id!r}, created {answer.created!r}")


@ROWS.row("usage", "", "the tokens of the prompt, of the completion, and their sum")
def _(side: Side) -> None:
    usage, n = side.ask(max_tokens=5, temperature=0).usage, len(side.ids[0])
    same((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (n, 5, n + 5))


@ROWS.row("usage", "two prompts, n 2", "all prompts and all choices are counted")
def _(side: Side) -> None:
    usage = side.ask(prompt=list(PROMPTS), n=2, max_tokens=5, seed=1).usage
    same((usage.prompt_tokens, usage.completion_tokens), (sum(map(len, side.ids)), 20))


@ROWS.row("model", "another name", "404")
def _(side: Side) -> None:
    try:
        side.ask(model="another-model", max_tokens=1)
    except openai.NotFoundError:
        return
    except openai.APIStatusError as error:
        raise Miss("wrong", f"{error.status_code}, not 404") from None
    raise Miss("ignored", "an answer")


@ROWS.row("user", "a text", "an answer")
def _(side: Side) -> None:
    same(side.greedy(user="someone").text, side.texts[0])


@ROWS.row("every field that may be null", "null", "as if it were absent")
def _(side: Side) -> None:
    wrong = []
    for name in NULLABLE:
        try:
            text = side.choices(**{"temperature": 0, "max_tokens": 4, name: None})[0].text
        except (openai.APIError, Miss):
            wrong.append(name)
            continue
        if name not in ("temperature", "max_tokens") and not side.texts[0].startswith(text):
            wrong.append(name)
    if wrong:
        raise Miss("refused", f"not taken as absent: {', '.join(wrong)}")


@ROWS.row("error", "", "an object with `message`, `type`, `param` and `code`")
def _(side: Side) -> None:
    try:
        side.ask(prompt=3)
    except openai.APIStatusError as error:
        body = error.body
        if not isinstance(body, dict) or not {"message", "type", "param", "code"} <= body.keys():
            raise Miss("wrong", f"{error.status_code}: {body}") from None
        return
    raise Miss("ignored", "an answer")


# --- max_tokens, echo, logprobs


@ROWS.row("max_tokens", "absent", "16 tokens")
def _(side: Side) -> None:
    same(side.ask(temperature=0).usage.completion_tokens, 16)


@ROWS.row("max_tokens", "3", "3 tokens, and finish_reason `length`")
def _(side: Side) -> None:
    choice = side.greedy(3)
    same((choice.text, choice.finish_reason), (side.truth.decode(side.written[0][:3]), "length"))


@ROWS.row("max_tokens", "all that the context has room for", "an answer")
def _(side: Side) -> None:
    n = side.truth.n_ctx - len(side.ids[0])
    answer = side.ask(temperature=0, max_tokens=n, logit_bias={str(side.truth.eot): -100})
    same(answer.usage.completion_tokens, n)


@ROWS.row("max_tokens", "0, with echo", "the prompt alone")
def _(side: Side) -> None:
    answer = side.ask(max_tokens=0, echo=True)
    same((answer.choices[0].text, answer.usage.completion_tokens), (PROMPTS[0], 0))


@ROWS.row("max_tokens", "0, with echo and logprobs", "the log-probabilities of the prompt")
def _(side: Side) -> None:
    echoed(side, side.choices(max_tokens=0, echo=True, logprobs=1)[0], side.ids[0], 1)


@ROWS.row("echo", "true", "the prompt before the completion")
def _(side: Side) -> None:
    same(side.greedy(echo=True).text, PROMPTS[0] + side.texts[0], side.texts[0])


@ROWS.row("echo", "true, the prompt in tokens", "the prompt's text before the completion")
def _(side: Side) -> None:
    same(side.greedy(prompt=side.ids[0], echo=True).text, PROMPTS[0] + side.texts[0], side.texts[0])


@ROWS.row("echo", "true, two prompts", "each before its own completion")
def _(side: Side) -> None:
    choices = side.choices(2, prompt=list(PROMPTS), temperature=0, max_tokens=N_TOKENS, echo=True)
    expected = [prompt + text for prompt, text in zip(PROMPTS, side.texts, strict=True)]
    same([choice.text for choice in choices], expected, side.texts)


def echoed(side: Side, choice: Any, ids: Sequence[int], n_top: int) -> None:
    """Check the log-probabilities of a prompt and what follows it: null for the first token, then the model's own."""
    logprobs = told(choice)
    same(len(logprobs.tokens), len(ids))
    same((logprobs.token_logprobs[0], logprobs.top_logprobs[0]), (None, None))
    expected = side.truth.logprobs(ids)
    for at in range(1, len(ids)):
        close(logprobs.token_logprobs[at], float(expected[at - 1, ids[at]]))
        same(n_top <= len(logprobs.top_logprobs[at] or {}) <= n_top + 1, True)
        close(max(logprobs.top_logprobs[at].values()), float(expected[at - 1].max()))


@ROWS.row("echo", "true, with logprobs 2", "log-probabilities of prompt and completion, null for the first token")
def _(side: Side) -> None:
    echoed(side, side.greedy(echo=True, logprobs=2), side.ids[0] + side.written[0], 2)


def sliced(choice: Any, start: int) -> None:
    """Check that offsets cut the text, which begins at `start` or at 0, into the tokens."""
    logprobs = told(choice)
    offsets = [offset - logprobs.text_offset[0] for offset in logprobs.text_offset]
    same(logprobs.text_offset[0] in (0, start), True)
    for token, begin, end in zip(logprobs.tokens, offsets, [*offsets[1:], len(choice.text)], strict=True):
        same(choice.text[begin:end], token)


@ROWS.row("echo", "true, with logprobs 0", "text_offset cuts the text into the tokens")
def _(side: Side) -> None:
    sliced(side.greedy(echo=True, logprobs=0), 0)


@ROWS.row("logprobs", "null", "no log-probabilities")
def _(side: Side) -> None:
    same(side.greedy(logprobs=None).logprobs, None)


@ROWS.row("logprobs", "2", "text_offset cuts the text into the tokens")
def _(side: Side) -> None:
    sliced(side.greedy(logprobs=2), len(PROMPTS[0]))


def likeliest(n_top: int, side: Side) -> None:
    logprobs, ids = told(side.greedy(logprobs=n_top)), side.ids[0] + side.written[0]
    same(len(logprobs.tokens), N_TOKENS)
    expected = side.truth.logprobs(ids)[len(side.ids[0]) - 1 : -1]
    for at, token in enumerate(side.written[0]):
        close(logprobs.token_logprobs[at], float(expected[at, token]))
        values = sorted((logprobs.top_logprobs[at] or {}).values(), reverse=True)
        same(n_top <= len(values) <= n_top + 1, True)
        for value, best in zip(values, expected[at].topk(len(values)).values.tolist(), strict=True):
            close(value, best)


for n_top in (0, 1, 5):
    ROWS.row("logprobs", str(n_top), "the model's own for the chosen token and that many of the likeliest")(
        partial(likeliest, n_top)
    )


@ROWS.row("logprobs", "1, drawn", "the chosen token's own too, where it is not the likeliest")
def _(side: Side) -> None:
    logprobs = told(side.choices(max_tokens=N_TOKENS, logprobs=1, seed=1)[0])
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        same((top or {}).get(token), value)
