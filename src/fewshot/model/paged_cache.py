"""The KV cache in pages of 16 positions: texts of any length side by side, which may share what they begin with.

Heads with the same pattern, of all layers, have one kind of page. A text has a table of pages for each kind, and can
let go of a page when its pattern cannot read it again; a page that several texts hold is free with the last of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.kernels.interface import Attend
from fewshot.kernels.invariant.attention import GROUP, PageBatch, Units, attend_pages, new_pages, write_pages
from fewshot.kernels.invariant.blocks import PagePart
from fewshot.model.config import GPTConfig
from fewshot.patterns.pages import PAGE, most_pages, page_list, pages_needed
from fewshot.patterns.pattern import Pattern

TOO_FEW = "more pages are asked for than were reserved"


class _Kind:
    """The pages of all heads with one pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern, self.n_units, self.page_bytes = pattern, 0, 0
        self.pages = torch.empty(0)
        self.holders: list[int] = []  # of each page that was ever taken
        self.free: list[int] = []  # a heap: low pages first, so that memory once used is used again

    @property
    def n_used(self) -> int:
        return len(self.holders) - len(self.free)

    def take(self) -> int:
        """Return a page that nobody holds; twice as many are made where there is none."""
        if not self.free:
            if len(self.holders) == len(self.pages):
                self.pages = torch.cat([self.pages, torch.zeros_like(self.pages)])
            heapq.heappush(self.free, len(self.holders))
            self.holders.append(0)
        page = heapq.heappop(self.free)
        self.holders[page] = 1
        return page


@dataclass
class CachedText:
    """What a cache holds of one text: for each kind the page of every 16 positions, as far as it was not let go."""

    tables: list[dict[int, int]]
    length: int = 0
    trimmed: int = -1  # the page that was being filled when it last let go of some


