"""The engine: requests join and leave between steps, and no token depends on what else is in a step.

A step reads one token of every text that is being written and one chunk of one prompt, so that a long prompt holds up
nobody. In: requests. Out: after each step the completions that have grown.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import ContextTooLong, check
from fewshot.generate.prompt_cache import PromptCache
from fewshot.generate.request import Request, TokenScore
from fewshot.generate.sampling import RowSampling, choose_tokens
from fewshot.generate.scores import score_tokens
from fewshot.generate.stop import RequestState
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import CachedText, PagedCache, PagedMemory
from fewshot.tokenizer.vocab import Tokenizer

CHUNK = 256  # tokens of a prompt in one step


@dataclass
class _Running:
    """A request that has its room in the cache."""

    request: Request
    state: RequestState
    n_bytes: int  # reserved
    tokens: list[int]  # the prompt and what was written, as far as the context holds it
    text: CachedText | None = None  # None: nothing was looked up yet
    n_dropped: int = 0  # tokens before `tokens`, where the context slides
    read: CachedText | None = None  # all pages of the prompt, for others that begin with it

    @property
    def n_unread(self) -> int:
        return len(self.tokens) - (0 if self.text is None else self.text.length)


class Engine:
    """Completes requests with one model; not safe for several threads.

    Up to `cache_bytes` hold keys and values, up to `max_rows` texts are written at once. A request's whole need is
    reserved before it begins, so that none is ever interrupted; what is left holds texts read before.
    """

    def __init__(
        self, model: PackedGPT, tokenizer: Tokenizer, *, cache_bytes: int, max_rows: int = 64, chunk: int = CHUNK
    ) -> None:
        check(min(max_rows, chunk) >= 1, f"max_rows is {max_rows} and chunk {chunk}, both must be at least 1")
        self.model, self.tokenizer, self.max_rows, self.chunk = model, tokenizer, max_rows, chunk
        self.cache_bytes = cache_bytes
        device = model.wte.weight.device
        self.cache = PagedCache(model.config, n_bytes=cache_bytes, dtype=model.cache_dtype, device=device)
        self.prompts = PromptCache(self.cache)
        self._numbers = itertools.count()
        self._waiting: dict[str, deque[tuple[int, _Running]]] = {}  # by key, that whose turn it is first
        self._running: dict[int, _Running] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._running)

    @property
    def n_reserved_bytes(self) -> int:
        """Bytes that the requests that have begun may need."""
        return sum(running.n_bytes for running in self._running.values())

    def bytes_of(self, request: Request) -> int:
        """Return the most bytes of keys and values that a request needs."""
        length = len(request.prompt) + request.max_tokens - 1
        return self.cache.bytes_of_text(self.model.config.n_ctx if request.slide else length, n_new=self.chunk)

    def submit(self, request: Request) -> int:
        """Queue a request and return its number; raises ContextTooLong, or BadValue if it can never have room."""
        n_ctx, n_bytes = self.model.config.n_ctx, self.bytes_of(request)
        if len(request.prompt) > n_ctx:
            raise ContextTooLong(len(request.prompt), n_ctx)
        check(
            n_bytes <= self.cache_bytes,
            f"a request of {len(request.prompt)} + {request.max_tokens} tokens needs {n_bytes:,} bytes of keys and "
            f"values, the cache has {self.cache_bytes:,}",
        )
        n_free = None if request.slide else n_ctx - len(request.prompt) + 1  # the last token need not be read
        state = RequestState(request, self.tokenizer, n_free=n_free)
        number = next(self._numbers)
        queue = self._waiting.setdefault(request.key, deque())
        queue.append((number, _Running(request, state, n_bytes, list(request.prompt))))
        return number

    def cancel(self, number: int) -> None:
        """Forget a request, wherever it is; an unknown number is one that has ended."""
        for key, queue in list(self._waiting.items()):
            left = deque(pair for pair in queue if pair[0] != number)
            self._waiting[key] = left
            if not left:
                del self._waiting[key]
        self._end(number)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, RequestState]]:
        """Do one step; return the requests that have a new token, those that have ended among them."""
        self._admit()
        batch = self._batch()
        if not batch:
            return []
        hidden = self._read(batch)
        ends = itertools.accumulate(count for _, _, count in batch)
        ready = [(number, running, end - 1) for (number, running, _), end in zip(batch, ends, strict=True)]
        ready = [(number, running, last) for number, running, last in ready if running.n_unread == 0]
        if not ready:
            return []
        chosen = self._choose(hidden[[last for *_, last in ready]], [running for _, running, _ in ready])
        for (number, running, _), (token, score) in zip(ready, chosen, strict=True):
            if running.request.max_tokens == 0:
                running.state.finish_reason = "length"
            else:
                running.state.add(token, score)
            if running.state.finish_reason is not None:
                self._end(number)
            else:
                self._append(running, token)
        return [(number, running.state) for number, running, _ in ready]

    def _read(self, batch: Sequence[tuple[int, _Running, int]]) -> Float[Tensor, "N D"]:
        """Return the hidden states of so many unread tokens of each request."""
        texts = [running.text for _, running, _ in batch if running.text is not None]
        memory = PagedMemory(self.cache, texts, [count for _, _, count in batch])
        tokens = [token for _, running, count in batch for token in _unread(running, count)]
        hidden = self.model.hidden(torch.tensor([tokens], device=self.model.wte.weight.device), memory)[0]
        first = 0
        for _, running, count in batch:
            self._score_prompt(running, hidden[first : first + count])
            self._after_reading(running)
            first += count
        return hidden

    def _score_prompt(self, running: _Running, hidden: Float[Tensor, "N D"]) -> None:
        """Score the tokens of a prompt that follow the last ones that were read, if that was asked for."""
        request, scores, text = running.request, running.state.prompt_scores, running.text
        assert text is not None
        targets = request.prompt[text.length - len(hidden) + 1 : text.length + 1]
        if request.prompt_logprobs and not running.state.tokens and targets:
            logits = self.model.logits(hidden[: len(targets)])[:, : self.tokenizer.n_vocab]
            scores += score_tokens(logits, targets, [request.top_logprobs] * len(targets))

    def _choose(self, hidden: Float[Tensor, "R D"], rows: Sequence[_Running]) -> list[tuple[int, TokenScore]]:
        """Return the next token of each row and its score."""
        logits = self.model.logits(hidden)[:, : self.tokenizer.n_vocab]
        sampling = RowSampling.of([running.request.sampling for running in rows], logits.device)
        draws = torch.tensor([_draw(running) for running in rows], dtype=torch.float64)
        adjusted = [
            running.request.sampling.adjusted(own, running.state.tokens)
            for own, running in zip(logits, rows, strict=True)
        ]
        tokens = choose_tokens(torch.stack(adjusted), sampling, draws).tolist()
        requests = [running.request for running in rows]
        n_top, others = [request.top_logprobs for request in requests], [request.logprob_tokens for request in requests]
        return list(zip(tokens, score_tokens(logits, tokens, n_top, others), strict=True))

    def _admit(self) -> None:
        """Let requests begin, those of each key in their order and the keys in turn, as long as the next has room."""
        while self._waiting and len(self._running) < self.max_rows:
            key, queue = next(iter(self._waiting.items()))
            number, running = queue[0]
            if self.n_reserved_bytes + running.n_bytes > self.cache_bytes:
                return
            self._running[number] = running
            queue.popleft()
            del self._waiting[key]
            if queue:
                self._waiting[key] = queue  # its next turn is after all others'

    def _batch(self) -> list[tuple[int, _Running, int]]:
        """Return what is read in this step, and how many tokens of each."""
        batch, has_chunk = [], False
        for number, running in self._running.items():
            if running.text is not None and running.n_unread == 1:
                batch.append((number, running, 1))
            elif not has_chunk:
                has_chunk = True
                if running.text is None:
                    running.text, scores = self.prompts.find(running.request)
                    running.state.prompt_scores += scores
                    running.read = self.cache.new_text()
                batch.append((number, running, min(running.n_unread, self.chunk)))
        return batch

    def _after_reading(self, running: _Running) -> None:
        """Keep a prompt's pages for others, all of them until room is needed, and let go of the text's own."""
        text = running.text
        assert text is not None
        if running.read is not None:
            running.read.length = text.length
            self.cache.share(text, running.read)
            if running.n_unread == 0:
                self.prompts.add(running.request, running.read, running.state.prompt_scores)
                running.read = None
        self.cache.trim(text)

    def _append(self, running: _Running, token: int) -> None:
        """Add a token that was written; where the context is full and slides, its oldest half is dropped."""
        running.tokens.append(token)
        n_ctx, text = self.model.config.n_ctx, running.text
        assert text is not None
        if len(running.tokens) > n_ctx:
            kept = max(1, n_ctx // 2)
            running.n_dropped += len(running.tokens) - kept
            running.tokens = running.tokens[-kept:]
            self.cache.drop(text)
            text.length = 0

    def _end(self, number: int) -> None:
        running = self._running.pop(number, None)
        if running is None:
            return
        for text in (running.text, running.read):
            if text is not None:
                self.cache.drop(text)


def _unread(running: _Running, n: int) -> list[int]:
    assert running.text is not None
    return running.tokens[running.text.length : running.text.length + n]


def _draw(running: _Running) -> float:
    """Return the random number of a request's next token, 0 for a greedy one, which needs none."""
    request = running.request
    position = running.n_dropped + len(running.tokens)
    return request.draw(position) if request.sampling.temperature > 0 else 0.0
