"""What a model reads beside its input: a KV cache, a prefix tree, or a prefix whose keys and values are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.interface import Attend


@runtime_checkable
class LayerMemory(Protocol):
    """A layer's part of a `Memory`: new positions attend to each other and to what was read before."""

    def attend(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        attend: Attend,
    ) -> Float[Tensor, "B H T K"]:
        """Return the attention of the new positions; `attend` is the model's kernel."""
        ...


@runtime_checkable
class Memory(Protocol):
    """What `GPT.hidden` calls, in this order."""

    def layer_memories(self, n_positions: int) -> Sequence[LayerMemory]:
        """Return each layer's part for the next `n_positions` a row."""
        ...

    def positions(self, n_positions: int) -> Int[Tensor, "*B T"]:
        """Return their positions."""
        ...

    def advance(self, n_positions: int) -> None:
        """Count them as read, once all layers have read them."""
        ...