class PagedCache:
    """Keys and values of many texts in up to `n_bytes` (None: as many as come); see `bytes_of_text`.

    Where all is used `make_room` is asked to let go of something; it returns whether it did.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        n_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.n_bytes = config, n_bytes
        self.make_room: Callable[[], bool] = lambda: False
        self.kinds: list[_Kind] = []
        self.layers: list[list[tuple[int, Units]]] = []  # of each layer: kinds and their heads
        schedule, by_pattern = config.schedule(), dict[Pattern, int]()
        for i in range(config.n_layers):
            patterns = schedule.for_layer(i).for_heads(config.n_heads)[: config.n_heads]
            parts = []
            for first, pattern in enumerate(patterns):
                number = by_pattern.setdefault(pattern, len(by_pattern))
                if number == len(self.kinds):
                    self.kinds.append(_Kind(pattern))
                kind, heads = self.kinds[number], slice(first, None, len(patterns))
                parts.append((number, Units(heads, kind.n_units)))
                kind.n_units += len(range(config.n_heads)[heads])
            self.layers.append(parts)
        for kind in self.kinds:
            kind.page_bytes = new_pages(1, kind.n_units, config.head_width, dtype, "meta").nbytes
        whole = self.bytes_of_text(config.n_ctx, n_new=1)
        for kind in self.kinds:
            n_pages = 1 if n_bytes is None else n_bytes // kind.page_bytes
            if torch.device(device).type != "cpu" and n_bytes is not None:
                # Memory is given at once there: each kind has its share. A CPU's is given when it is written.
                n_pages = n_bytes * most_pages(kind.pattern, config.n_ctx, config.n_ctx, 1) // whole
            kind.pages = new_pages(max(1, n_pages), kind.n_units, config.head_width, dtype, device)

    def bytes_of_text(self, length: int, *, n_new: int) -> int:
        """Return the most bytes that a text of `length` positions needs, if up to `n_new` are read in a step."""
        n_ctx = self.config.n_ctx
        return sum(most_pages(kind.pattern, n_ctx, min(length, n_ctx), n_new) * kind.page_bytes for kind in self.kinds)

    @property
    def n_used_bytes(self) -> int:
        """Bytes of the pages that are held."""
        return sum(kind.n_used * kind.page_bytes for kind in self.kinds)

    def new_text(self) -> CachedText:
        """Return an empty text."""
        return CachedText([{} for _ in self.kinds])

    def take(self, kind: _Kind) -> int:
        """Return a page that nobody holds."""
        while not self._has_room(kind):
            assert self.make_room(), TOO_FEW
        return kind.take()

    def let_go(self, kind: _Kind, page: int) -> None:
        """Hold a page once less."""
        kind.holders[page] -= 1
        if kind.holders[page] == 0:
            heapq.heappush(kind.free, page)

    def share(self, text: CachedText, twin: CachedText) -> None:
        """Hold in `twin` all pages of `text` that it does not hold yet, as far as its length."""
        for kind, table, to in zip(self.kinds, text.tables, twin.tables, strict=True):
            for number, page in table.items():
                if number not in to and number * PAGE < twin.length:
                    kind.holders[page] += 1
                    to[number] = page

    def copy(self, text: CachedText, length: int) -> CachedText | None:
        """Return a text that goes on after the first `length` positions; None if what it needs was let go.

        Whole pages are shared; one that is still to be filled is copied.
        """
        twin = CachedText([{} for _ in self.kinds], length)
        needed = [pages_needed(kind.pattern, self.config.n_ctx, length) for kind in self.kinds]
        if not all(numbers <= table.keys() for numbers, table in zip(needed, text.tables, strict=True)):
            return None
        for kind, table, to, numbers in zip(self.kinds, text.tables, twin.tables, needed, strict=True):
            for number in numbers:
                kind.holders[table[number]] += 1
                to[number] = table[number]
        if length % PAGE:
            for kind, to in zip(self.kinds, twin.tables, strict=True):
                to[length // PAGE] = self._own(kind, to[length // PAGE])
        return twin

    def _own(self, kind: _Kind, page: int) -> int:
        """Return a page with what this one holds, which nobody else holds; the other is let go."""
        while kind.holders[page] > 1 and not self._has_room(kind):
            assert self.make_room(), TOO_FEW  # after which the page may be held once
        if kind.holders[page] == 1:
            return page
        own = kind.take()
        kind.pages[own] = kind.pages[page]
        self.let_go(kind, page)
        return own

    def _has_room(self, kind: _Kind) -> bool:
        return self.n_bytes is None or self.n_used_bytes + kind.page_bytes <= self.n_bytes

    def trim(self, text: CachedText) -> bool:
        """Let go of the pages that no pattern will read again; return whether there were any.

        To be called after every step; it looks only when a page was filled, as no more are held before the next one is.
        """
        n_ctx, any_gone = self.config.n_ctx, False
        if text.trimmed == text.length // PAGE:
            return False
        text.trimmed = text.length // PAGE
        for kind, table in zip(self.kinds, text.tables, strict=True):
            needed = pages_needed(kind.pattern, n_ctx, text.length)
            for number in [number for number in table if number not in needed]:
                self.let_go(kind, table.pop(number))
                any_gone = True
        return any_gone

    def drop(self, text: CachedText) -> None:
        """Let go of all that is held of a text."""
        for kind, table in zip(self.kinds, text.tables, strict=True):
            for page in table.values():
                self.let_go(kind, page)
            table.clear()


class PagedMemory:
    """The memory of one call of `GPT.read` with one row: the new positions of several texts, end to end."""

    def __init__(self, cache: PagedCache, texts: Sequence[CachedText], counts: Sequence[int]) -> None:
        self.cache, self.texts, self.counts = cache, texts, counts
        n_ctx = cache.config.n_ctx
        for text, count in zip(texts, counts, strict=True):
            if text.length + count > n_ctx:
                raise ContextTooLong(text.length + count, n_ctx)
        for kind, tables in zip(cache.kinds, zip(*(text.tables for text in texts), strict=True), strict=True):
            for text, count, table in zip(texts, counts, tables, strict=True):
                for number in range(-(-text.length // PAGE), -(-(text.length + count) // PAGE)):
                    if number not in table:  # as it is after a step that failed
                        table[number] = cache.take(kind)
        positions = [np.arange(text.length, text.length + count) for text, count in zip(texts, counts, strict=True)]
        self._positions = torch.from_numpy(np.concatenate(positions))
        self._batches = [self._batch(at) for at in range(len(cache.kinds))]
        self._slots = [self._new_slots(at, positions) for at in range(len(cache.kinds))]

    def _batch(self, at: int) -> PageBatch:
        """Return what the new positions read of one kind of page."""
        pattern = self.cache.kinds[at].pattern
        query_ends, page_ends, pages, masks = [], [], [], []
        n_queries = n_pages = 0
        for text, count in zip(self.texts, self.counts, strict=True):
            table = text.tables[at]
            for first in range(text.length, text.length + count, GROUP):
                n = min(GROUP, text.length + count - first)
                numbers, of_queries = page_list(pattern, first, n, GROUP)
                n_queries, n_pages = n_queries + n, n_pages + len(numbers)
                query_ends.append(n_queries)
                page_ends.append(n_pages)
                pages += [table[number] for number in numbers.tolist()]
                masks.append(of_queries)
        ends = (np.array(query_ends, dtype=np.int64), np.array(page_ends, dtype=np.int64))
        return PageBatch(*ends, np.array(pages, dtype=np.int32), np.concatenate(masks))

    def _new_slots(self, at: int, positions: Sequence[np.ndarray]) -> Int[Tensor, " N"]:
        slots = [
            text.tables[at][position // PAGE] * PAGE + position % PAGE
            for text, own in zip(self.texts, positions, strict=True)
            for position in own.tolist()
        ]
        return torch.tensor(slots, dtype=torch.long)

    def positions(self, n_positions: int) -> Int[Tensor, " T"]:
        """Return the positions, each in its own text."""
        return self._positions

    def layer_memories(self, n_positions: int) -> list[LayerPages]:
        """Return each layer's part."""
        assert n_positions == len(self._positions)
        return [LayerPages(self, parts) for parts in self.cache.layers]

    def advance(self, n_positions: int) -> None:
        """Count the positions as read."""
        for text, count in zip(self.texts, self.counts, strict=True):
            text.length += count


@dataclass(frozen=True)
class LayerPages:
    """A layer's part: its heads by the kind of page that they have."""

    memory: PagedMemory
    parts: Sequence[tuple[int, Units]]

    def page_parts(self) -> list[PagePart]:
        """Return what C++ needs to run the layer."""
        cache, batches, slots = self.memory.cache, self.memory._batches, self.memory._slots
        return [PagePart(cache.kinds[at].pages, units, batches[at], slots[at]) for at, units in self.parts]

    def attend(
        self,
        q: Float[Tensor, "1 H N K"],
        k: Float[Tensor, "1 H N K"],
        v: Float[Tensor, "1 H N K"],
        attend: Attend,
    ) -> Float[Tensor, "1 H N K"]:
        """Write the new keys and values, and attend from the new positions to all that the pattern allows."""
        kind, (q, k, v) = v.dtype, (x[0].transpose(0, 1).float() for x in (q, k, v))
        out = torch.empty(q.shape, dtype=torch.float32, device=q.device)
        for number, units in self.parts:
            pages = self.memory.cache.kinds[number].pages
            write_pages(pages, units, k, v, self.memory._slots[number])
            attend_pages(q, pages, units, self.memory._batches[number], out)
        return out.transpose(0, 1)[None].to(kind)
