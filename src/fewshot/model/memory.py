"""How a model reads what follows something: a cache, a tree of texts, a text whose keys and values are to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.interface import Attend


@runtime_checkable
class Reading(Protocol):
    """One layer's part: new positions attend to each other and to what was read before."""

    def attend(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        attend: Attend,
    ) -> Float[Tensor, "B H T K"]:
        """Return what the new positions read."""
        ...


@runtime_checkable
class Memory(Protocol):
    """What `GPT.hidden` asks of it, in this order."""

    def readings(self, n_positions: int, counts: Sequence[int] | None) -> Sequence[Reading]:
        """For each layer the reading of the next `n_positions` a row, of which `counts` are real (None: all)."""
        ...

    def positions(self, n_positions: int) -> Int[Tensor, "*B T"]:
        """Where they stand."""
        ...

    def advance(self, n_positions: int, counts: Sequence[int] | None) -> None:
        """All layers have read them."""
        ...
