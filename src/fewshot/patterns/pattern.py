"""Who may read whom: positions go in (ints, NumPy arrays or tensors), true or false comes out.

A pattern is a frozen value: it can be compared, hashed, printed and sent through a text file. Its one definition,
`allows`, uses only `& | == - // %` and comparisons, so that tests, layouts and masks all share it. Every pattern is
causal, and every query reads at least itself. It refuses to know tensors, kernels and the number of positions.

Layouts, kernels and caches know fast ways for the kinds in `SIMPLE`; for any other they work from `allows` alone.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.base.errors import check

_LARGEST = 2**31 - 1  # positions and their differences must fit int32


@dataclass(frozen=True)
class Pattern(abc.ABC):
    """Who may read whom. `A | B` merges two patterns into one head that reads what either allows."""

    def __init_subclass__(cls) -> None:
        """Reset `parts` and `by_head` in a kind that defines `allows` anew: another kind's would be wrong."""
        super().__init_subclass__()
        if "allows" in vars(cls):
            for name in {"parts", "by_head"} - set(vars(cls)):
                setattr(cls, name, getattr(Pattern, name))

    @abc.abstractmethod
    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        """Return whether the query at position `q` may read the key at position `k` in head `h`, elementwise."""

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """The simple patterns whose union this is, local ones first; they may overlap."""
        return (self,)

    @property
    def is_simple(self) -> bool:
        """Whether all its parts are of the kinds in SIMPLE."""
        return all(type(part) in SIMPLE for pattern in self.by_head for part in pattern.parts)

    @property
    def by_head(self) -> tuple[Pattern, ...]:
        """The patterns of heads 0, 1, ..., cycled: one entry if all heads are alike or `allows` tells them apart."""
        return (self,)

    @property
    def needs_heads(self) -> bool:
        """Whether `allows` depends on the head: its answer then has an axis as long as `h`."""
        return np.ndim(self.allows(0, 0, np.arange(2))) > 0

    def for_head(self, h: int) -> Pattern:
        """Return the pattern of head `h` alone, which is alike in all heads."""
        pattern = self.by_head[h % len(self.by_head)]
        return AtHead(pattern, h) if pattern.needs_heads else pattern

    def for_heads(self, n_heads: int) -> tuple[Pattern, ...]:
        """Return the patterns of `n_heads` heads, each alike in all heads; fewer, to be cycled, where they repeat."""
        if any(pattern.needs_heads for pattern in self.by_head):
            return tuple(self.for_head(h) for h in range(n_heads))
        return self.by_head

    @property
    def text(self) -> str:
        """The text that makes this pattern: `schedule.parse` reads it back."""
        values = [(getattr(self, field.name), field.default) for field in dataclasses.fields(self)]
        while values and values[-1][0] == values[-1][1]:  # arguments have no names: only the last can be left out
            values.pop()
        name = next((name for name, kind in PATTERNS.items() if kind is type(self)), type(self).__name__.lower())
        return name + (f"({', '.join(str(value) for value, _ in values)})" if values else "")

    def __str__(self) -> str:
        return self.text

    def __or__(self, other: Pattern) -> Pattern:
        return _merge([self, other]) if isinstance(other, Pattern) else NotImplemented

    def _check_whole(self, name: str, *, least: int = 1, most: int = _LARGEST) -> None:
        value = getattr(self, name)
        check(
            type(value) is int and least <= value <= most,
            f"{name} of {type(self).__name__.lower()} must be a whole number from {least} to {most}, got {value!r}",
        )


