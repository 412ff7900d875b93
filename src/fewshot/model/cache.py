"""The KV cache: keys and values of the positions already read, so that a new token costs one position instead of all.

Only what the layer's pattern can read again is held: 256 positions for a band of 256 keys, at position 100,000 too.
Rows of a batch may have different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.patterns.cache_layout import CacheLayout, cache_layout, readable_slots
from fewshot.patterns.pattern import Pattern


class LayerCache:
    """Keys and values of one layer, in one buffer [B, heads, slots, K] for each kind of head."""

    def __init__(self, config: GPTConfig, pattern: Pattern, n_rows: int, *, device: torch.device, dtype: torch.dtype):
        self.pattern, self.n_rows = pattern, n_rows
        kinds = pattern.for_heads(config.n_heads)
        self.heads = [slice(first, None, len(kinds)) for first in range(min(len(kinds), config.n_heads))]
        self.layouts = [cache_layout(kind, config.n_ctx) for kind in kinds[: config.n_heads]]
        self.buffers = [
            torch.zeros(2, n_rows, len(range(config.n_heads)[heads]), layout.capacity, config.head_width,
                        device=device, dtype=dtype)
            for heads, layout in zip(self.heads, self.layouts, strict=True)
        ]  # fmt: skip

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def write(self, k: Tensor, v: Tensor, starts: Sequence[int], counts: Sequence[int]) -> None:
        """Put the real new positions into the buffers, rows of equal length together."""
        for start, count in set(zip(starts, counts, strict=True)):
            same = [b for b in range(self.n_rows) if (starts[b], counts[b]) == (start, count)]
            rows = slice(None) if len(same) == self.n_rows else same
            for heads, layout, buffer in zip(self.heads, self.layouts, self.buffers, strict=True):
                if k.shape[2] == 1:
                    for slot in layout.new_slots(start) if count else []:
                        for half, new in zip(buffer, (k, v), strict=True):
                            half[rows, :, slot] = new[rows, heads, 0].to(half.dtype)
                    continue
                positions, slots = (torch.from_numpy(index) for index in layout.writes(start, start + count))
                new = torch.stack([k[:, heads], v[:, heads]])[..., positions - start, :].to(buffer.dtype)
                for b in same:
                    buffer[:, b, :, slots] = new[:, b]

    def joined(self, start: int, k: Tensor, v: Tensor, rows: slice) -> tuple[int, Tensor, Tensor]:
        """Return the first position that is needed, and all keys and values from there on.

        Those before `start` come from the cache; what the pattern cannot read, and was dropped, is zeros.
        """
        if start == 0:
            return 0, k, v
        first = self.layouts[0].first_needed(start) if len(self.layouts) == 1 else 0
        earlier = k.new_zeros(2, len(k), k.shape[1], start - first, k.shape[3])
        for heads, layout, buffer in zip(self.heads, self.layouts, self.buffers, strict=True):
            held = layout.held(start)
            held = held[held >= first]
            slots = torch.from_numpy(layout.slots(held, start)).to(k.device)
            earlier[:, :, heads][..., torch.from_numpy(held - first).to(k.device), :] = buffer[:, rows][
                ..., slots, :
            ].to(k.dtype)
        keys, values = torch.cat([earlier, torch.stack([k, v])], dim=3).unbind(0)
        return first, keys, values

    def read(self, q: Tensor, position: int) -> Tensor:
        """Attend from one query a row, all at one position, to exactly the keys that it reads: no mask is needed."""
        mixed = []
        for heads, layout, buffer in zip(self.heads, self.layouts, self.buffers, strict=True):
            keys, values = buffer[..., _slot_index(layout, position), :].unbind(0)
            mixed.append(F.scaled_dot_product_attention(q[:, heads], keys, values))
        return self._together(mixed)

    def _together(self, by_kind: list[Tensor]) -> Tensor:
        """Put the heads of each kind together, in their order."""
        if len(by_kind) == 1:
            return by_kind[0]
        first = by_kind[0]
        mixed = first.new_empty(len(first), sum(part.shape[1] for part in by_kind), *first.shape[2:])
        for heads, part in zip(self.heads, by_kind, strict=True):
            mixed[:, heads] = part
        return mixed

    def read_ragged(self, q: Tensor, positions: Sequence[int]) -> Tensor:
        """Attend from one query a row, at different positions."""
        mixed = []
        for heads, layout, buffer in zip(self.heads, self.layouts, self.buffers, strict=True):
            lists = [readable_slots(layout, position) for position in positions]
            slots = np.zeros((self.n_rows, max(map(len, lists))), dtype=np.int64)
            for row, readable in zip(slots, lists, strict=True):
                row[: len(readable)] = readable
            lengths = torch.tensor([len(readable) for readable in lists], device=q.device)
            index = torch.from_numpy(slots).to(q.device)[:, None, :, None]
            keys, values = (half.gather(2, index.expand(-1, half.shape[1], -1, half.shape[3])) for half in buffer)
            real = torch.arange(slots.shape[1], device=q.device) < lengths[:, None]
            mixed.append(F.scaled_dot_product_attention(q[:, heads], keys, values, real[:, None, None]))
        return self._together(mixed)


@dataclass(frozen=True)
class CachedAttention:
    """Attention of a layer over its cache: row b has read `starts[b]` positions, of the new ones `counts[b]` are real.

    What is computed for the others, which fill up the end of a row, has no meaning.
    """

    cache: LayerCache
    starts: Sequence[int]
    counts: Sequence[int]

    def attend(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        attend: Attend,
    ) -> Float[Tensor, "B H T K"]:
        """Attend from the new positions to all that the pattern allows, and write the new ones to the cache."""
        cache, starts, counts = self.cache, self.starts, self.counts
        alike = len(set(starts)) == 1 and (starts[0] == 0 or len(set(counts)) == 1)
        if q.shape[2] == 1 and not (alike and starts[0] == 0):
            cache.write(k, v, starts, counts)
            if alike:
                return cache.read(q, starts[0])
            last = [max(0, start + count - 1) for start, count in zip(starts, counts, strict=True)]
            return cache.read_ragged(q, last)
        mixed = []
        for rows in [slice(None)] if alike else [slice(b, b + 1) for b in range(len(starts))]:
            start = starts[rows][0]
            first, keys, values = cache.joined(start, k[rows], v[rows], rows)
            mixed.append(attend(q[rows], keys, values, cache.pattern, q_start=start - first))
        cache.write(k, v, starts, counts)
        return torch.cat(mixed)


def _slot_index(layout: CacheLayout, position: int) -> slice | Tensor:
    """Return `readable_slots` as an index: a slice, which makes no copy, where they always lie side by side."""
    return layout.span(position) or torch.from_numpy(readable_slots(layout, position))


class Cache:
    """A `LayerCache` for each layer, and how far each row has been read."""

    def __init__(
        self, config: GPTConfig, n_rows: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        schedule = config.schedule()
        self.n_ctx = config.n_ctx
        self.lengths = [0] * n_rows
        self.layers = [
            LayerCache(config, schedule.for_layer(i), n_rows, device=torch.device(device), dtype=dtype)
            for i in range(config.n_layers)
        ]

    @property
    def length(self) -> int:
        """Positions read so far, in the longest row."""
        return max(self.lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of all layers; they do not grow while reading."""
        return sum(layer.n_bytes for layer in self.layers)

    def layer_memories(self, n_positions: int, counts: Sequence[int] | None) -> list[CachedAttention]:
        """Return each layer's part for the next `n_positions` a row, of which `counts` are real (None: all).

        Raises ContextTooLong if a row would go beyond n_ctx; nothing has changed then.
        """
        ends = self._ends(n_positions, counts)
        if max(ends) > self.n_ctx:
            raise ContextTooLong(max(ends), self.n_ctx, "the input")
        real = [end - start for start, end in zip(self.lengths, ends, strict=True)]
        return [CachedAttention(layer, self.lengths, real) for layer in self.layers]

    def positions(self, n_positions: int) -> Int[Tensor, "*B T"]:
        """Return the next positions; those beyond n_ctx are no real ones: they are given the last position."""
        if len(set(self.lengths)) == 1 and self.length + n_positions <= self.n_ctx:
            return torch.arange(self.length, self.length + n_positions)
        return (torch.tensor(self.lengths)[:, None] + torch.arange(n_positions)).clamp(max=self.n_ctx - 1)

    def advance(self, n_positions: int, counts: Sequence[int] | None) -> None:
        """Count the next positions as read, once every layer has read them."""
        self.lengths = self._ends(n_positions, counts)

    def _ends(self, n_positions: int, counts: Sequence[int] | None) -> list[int]:
        counts = [n_positions] * len(self.lengths) if counts is None else counts
        return [start + count for start, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        for layer in self.layers:
            layer.n_rows = len(rows)
            layer.buffers = [buffer[:, list(rows)] for buffer in layer.buffers]
        self.lengths = [self.lengths[b] for b in rows]

    def take_row(self, b: int, other: Cache) -> None:
        """Copy the only row of `other` into row `b`."""
        for mine, its in zip(self.layers, other.layers, strict=True):
            for buffer, source in zip(mine.buffers, its.buffers, strict=True):
                buffer[:, b] = source[:, 0]
        self.lengths[b] = other.lengths[0]
