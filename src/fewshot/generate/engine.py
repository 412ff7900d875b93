"""The engine: requests join and leave between steps, and no token depends on what else is in a step.

A step reads one token of every text that is being written and some tokens of prompts, so that a long prompt holds up
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

from fewshot.base.errors import ContextTooLong, NotFinite, check
from fewshot.generate.next_logits import n_common
from fewshot.generate.prompt_cache import PromptCache
from fewshot.generate.request import Request, TokenScore
from fewshot.generate.sampling import RowSampling, choose_tokens
from fewshot.generate.scores import score_tokens
from fewshot.generate.stop import RequestState
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import CachedText, PagedCache, PagedMemory
from fewshot.patterns.pages import PAGE
from fewshot.tokenizer.vocab import Tokenizer

CHUNK = 256  # tokens of prompts in one step, while no text is written


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
    def n_read(self) -> int:
        return 0 if self.text is None else self.text.length

    @property
    def n_unread(self) -> int:
        return len(self.tokens) - self.n_read

    def unread(self, n: int) -> list[int]:
        """Return the next tokens to read."""
        return self.tokens[self.n_read : self.n_read + n]

    def draw(self) -> float:
        """Return the random number of the next token, 0 for a greedy request, which needs none."""
        position = self.n_dropped + len(self.tokens)
        return self.request.draw(position) if self.request.sampling.temperature > 0 else 0.0


@dataclass(frozen=True)
class _Part:
    """What a step reads of a request."""

    number: int
    running: _Running
    n: int  # tokens


class Engine:
    """Completes requests with one model; not safe for several threads.

    Up to `cache_bytes` hold keys and values, up to `max_rows` texts are written at once. A request's whole need is
    reserved before it begins, so that none is ever interrupted; what is left holds texts read before.
    """

    def __init__(
        self, model: PackedGPT, tokenizer: Tokenizer, *, cache_bytes: int, max_rows: int = 64, chunk: int = CHUNK
    ) -> None:
        check(max_rows >= 1, f"max_rows is {max_rows}, must be at least 1")
        check(chunk >= PAGE and chunk % PAGE == 0, f"chunk is {chunk}, must be a multiple of {PAGE}")
        self.model, self.tokenizer, self.max_rows, self.chunk = model, tokenizer, max_rows, chunk
        self.cache_bytes = cache_bytes
        device = model.wte.weight.device
        self.cache = PagedCache(model.config, n_bytes=cache_bytes, dtype=model.cache_dtype, device=device)
        self.prompts = PromptCache(self.cache)
        self.cache.make_room = self._make_room
        self._numbers = itertools.count()
        self._waiting: dict[str, deque[tuple[int, _Running]]] = {}  # by key, that whose turn it is first
        self._running: dict[int, _Running] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._running)

    @property
    def n_running(self) -> int:
        """Requests that have begun."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """Requests that have not begun."""
        return sum(map(len, self._waiting.values()))

    @property
    def n_reserved_bytes(self) -> int:
        """Bytes that the requests that have begun may need."""
        return sum(running.n_bytes for running in self._running.values())

    def bytes_of(self, request: Request) -> int:
        """Return the most bytes of keys and values that a request needs."""
        length = len(request.prompt) + max(request.max_tokens, 1) - 1
        return self.cache.bytes_of_text(self.model.config.n_ctx if request.slide else length, n_new=self.chunk)

    def submit(self, request: Request) -> int:
        """Queue a request and return its number; raises as `check` does."""
        self.check(request)
        n_ctx = self.model.config.n_ctx
        n_free = None if request.slide else n_ctx - len(request.prompt) + 1  # the last token need not be read
        state = RequestState(request, self.tokenizer, n_free=n_free)
        number = next(self._numbers)
        queue = self._waiting.setdefault(request.key, deque())
        queue.append((number, _Running(request, state, self.bytes_of(request), list(request.prompt))))
        return number

    def check(self, request: Request) -> None:
        """Raise ContextTooLong, or BadValue for tokens that there are not and for what can never have room."""
        n_ctx, n_bytes, n_vocab = self.model.config.n_ctx, self.bytes_of(request), self.tokenizer.n_vocab
        for name, tokens in (
            ("the prompt", request.prompt),
            ("logit_bias", request.sampling.logit_bias),
            ("logprob_tokens", request.logprob_tokens),
        ):
            for token in tokens:
                check(0 <= token < n_vocab, f"token {token} in {name} is not in the vocabulary: 0 to {n_vocab - 1:,}")
        if len(request.prompt) > n_ctx:
            raise ContextTooLong(len(request.prompt), n_ctx)
        check(
            n_bytes <= self.cache_bytes,
            f"a request of {len(request.prompt)} + {request.max_tokens} tokens needs {n_bytes:,} bytes of keys and "
            f"values, the cache has {self.cache_bytes:,}",
        )

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
        """Do one step; return the requests that have a new token, those that have ended among them.

        A request whose scores are not finite ends with that error. Whatever else is raised ends all that were read.
        """
        self._admit()
        batch = self._batch()
        if not batch:
            return []
        try:
            grown = self._grow(batch)
        except BaseException:
            for part in batch:
                self._end(part.number)
            raise
        for number, state in grown:
            if state.ended:
                self._end(number)
        return grown

    def _grow(self, batch: Sequence[_Part]) -> list[tuple[int, RequestState]]:
        """Read the parts and choose a token for each text that was read whole; return those that have changed."""
        hidden = self._read(batch)
        ends = list(itertools.accumulate(part.n for part in batch))
        ready = [(part, end - 1) for part, end in zip(batch, ends, strict=True) if part.running.n_unread == 0]
        if ready:
            rows = [part.running for part, _ in ready]
            chosen = self._choose(hidden[[last for _, last in ready]], rows)
            for running, (token, score) in zip(rows, chosen, strict=True):
                state = running.state
                if isinstance(score, NotFinite):
                    state.error = state.error or score
                elif running.request.max_tokens == 0:
                    state.finish_reason = "length"
                elif state.error is None:
                    state.add(token, score)
        for part in batch:
            self._after_step(part.running)
        changed = {part.number for part, _ in ready} | {part.number for part in batch if part.running.state.error}
        return [(part.number, part.running.state) for part in batch if part.number in changed]

    def _read(self, batch: Sequence[_Part]) -> Float[Tensor, "N D"]:
        """Return the hidden states of the unread tokens; a prompt is scored if that was asked for."""
        texts = [part.running.text for part in batch if part.running.text is not None]
        memory = PagedMemory(self.cache, texts, [part.n for part in batch])
        tokens = [token for part in batch for token in part.running.unread(part.n)]
        hidden = self.model.hidden(torch.tensor([tokens], device=self.model.wte.weight.device), memory)[0]
        for part, own in zip(batch, hidden.split([part.n for part in batch]), strict=True):
            request, state = part.running.request, part.running.state
            if request.prompt_logprobs and not state.tokens:
                first = 1 + part.running.n_read - part.n
                skipped = max(0, request.n_unscored - first)
                targets = request.prompt[first + skipped : first + part.n]
                rows = own[skipped : skipped + len(targets)]
                logits = self.model.logits(rows)[:, : self.tokenizer.n_vocab]
                for score in score_tokens(logits, targets, [request.top_logprobs] * len(targets)):
                    if isinstance(score, NotFinite):
                        state.error = state.error or score
                    else:
                        state.prompt_scores.append(score)
        return hidden

    def _choose(
        self, hidden: Float[Tensor, "R D"], rows: Sequence[_Running]
    ) -> list[tuple[int, TokenScore | NotFinite]]:
        """Return the next token of each row and its score."""
        logits = self.model.logits(hidden)[:, : self.tokenizer.n_vocab]
        requests = [running.request for running in rows]
        sampling = RowSampling.of([request.sampling for request in requests], logits.device)
        draws = torch.tensor([running.draw() for running in rows], dtype=torch.float64)
        adjusted = logits
        if any(request.sampling.adjusts for request in requests):
            own = [
                running.request.sampling.adjusted(row, running.state.tokens)
                for row, running in zip(logits, rows, strict=True)
            ]
            adjusted = torch.stack(own)
        tokens = choose_tokens(adjusted, sampling, draws).tolist()
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

    def _batch(self) -> list[_Part]:
        """Return what is read in this step: a token of every text that is written, and some of the prompts.

        That is a chunk, or while texts are written as many tokens as they are, in whole pages: so no text waits. A
        prompt that begins like one that is being read waits, so that what they begin with is read once.
        """
        writing = [number for number, running in self._running.items() if running.text and running.n_unread == 1]
        batch, reading = [_Part(number, self._running[number], 1) for number in writing], list[_Running]()
        left = min(self.chunk, -(-len(writing) // PAGE) * PAGE or self.chunk)  # at most doubles what is computed
        for number, running in self._running.items():
            if number in writing:
                continue
            if running.text is None:
                n_cached = self.prompts.n_cached(running.request)
                if any(n_common(running.tokens, other.tokens) > n_cached + PAGE for other in reading):
                    continue
            reading.append(running)
            n_unread = len(running.tokens) - n_cached if running.text is None else running.n_unread
            n = min(n_unread, left if n_unread <= left else left // PAGE * PAGE)
            if n > 0:
                self._begin(running)
                batch.append(_Part(number, running, min(n, running.n_unread)))
                left -= n
        return batch

    def _begin(self, running: _Running) -> None:
        """Look up what was read before of a request's prompt, once."""
        if running.text is None:
            running.text, scores = self.prompts.find(running.request)
            running.state.prompt_scores += scores
            running.state.n_cached = running.text.length
            running.read = self.cache.new_text()

    def _after_step(self, running: _Running) -> None:
        """Keep a prompt's pages for others, all of them until room is needed, and let go of the text's own."""
        text, state = running.text, running.state
        assert text is not None
        if running.read is not None and state.error is None:
            running.read.length = min(text.length, len(running.request.prompt))
            self.cache.share(text, running.read)
            if running.n_unread == 0:
                self.prompts.add(running.request, running.read, state.prompt_scores)
                running.read = None
        self.cache.trim(text)
        if state.tokens and not state.ended:
            self._append(running, state.tokens[-1])

    def _make_room(self) -> bool:
        """Let go of what is kept for others: of prompts that are being read, then of those that were."""
        return (
            any(running.read is not None and self.cache.trim(running.read) for running in self._running.values())
            or self.prompts.make_room()
        )

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
