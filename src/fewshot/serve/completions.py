"""From the body of a completion request to the engine's requests, and from its pieces to OpenAI's answers."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fewshot.base.errors import FewshotError
from fewshot.evaluate.task import Task
from fewshot.generate.request import Request, TokenScore
from fewshot.generate.sampling import Sampling
from fewshot.serve.fingerprint import fingerprint
from fewshot.serve.schema import MOST_CHOICES, ApiError, CompletionRequest, given
from fewshot.serve.worker import Piece
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Served:
    """The model that is served."""

    name: str
    tokenizer: Tokenizer
    n_ctx: int
    identity: Mapping[str, str]  # whatever may change a bit of an answer
    tasks: Mapping[str, Task] = field(default_factory=dict)  # of which prompts with demonstrations can be drawn

    @cached_property
    def fingerprint(self) -> str:
        """A name for the identity; every chunk of a stream tells it."""
        return fingerprint(self.identity)

    def check_name(self, name: str | None) -> None:
        """Raise `ApiError` for the name of another model; None is whatever is served."""
        if name not in (None, self.name):
            raise ApiError(f"the model {name!r} does not exist; there is {self.name!r}", status=404, param="model")

    def tokens_of(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the tokens of a prompt, none for an empty text; raises `ApiError` for unknown ones."""
        if not isinstance(prompt, str) and not prompt:
            raise ApiError("a prompt is an empty list of tokens; an empty text begins a fresh document", param="prompt")
        try:
            tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        except FewshotError as error:
            raise ApiError(str(error), param="prompt") from None
        wrong = next((token for token in tokens if not 0 <= token < self.tokenizer.n_vocab), None)
        if wrong is not None:
            known = f"0 to {self.tokenizer.n_vocab - 1:,}"
            raise ApiError(f"token {wrong} of the prompt is not in the vocabulary: {known}", param="prompt")
        return tokens


@dataclass(frozen=True)
class _Prompt:
    """One prompt: what the model reads, and what of it the client gave, which is what `echo` returns."""

    tokens: tuple[int, ...]
    n_hidden: int  # tokens at its beginning that only start a fresh document

    @property
    def shown(self) -> tuple[int, ...]:
        return self.tokens[self.n_hidden :]


