"""Streams, joined and beside the whole answer; and suffix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai
from contract_rows.answers import told
from contract_rows.side import N_TOKENS, PROMPTS, Miss, Rows, Side, named, same

ROWS = Rows()
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def joined(chunks: Sequence[Any], index: int = 0) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == index)


@ROWS.row("stream", "true", "joined it is the whole text")
def _(side: Side) -> None:
    same(joined(side.ask(temperature=0, max_tokens=N_TOKENS, stream=True)), side.texts[0])


@ROWS.row("stream", "true, drawn with a seed", "joined it is the text of the same seed")
def _(side: Side) -> None:
    chunks = side.ask(seed=5, max_tokens=N_TOKENS, stream=True)
    same(joined(chunks), side.draw(seed=5))


@ROWS.row("stream", "true, n 2, drawn with a seed", "joined they are the two texts of the same seed")
def _(side: Side) -> None:
    chunks = side.ask(seed=5, n=2, max_tokens=N_TOKENS, stream=True)
    same([joined(chunks, i) for i in range(2)], [c.text for c in side.choices(2, n=2, seed=5, max_tokens=N_TOKENS)])


@ROWS.row("stream", "true, two prompts", "pieces of both, by index")
def _(side: Side) -> None:
    chunks = side.ask(prompt=list(PROMPTS), temperature=0, max_tokens=N_TOKENS, stream=True)
    same([joined(chunks, i) for i in range(2)], side.texts)


@ROWS.row("stream", "true, with echo", "the prompt first")
def _(side: Side) -> None:
    chunks = side.ask(temperature=0, max_tokens=N_TOKENS, echo=True, stream=True)
    same(joined(chunks), PROMPTS[0] + side.texts[0], side.texts[0])


@ROWS.row("stream", "true, with logprobs 2", "joined they are those of the whole answer")
def _(side: Side) -> None:
    parts = [
        told(choice)
        for chunk in side.ask(temperature=0, max_tokens=N_TOKENS, logprobs=2, stream=True)
        for choice in chunk.choices
        if choice.text
    ]
    whole = told(side.greedy(logprobs=2))
    for name in ("tokens", "text_offset"):
        same([value for part in parts for value in getattr(part, name)], getattr(whole, name))
    same(sum(len(part.top_logprobs) for part in parts), N_TOKENS)


@ROWS.row("stream", "true", "finish_reason in the last piece alone")
def _(side: Side) -> None:
    chunks = side.ask(temperature=0, max_tokens=N_TOKENS, stream=True)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    same(reasons[-1:] == ["length"] and not any(reasons[:-1]), True)


@ROWS.row("stream", "true, with a stop across two tokens", "no part of the stop is sent, and finish_reason `stop`")
def _(side: Side) -> None:
    stop = side.stops(across=True)[0]
    chunks = side.ask(temperature=0, max_tokens=N_TOKENS, stop=stop, stream=True)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    same((joined(chunks), reasons), (side.texts[0][: side.texts[0].index(stop)], ["stop"]))


@ROWS.row("stream_options", "include_usage true", "one more chunk, with usage and no choices")
def _(side: Side) -> None:
    how = {"temperature": 0, "max_tokens": N_TOKENS, "stream": True}
    *_, last = side.ask(**how, stream_options={"include_usage": True})
    if last.usage is None:
        raise Miss("ignored", "no usage")
    same((last.choices, last.usage.completion_tokens), ([], N_TOKENS))


@ROWS.row("stream_options", "include_usage false", "no usage")
def _(side: Side) -> None:
    how = {"temperature": 0, "max_tokens": N_TOKENS, "stream": True}
    same([chunk.usage for chunk in side.ask(**how, stream_options={"include_usage": False}) if chunk.usage], [])


@ROWS.row("suffix", "a text", "another completion than without, or an error that names it")
def _(side: Side) -> None:
    try:
        text = side.greedy(suffix=" and so it ended.").text
    except openai.APIStatusError as error:
        named(error, "suffix")
        return
    if text == side.texts[0]:
        raise Miss("ignored", "the same text")
