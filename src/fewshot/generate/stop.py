"""Where a completion ends, and what part of its text may be shown. In: tokens, one at a time. Out: a `Completion`.

The only place that decides this; `complete` and `stream` use it. It knows the tokenizer, no model.
"""

from __future__ import annotations

import bisect
import codecs
from collections.abc import Sequence

from fewshot.base.errors import FewshotError
from fewshot.generate.request import Completion, FinishReason, Request, TokenScore
from fewshot.tokenizer.vocab import Tokenizer


class RequestState:
    """The completion of one request as it grows, token by token.

    `n_free` is the number of tokens that fit behind the prompt, where the context is a limit. It needs a tokenizer
    whose tokens can be decoded one by one.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, *, n_free: int | None = None) -> None:
        self.request, self.tokenizer = request, tokenizer
        self.max_tokens = request.max_tokens if n_free is None else min(request.max_tokens, n_free)
        self.finish_reason: FinishReason | None = None
        self.error: FewshotError | None = None  # why it ended without being finished
        self._stops = [text.encode() for text in request.stop]
        self._longest_stop = max(map(len, self._stops), default=0)
        self.tokens: list[int] = []
        self.prompt_scores: list[TokenScore] = []
        self.n_cached = 0  # tokens of the prompt that were not read again
        self.scores: list[TokenScore] = []
        self._bytes = bytearray()
        self._n_shown = 0  # bytes
        self._starts: list[int] = []  # of the tokens, in the bytes
        self._n_told = 0  # tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int, score: TokenScore) -> None:
        """Add one token; `finish_reason` is set when it ends the completion."""
        self.tokens.append(token)
        self._starts.append(len(self._bytes))
        self.scores.append(score)
        if token == self.tokenizer.eot:
            self.finish_reason = "stop"
            return
        searched = max(0, len(self._bytes) - self._longest_stop)
        self._bytes += self.tokenizer.decode_bytes([token])
        end = first_stop(self._bytes, self._stops, searched)
        if end is not None:
            del self._bytes[end:]
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.max_tokens:
            self.finish_reason = "length"

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self.finish_reason is not None or self.error is not None

    def next_text(self) -> str:
        """Return the text that can be shown now and was not returned before; always whole characters.

        A character whose bytes are not all there yet is held back, and so is a tail that may begin a stop string.
        """
        finished = self.finish_reason is not None
        end = len(self._bytes) if finished else len(self._bytes) - self._n_held_back()
        piece = self._decoder.decode(bytes(self._bytes[self._n_shown : end]), final=finished)
        self._n_shown = end
        return piece

    def next_tokens(self) -> tuple[int, int]:
        """Return the first and the last (not included) of the tokens that begin in the text shown since it was asked.

        In the end those are left out that belong to a stop string or the end of the text alone.
        """
        first = self._n_told
        self._n_told = bisect.bisect_left(self._starts, self._n_shown)
        return first, self._n_told

    def _n_held_back(self) -> int:
        """Return how many bytes at the end may be the beginning of a stop string."""
        return max(
            (n for stop in self._stops for n in range(1, len(stop)) if self._bytes.endswith(stop[:n])), default=0
        )

    def completion(self) -> Completion:
        """Return the finished completion; raises what ended it otherwise."""
        if self.error is not None:
            raise self.error
        return Completion(
            text=self._bytes.decode("utf-8", errors="replace"),
            tokens=tuple(self.tokens),
            scores=tuple(self.scores),
            finish_reason=self.finish_reason or "length",
            prompt_scores=tuple(self.prompt_scores),
        )


def first_stop(text: bytes | bytearray, stops: Sequence[bytes], searched: int = 0) -> int | None:
    """Return where that stop string begins, at or behind `searched`, which is the first to be whole; None if none is.

    So it does not depend on how the text was cut into tokens. Of two that end together the longer counts.
    """
    places = [(at + len(stop), at) for stop in stops if (at := text.find(stop, searched)) >= 0]
    return min(places)[1] if places else None
