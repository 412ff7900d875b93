"""What the server does, as Prometheus reads it. In: what the worker tells of its requests. Out: text for `/metrics`.

Names are vLLM's, with `fewshot_` before them, where they mean the same. All is told by the worker's thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fewshot.generate.engine import Engine
from fewshot.generate.stop import RequestState

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass
class _Times:
    """When a request came, and when its last token did, in seconds of a clock that only grows."""

    submitted: float
    last: float | None = None


class Metrics:
    """Counts of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._running = Gauge("fewshot_num_requests_running", "Requests that are read or written", registry=registry)
        self._waiting = Gauge("fewshot_num_requests_waiting", "Requests that wait for room", registry=registry)
        self._used = Gauge("fewshot_kv_cache_used_bytes", "Bytes of keys and values that are held", registry=registry)
        self._reserved = Gauge(
            "fewshot_kv_cache_reserved_bytes", "Bytes that running requests may need", registry=registry
        )
        self._prompt = Counter("fewshot_prompt_tokens", "Tokens of prompts", registry=registry)
        self._cached = Counter("fewshot_prompt_tokens_cached", "Of those, tokens not read again", registry=registry)
        self._written = Counter("fewshot_generation_tokens", "Tokens that were written", registry=registry)
        self._ended = Counter(
            "fewshot_requests", "Requests that have ended", ["finished_reason"], registry=registry
        )  # stop, length, error, abort
        self._first = Histogram(
            "fewshot_time_to_first_token_seconds", "From a request to its first token", registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._between = Histogram(
            "fewshot_inter_token_latency_seconds", "From a token to the next", registry=registry, buckets=SECONDS
        )
        self._whole = Histogram(
            "fewshot_e2e_request_latency_seconds", "From a request to its end", registry=registry, buckets=SECONDS
        )
        self._times: dict[int, _Times] = {}

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self.registry)

    def submitted(self, number: int) -> None:
        """Count a request of the engine."""
        self._times[number] = _Times(time.monotonic())

    def grown(self, number: int, state: RequestState) -> None:
        """Count what a step has added to a request."""
        times, now = self._times[number], time.monotonic()
        if times.last is None:
            self._prompt.inc(len(state.request.prompt))
            self._cached.inc(state.n_cached)
        if state.error is None and state.tokens:
            self._written.inc()
            if times.last is None:
                self._first.observe(now - times.submitted)
            else:
                self._between.observe(now - times.last)
        times.last = now
        if state.ended:
            self._end(number, "error" if state.error else str(state.finish_reason))

    def dropped(self, number: int, *, reason: str) -> None:
        """Count a request that ends unfinished: "abort" where its client went away, "error" where the engine failed."""
        self._end(number, reason)

    def _end(self, number: int, reason: str) -> None:
        times = self._times.pop(number, None)
        if times is not None:  # else it was counted, and what came after it failed
            self._whole.observe(time.monotonic() - times.submitted)
            self._ended.labels(reason).inc()

    def look_at(self, engine: Engine) -> None:
        """Tell how things are: to be called where that has changed."""
        self._running.set(engine.n_running)
        self._waiting.set(engine.n_waiting)
        self._used.set(engine.cache.n_used_bytes)
        self._reserved.set(engine.n_reserved_bytes)
