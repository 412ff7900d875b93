"""The thread that runs the engine; everything else is asyncio. In: requests. Out: pieces of their completions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fewshot.base.errors import FewshotError
from fewshot.generate.engine import Engine
from fewshot.generate.request import FinishReason, Request, TokenScore
from fewshot.generate.stop import RequestState
from fewshot.serve.limits.room import Room
from fewshot.serve.metrics import Metrics

MOST_WAITING = 1 << 16  # pieces of one call that its client has not taken


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a completion has grown by. Its tokens are those whose text begins in what is shown."""

    text: str
    tokens: tuple[int, ...]
    scores: tuple[TokenScore, ...]
    finish_reason: FinishReason | None
    n_written: int  # tokens so far, those of a stop string included
    n_cached: int  # tokens of the prompt that were not read again
    prompt_scores: tuple[TokenScore, ...]
    first_score: TokenScore | None = None  # of the first token that was written, whether it is shown or not


Deliver = Callable[[int, "Piece | Exception"], object]


@dataclass(frozen=True)
class _Order:
    """The requests of one call, and where their pieces go."""

    number: int
    requests: Sequence[Request]
    deliver: Deliver


class Worker:
    """Runs an engine in a thread of its own, from `start` to `stop`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.metrics, self.room = engine, Metrics(), Room()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._owners: dict[int, tuple[_Order, int]] = {}  # of the engine's numbers
        self._numbers: dict[int, list[int]] = {}  # of the engine's requests, by an order's own number
        self._orders = itertools.count()
        self._stopped = self.closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End all completions with an error, and the thread."""
        self._inbox.put(self._end)
        self._thread.join()

    def close(self, *, after_seconds: float) -> None:
        """Take no new requests; end those that still run after some seconds with an error."""
        if not self.closing:
            self.closing = True
            timer = threading.Timer(after_seconds, lambda: self._inbox.put(self._fail_at_shutdown))
            timer.daemon = True
            timer.start()

    @property
    def n_open(self) -> int:
        """Requests that wait or run."""
        return len(self._owners)

    async def complete(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Piece]]:
        """Yield pieces of the completions with the numbers of their requests, until all have ended.

        Closing the iterator cancels what is left, and so does a client that lags behind by MOST_WAITING pieces: the
        engine waits for nobody.
        """
        outbox: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue(MOST_WAITING)
        loop, is_late, order_number = asyncio.get_running_loop(), False, next(self._orders)

        def cancel() -> None:  # by number: an order that its own `deliver` knew would stay until a cycle is looked for
            self._inbox.put(lambda: self._cancel(order_number))

        def put(number: int, piece: Piece | Exception) -> None:
            nonlocal is_late
            if not is_late and outbox.full():
                is_late = True  # for good: after a gap no piece fits
                cancel()
            if not is_late:
                outbox.put_nowait((number, piece))

        order = _Order(order_number, requests, lambda number, piece: loop.call_soon_threadsafe(put, number, piece))
        self._inbox.put(lambda: self._submit(order))
        try:
            left = len(requests)
            while left:
                if is_late and outbox.empty():
                    raise FewshotError(f"the client has not read: {MOST_WAITING} pieces of its answer waited for it")
                number, piece = await outbox.get()
                if isinstance(piece, Exception):
                    raise piece
                yield number, piece
                left -= piece.finish_reason is not None
        finally:
            cancel()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._do_what_was_sent()
                self._step()
            except FewshotError as error:  # a model that is not finite, say: nothing that runs can go on
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, later requests are to be answered
                traceback.print_exc()
                self._fail(FewshotError(f"the server failed: {type(error).__name__}"))

    def _step(self) -> None:
        """Let the engine do a step, and deliver what has grown."""
        for number, state in self.engine.step():
            order, place = self._owners[number]
            self.metrics.grown(number, state)
            order.deliver(place, state.error or piece_of(state))
            if state.ended:
                del self._owners[number]
        self.metrics.look_at(self.engine)

    def _do_what_was_sent(self) -> None:
        """Submit and cancel what was asked; wait for it where there is nothing else to do."""
        with contextlib.suppress(queue.Empty):
            while not self._stopped:
                self._inbox.get(block=not self.engine.busy)()
                self.metrics.look_at(self.engine)

    def _submit(self, order: _Order) -> None:
        numbers = self._numbers[order.number] = []
        for place, request in enumerate(order.requests):
            try:
                number = self.engine.submit(request)
            except FewshotError as error:  # which the caller should have found: it is nobody else's
                self._cancel(order.number)
                order.deliver(place, error)
                return
            self.metrics.submitted(number)
            self._owners[number] = (order, place)
            numbers.append(number)

    def _cancel(self, order_number: int) -> None:
        for number in self._numbers.pop(order_number, []):
            if self._owners.pop(number, None) is not None:
                self.engine.cancel(number)
                self.metrics.dropped(number, reason="abort")

    def _fail(self, error: Exception) -> None:
        for number, (order, place) in list(self._owners.items()):
            self.engine.cancel(number)
            self.metrics.dropped(number, reason="error")
            order.deliver(place, error)
        self._owners.clear()

    def _fail_at_shutdown(self) -> None:
        self._fail(FewshotError("the server is shutting down"))

    def _end(self) -> None:
        self._fail_at_shutdown()
        self._stopped = True


def piece_of(state: RequestState) -> Piece:
    """Return what a completion has grown by since this was last called."""
    text, (first, last) = state.next_text(), state.next_tokens()
    is_first = len(state.tokens) <= 1
    return Piece(
        text=text,
        tokens=tuple(state.tokens[first:last]),
        scores=tuple(state.scores[first:last]),
        finish_reason=state.finish_reason,
        n_written=len(state.tokens),
        n_cached=state.n_cached,
        prompt_scores=tuple(state.prompt_scores) if is_first else (),
        first_score=state.scores[0] if state.scores else None,
    )
