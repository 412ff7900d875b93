"""What is needed to make a completion again, and whether it comes out with the same bits.

A receipt is part of the answer: what the bits depend on, the request with its seed and its prompts as tokens, and the
tokens of every choice with their log-probabilities. In: an answered call. Out: a value that JSON holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_json
from fewshot.generate.complete import engine_for
from fewshot.model.packed import PackedGPT
from fewshot.serve.completions import Call, Served, token_text
from fewshot.serve.schema import STRICT, ApiError, parse_request
from fewshot.serve.worker import piece_of
from fewshot.tokenizer.vocab import Tokenizer

VERSION = 1
NOT_OF_THE_TEXT = {"receipt", "stream", "stream_options", "model", "user"}  # fields that change no token


class ReceiptChoice(BaseModel):
    """One choice: the tokens that were shown, and the model's own log-probability of each, in nats."""

    model_config = STRICT
    tokens: list[Annotated[int, Field(ge=0)]]
    logprobs: list[float | None]  # None where none was computed: of an echoed prompt's first token
    n_written: Annotated[int, Field(ge=0)]  # with those of a stop string and the end of the text
    finish_reason: str | None


class Receipt(BaseModel):
    """A receipt as it stands in a file."""

    model_config = STRICT
    version: int
    id: str
    created: int
    model: str
    identity: dict[str, str]
    request: dict[str, Any]
    n_hidden: list[Annotated[int, Field(ge=0, le=1)]]  # of each prompt, the tokens that only begin a fresh document
    choices: list[ReceiptChoice]


def receipt_of(call: Call) -> dict[str, Any]:
    """Return the receipt of a call whose choices have ended."""
    request = call.body.model_dump(exclude_none=True, exclude=NOT_OF_THE_TEXT)
    return {
        "version": VERSION,
        "id": call.id,
        "created": call.created,
        "model": call.served.name,
        "identity": dict(call.served.identity),
        "request": {**request, "prompt": [list(prompt.tokens) for prompt in call.prompts], "seed": call.seed},
        "n_hidden": [prompt.n_hidden for prompt in call.prompts],
        "choices": [
            {
                "tokens": choice.tokens,
                "logprobs": [None if score is None else score.logprob for score in choice.scores],
                "n_written": choice.n_written,
                "finish_reason": choice.finish_reason,
            }
            for choice in call.kept()
        ],
    }


def read_receipt(path: Path) -> Receipt:
    """Return the receipt in a file, which may be the whole answer that holds it; raises BadFile."""
    value = read_json(path)
    if isinstance(value, dict) and "receipt" in value:
        value = value["receipt"]
    if not isinstance(value, dict) or "identity" not in value:
        raise BadFile(f'{path} is no receipt, nor an answer that holds one: ask for it with "receipt": true')
    try:
        receipt = Receipt.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise BadFile(f"{path} is no receipt: {place or 'the file'}: {fault['msg']}") from None
    if "seed" not in receipt.request:
        raise BadFile(f"{path} is no receipt: its request has no seed")
    if receipt.version != VERSION:
        raise BadFile(f"{path}: a receipt of version {receipt.version}; this program reads version {VERSION}")
    return receipt


def replay(receipt: Receipt, model: PackedGPT, served: Served) -> Iterator[str]:
    """Make the completions again; yield a line for every choice that has other bits: at which token it parts.

    Raises BadValue if the request cannot be made with this model.
    """
    try:
        call = Call(parse_request(json.dumps(receipt.request).encode()), served, n_hidden=receipt.n_hidden)
    except (ApiError, ValueError) as error:
        raise BadValue(f"the receipt's request: {error}") from None
    engine = engine_for(model, served.tokenizer, call.requests, n_rows=16)
    numbers = {engine.submit(request): place for place, request in enumerate(call.requests)}
    while engine.busy:
        for number, state in engine.step():
            if state.error is not None:
                raise state.error
            call.choices[numbers[number]].add(piece_of(state))
    again = [ReceiptChoice.model_validate(choice) for choice in receipt_of(call)["choices"]]
    if len(again) != len(receipt.choices):
        yield f"the receipt has {len(receipt.choices)} choices, its request gives {len(again)}"
    for index, (told, made) in enumerate(zip(receipt.choices, again, strict=False)):
        difference = _difference(told, made, served.tokenizer)
        if difference is not None:
            yield f"choice {index} {difference}"


def _difference(told: ReceiptChoice, made: ReceiptChoice, tokenizer: Tokenizer) -> str | None:
    """Return where two choices part; None if they are the same, to the last bit."""

    def named(choice: ReceiptChoice, at: int) -> str:
        if at >= min(len(choice.tokens), len(choice.logprobs)):
            return "its end"
        token, logprob = choice.tokens[at], choice.logprobs[at]
        text = repr(token_text(tokenizer, token)) if token < tokenizer.n_vocab else "which is not in the vocabulary"
        return f"token {token} ({text}, log-probability {logprob})"

    pairs = [list(zip_longest(choice.tokens, choice.logprobs)) for choice in (told, made)]
    for at, (of_told, of_made) in enumerate(zip_longest(*pairs)):
        if of_told != of_made:
            return f"parts at token {at}: the receipt has {named(told, at)}, here it is {named(made, at)}"
    if (told.n_written, told.finish_reason) != (made.n_written, made.finish_reason):
        return (
            f"ends otherwise: the receipt has {told.n_written} tokens written and {told.finish_reason}, "
            f"here it is {made.n_written} and {made.finish_reason}"
        )
    return None