class Call:
    """One call of the API: `requests` go to the engine, candidate after candidate of prompt after prompt."""

    def __init__(self, body: CompletionRequest, served: Served, *, key: str = "", n_hidden: Sequence[int] = ()) -> None:
        self.body, self.served, self.tokenizer = body, served, served.tokenizer
        self.n, self.best_of = given(body.n, 1), given(body.best_of, given(body.n, 1))
        self.seed = secrets.randbelow(2**53) if body.seed is None else body.seed
        self.id, self.created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
        self.prompts = _prompts(body, served)
        if n_hidden:  # as in a receipt, which tells all prompts by their tokens
            self.prompts = [replace(prompt, n_hidden=n) for prompt, n in zip(self.prompts, n_hidden, strict=True)]
        if len(self.prompts) * self.best_of > MOST_CHOICES:
            raise ApiError(
                f"{len(self.prompts)} prompts with {self.best_of} candidates each are "
                f"{len(self.prompts) * self.best_of}, at most {MOST_CHOICES} are allowed"
            )
        max_tokens = given(body.max_tokens, 16)
        for prompt in self.prompts:
            if len(prompt.tokens) + max_tokens > served.n_ctx:
                raise ApiError(
                    f"the prompt has {len(prompt.tokens)} tokens and max_tokens is {max_tokens}: together they must "
                    f"not exceed the model's context of {served.n_ctx}",
                    param="prompt",
                )
        try:
            sampling = _sampling(body)
            self.requests = [
                Request(
                    prompt=prompt.tokens,
                    max_tokens=max_tokens,
                    sampling=sampling,
                    stop=[body.stop] if isinstance(body.stop, str) else given(body.stop, []),
                    top_logprobs=given(body.logprobs, 0),
                    logprob_tokens=given(body.logprob_token_ids, []),
                    prompt_logprobs=bool(body.echo) and (body.logprobs is not None or max_tokens == 0),
                    seed=self.seed,
                    place=place,
                    key=key,
                )
                for prompt in self.prompts
                for place in range(self.best_of)
            ]
        except FewshotError as error:
            raise ApiError(str(error)) from None
        self.choices = [
            _Choice(body, self.tokenizer, self.prompts[i // self.best_of]) for i in range(len(self.requests))
        ]

    @property
    def n_values(self) -> int:
        """Count the tokens and log-probabilities that the answer may have."""
        return sum(
            (request.max_tokens + (len(request.prompt) if self.body.echo else 0))
            * (2 + request.top_logprobs + len(request.logprob_tokens))
            for request in self.requests
        )

    def kept(self) -> list[_Choice]:
        """Return the choices that are told, once all have ended: of each prompt's candidates the `n` best."""
        kept: list[_Choice] = []
        for start in range(0, len(self.choices), self.best_of):
            candidates = self.choices[start : start + self.best_of]
            if self.best_of > self.n:
                candidates = sorted(candidates, key=lambda choice: -choice.mean_logprob)[: self.n]
            kept += candidates
        return kept

    def whole(self) -> dict[str, Any]:
        """Return the answer once all choices have ended."""
        choices = [{"index": i, **choice.whole()} for i, choice in enumerate(self.kept())]
        return {**self.head(), "choices": choices, "usage": self.usage()}

    def chunks(self, index: int, piece: Piece) -> Iterator[dict[str, Any]]:
        """Yield what a stream tells of a piece."""
        growth = self.choices[index].add(piece)
        if growth is not None:
            choice = {"index": index, **self.choices[index].told(growth)}
            with_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
            yield {**self.head(), "choices": [choice], **({"usage": None} if with_usage else {})}

    def last_chunk(self) -> dict[str, Any] | None:
        """Return what a stream tells in the end if usage was asked for."""
        if self.body.stream_options is None or not self.body.stream_options.include_usage:
            return None
        return {**self.head(), "choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        """Count tokens: prompts once each, all candidates."""
        read = sum(len(prompt.tokens) for prompt in self.prompts)
        written = sum(choice.n_written for choice in self.choices)
        cached = sum(choice.n_cached for choice in self.choices[:: self.best_of])
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def head(self) -> dict[str, Any]:
        """Return what every answer and every chunk of a stream begins with."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
            "seed": self.seed,
        }


_Growth = tuple[str, list[int], list["TokenScore | None"]]  # text, tokens, scores


@dataclass
class _Choice:
    """One completion as it grows. It does not know its call: cycles stay until Python looks for them."""

    body: CompletionRequest
    tokenizer: Tokenizer
    prompt: _Prompt
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore | None] = field(default_factory=list)
    finish_reason: str | None = None
    n_written: int = 0
    n_cached: int = 0
    _begun: bool = False

    def __post_init__(self) -> None:
        self._offsets = _Offsets(self.tokenizer, n_prompt=len(self.prompt.shown))
        if not self.body.echo:
            for token in self.prompt.shown:
                self._offsets.add(token)

    @property
    def mean_logprob(self) -> float:
        """Return the log-probability per token of what was written."""
        n_echoed = len(self.prompt.shown) if self.body.echo else 0
        own = [score.logprob for score in self.scores[n_echoed:] if score is not None]
        return sum(own) / max(1, len(own))

    def add(self, piece: Piece) -> _Growth | None:
        """Add a piece; return what it adds, None if that is nothing; an echoed prompt comes before the first."""
        growth = (piece.text, list(piece.tokens), list[TokenScore | None](piece.scores))
        if not self._begun and self.body.echo:
            shown = self.prompt.shown
            known: list[TokenScore | None] = [None, *piece.prompt_scores]
            known = known if len(known) == len(shown) else [None] * len(shown)
            growth = (self.tokenizer.decode(shown) + growth[0], [*shown, *growth[1]], [*known, *growth[2]])
        self._begun = True
        self.text, self.finish_reason = self.text + growth[0], piece.finish_reason
        self.n_written, self.n_cached = piece.n_written, piece.n_cached
        self.tokens += growth[1]
        self.scores += growth[2]
        return growth if growth[0] or growth[1] or piece.finish_reason else None

    def whole(self) -> dict[str, Any]:
        """Return the choice of an answer that is no stream."""
        return self.told((self.text, self.tokens, self.scores))

    def told(self, growth: _Growth) -> dict[str, Any]:
        """Return what is told of a growth; to be called for each in its order."""
        (text, tokens, scores), body = growth, self.body
        logprobs = None
        if body.logprobs is not None:
            logprobs = self._logprobs(tokens, scores, body.logprobs)
        elif body.logprob_token_ids is not None:
            logprobs = self._logprobs(tokens, scores, 0)
        result: dict[str, Any] = {"text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}
        if body.return_token_ids:
            result["token_ids"] = list(tokens)
        return result

    def _logprobs(self, tokens: Sequence[int], scores: Sequence[TokenScore | None], n_top: int) -> dict[str, Any]:
        """Return OpenAI's object: `top_logprobs` has the `n_top` likeliest tokens and the chosen one."""
        tokenizer, given_ids = self.tokenizer, given(self.body.logprob_token_ids, [])
        tops: list[dict[int, float] | None] = []
        for token, score in zip(tokens, scores, strict=True):
            top = None
            if score is not None:
                top = dict(score.top[:n_top])
                top.setdefault(token, score.logprob)
            tops.append(top)
        result: dict[str, Any] = {
            "tokens": [token_text(tokenizer, token) for token in tokens],
            "token_logprobs": [None if score is None else score.logprob for score in scores],
            "top_logprobs": [
                None if top is None else {token_text(tokenizer, other): value for other, value in top.items()}
                for top in tops
            ],
            "text_offset": [self._offsets.add(token) for token in tokens],
        }
        if self.body.return_token_ids:  # by text, no list: JavaScript sorts the keys of an object that are digits
            result["top_token_ids"] = [
                None if top is None else {token_text(tokenizer, other): other for other in top} for top in tops
            ]
        if given_ids:
            result["given_logprobs"] = [
                dict(zip(map(str, given_ids), score.others, strict=True)) if score and score.others else None
                for score in scores
            ]
        return result


class _Offsets:
    """Where tokens begin in a text, in characters; one inside a character has that character's place.

    The first `n_prompt` tokens are the prompt's, whose text and the completion's are decoded apart.
    """

    def __init__(self, tokenizer: Tokenizer, *, n_prompt: int) -> None:
        self._tokenizer, self._n_prompt = tokenizer, n_prompt
        self._n_chars = self._n_tokens = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> int:
        """Return where the next token begins."""
        if self._n_tokens == self._n_prompt:
            self._n_chars += len(self._decoder.decode(b"", final=True))
        self._n_tokens += 1
        data = self._tokenizer.decode_bytes([token])
        self._n_chars += len(self._decoder.decode(data[:1]))  # its first byte may end a broken character before it
        start = self._n_chars - (not self._decoder.getstate()[0])  # that byte is the last character, or still waits
        self._n_chars += len(self._decoder.decode(data[1:]))
        return start


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return a token's text; bytes that are no whole characters are written `bytes:\\xf0\\x9f`, so none look alike."""
    data = tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _prompts(body: CompletionRequest, served: Served) -> list[_Prompt]:
    prompt = given(body.prompt, "")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        many: Sequence[Any] = [prompt]
    else:
        many = prompt if isinstance(prompt, list) else [prompt]
    prompts = []
    for one_prompt in many:
        tokens = served.tokens_of(one_prompt)
        prompts.append(_Prompt(tuple(tokens), 0) if tokens else _Prompt((served.tokenizer.start,), 1))
    return prompts


def _sampling(body: CompletionRequest) -> Sampling:
    biases = {}
    for token, bias in given(body.logit_bias, {}).items():
        if not token.isascii() or not token.isdigit() or len(token) > 9:
            raise ApiError("logit_bias: a key is no token id, a whole number as text", param="logit_bias")
        biases[int(token)] = bias
    top_p = given(body.top_p, 1.0)
    return Sampling(
        temperature=given(body.temperature, 1.0),
        top_k=body.top_k,
        top_p=max(top_p, 1e-30),  # 0 keeps the likeliest token alone
        presence_penalty=given(body.presence_penalty, 0.0),
        frequency_penalty=given(body.frequency_penalty, 0.0),
        logit_bias=biases,
    )