@dataclass(frozen=True)
class Dense(Pattern):
    """Every earlier position and itself."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        return k <= q


@dataclass(frozen=True)
class Banded(Pattern):
    """The last `window` positions, itself included.

    OpenAI's `local` and GPT-Neo count so; the paper's first strided step as printed is `Banded(l + 1)`.
    Source: Child et al. 2019, section 4.3.
    """

    window: int  # keys that a query reads, itself included

    def __post_init__(self) -> None:
        self._check_whole("window")

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        return (k <= q) & (q - k < self.window)


@dataclass(frozen=True)
class Strided(Pattern):
    """Itself and every `stride`-th position before: the second step of strided attention (Child et al. 2019, 4.3)."""

    stride: int  # positions between two keys

    def __post_init__(self) -> None:
        self._check_whole("stride")

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        return (k <= q) & ((q - k) % self.stride == 0)


@dataclass(frozen=True)
class Block(Pattern):
    """Its own block up to itself: the first step of fixed attention (Child et al. 2019, 4.3)."""

    block: int  # positions in a block, the paper's l

    def __post_init__(self) -> None:
        self._check_whole("block")

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        return (k <= q) & (q // self.block == k // self.block)


@dataclass(frozen=True)
class Columns(Pattern):
    """The summary columns of every block so far, and itself: the second step of fixed attention.

    `index` picks one of the sub-blocks of `c` columns, counted from the end of the block, so that heads can use
    distinct ones. The paper's definition leaves some queries without a key; here each also reads itself.
    Source: Child et al. 2019, section 4.3; openai/sparse_attention counts its verticals so.
    """

    block: int  # positions in a block, the paper's l
    c: int  # summary columns in a block
    index: int = 0  # sub-block of c columns, counted from the end of the block

    def __post_init__(self) -> None:
        self._check_whole("block")
        self._check_whole("c", most=self.block)
        self._check_whole("index", least=0, most=self.block // self.c - 1)

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        end = self.block - self.index * self.c
        column = k % self.block
        return (k <= q) & ((column >= end - self.c) & (column < end) | (k == q))


@dataclass(frozen=True)
class Fixed(Pattern):
    """Its own block up to itself and the last `c` columns of every earlier block: `Block(block) | Columns(block, c)`.

    Both steps merged into one head, as openai/sparse_attention has it. Source: Child et al. 2019, sections 4.3, 5.1.
    """

    block: int  # positions in a block, the paper's l
    c: int  # summary columns at the end of a block

    def __post_init__(self) -> None:
        self._check_whole("block")
        self._check_whole("c", most=self.block)

    @property
    def parts(self) -> tuple[Pattern, ...]:  # noqa: D102
        return Block(self.block), Columns(self.block, self.c)

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        own, summary = self.parts
        return own.allows(q, k) | summary.allows(q, k)


@dataclass(frozen=True)
class Union(Pattern):
    """What any of its members allows, in one head; written `A | B`, which puts the members in order."""

    members: tuple[Pattern, ...]  # at least two simple patterns, in the order of PATTERNS

    def __post_init__(self) -> None:
        check(
            len(self.members) > 1 and _simple_parts(self.members) == self.members,
            "a union is written A | B, which puts its members in order",
        )

    @property
    def parts(self) -> tuple[Pattern, ...]:  # noqa: D102
        return self.members

    @property
    def text(self) -> str:  # noqa: D102
        return " | ".join(member.text for member in self.members)

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        allowed = self.members[0].allows(q, k, h)
        for member in self.members[1:]:
            allowed = allowed | member.allows(q, k, h)
        return allowed


@dataclass(frozen=True, init=False)
class PerHead(Pattern):
    """Heads that differ: head h uses the pattern number h modulo their count."""

    patterns: tuple[Pattern, ...]

    def __init__(self, *patterns: Pattern) -> None:
        check(len(patterns) > 1, f"perhead needs two patterns or more, got {len(patterns)}")
        for pattern in patterns:
            simple = isinstance(pattern, Pattern) and not isinstance(pattern, PerHead)
            check(simple, f"perhead takes patterns other than perhead, got {str(pattern)!r}")
        object.__setattr__(self, "patterns", patterns)

    @property
    def needs_heads(self) -> bool:  # noqa: D102
        first, *others = self.patterns
        return any(pattern != first for pattern in others) or first.needs_heads

    @property
    def by_head(self) -> tuple[Pattern, ...]:  # noqa: D102
        return self.patterns

    @property
    def text(self) -> str:  # noqa: D102
        return f"perhead({', '.join(pattern.text for pattern in self.patterns)})"

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        turn = h % len(self.patterns)
        allowed = (turn == 0) & self.patterns[0].allows(q, k, h)
        for number, pattern in enumerate(self.patterns[1:], start=1):
            allowed = allowed | (turn == number) & pattern.allows(q, k, h)
        return allowed


@dataclass(frozen=True)
class AtHead(Pattern):
    """One head of a pattern whose `allows` tells heads apart; no text spells it."""

    pattern: Pattern
    head: int

    @property
    def text(self) -> str:  # noqa: D102
        return f"{self.pattern.text} at head {self.head}"

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:  # noqa: D102
        return self.pattern.allows(q, k, self.head)


PATTERNS: dict[str, type[Pattern]] = {
    "dense": Dense,
    "banded": Banded,
    "block": Block,
    "columns": Columns,
    "fixed": Fixed,
    "strided": Strided,
    "perhead": PerHead,
}
SIMPLE = (Dense, Banded, Strided, Block, Columns)  # by their exact type: a subclass may read something else


def _simple_parts(patterns: Iterable[Pattern]) -> tuple[Pattern, ...]:
    """Return every part once, in the order of PATTERNS and then of their numbers: local parts come first."""
    kinds = list(PATTERNS.values())

    def place(part: Pattern) -> tuple[int, list[int], str]:
        kind = kinds.index(type(part)) if type(part) in kinds else len(kinds)
        values = [getattr(part, field.name) for field in dataclasses.fields(part)]
        return kind, [value for value in values if isinstance(value, int)], part.text

    return tuple(sorted({part for pattern in patterns for part in pattern.parts}, key=place))


def _merge(patterns: list[Pattern]) -> Pattern:
    """Return the union in its canonical form: equal sets of parts give equal values."""
    n_heads = math.lcm(*(len(pattern.by_head) for pattern in patterns))
    if n_heads > 1:
        return PerHead(
            *(_merge([pattern.by_head[h % len(pattern.by_head)] for pattern in patterns]) for h in range(n_heads))
        )
    match parts := _simple_parts(patterns):
        case (only,):
            return only
        case (first, *_) if first == Dense():  # it allows what any other does
            return first
        case (Block(block), Columns(same, c)) if block == same and parts == Fixed(block, c).parts:
            return Fixed(block, c)
    return Union(parts)
