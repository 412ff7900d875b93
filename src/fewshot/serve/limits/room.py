"""What all open calls may take together, reserved at the door: the engine hears of them only between two steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fewshot.serve.schema import ApiError

MOST_OPEN = 512  # requests that wait or run
MOST_VALUES = 1 << 20  # tokens and log-probabilities in one answer: about 120 MB while it is held
MOST_OPEN_VALUES = 1 << 23  # in all that are open


class Room:
    """Counts what open calls may take; for one event loop."""

    def __init__(self) -> None:
        self.n_open = self.n_values = 0

    @contextmanager
    def taken(self, n_open: int, n_values: int) -> Iterator[None]:
        """Hold the room of a call; raises `ApiError` where there is none."""
        if n_values > MOST_VALUES:
            raise ApiError(
                f"the answer may have {n_values:,} tokens and log-probabilities, at most {MOST_VALUES:,} are allowed: "
                f"ask for fewer choices, tokens or logprobs"
            )
        if self.n_open + n_open > MOST_OPEN or self.n_values + n_values > MOST_OPEN_VALUES:
            raise ApiError("the queue is full: try again later", status=429, kind="rate_limit_exceeded")
        self.n_open += n_open
        self.n_values += n_values
        try:
            yield
        finally:
            self.n_open -= n_open
            self.n_values -= n_values
