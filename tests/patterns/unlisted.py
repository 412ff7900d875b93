"""Kinds of patterns that no file of the package knows, and what can be made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewshot.patterns.pattern import PATTERNS, Banded, Columns, Dense, Fixed, Pattern, PerHead, Strided


@dataclass(frozen=True)
class EveryThird(Pattern):
    """Itself and every third position of the text."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((k % 3 == 0) | (k == q))


@dataclass(frozen=True)
class PrimesBack(Pattern):
    """Itself and what lies a prime number of positions back."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        back, prime = q - k, (q - k != 1)
        for divisor in range(2, 32):
            prime = prime & ((back % divisor != 0) | (back <= divisor))
        return (k <= q) & prime


@dataclass(frozen=True)
class HeadSteps(Pattern):
    """Itself and every `first + h`-th position before: no two heads are alike."""

    first: int = 1
    offset: int = 0  # the second of two arguments that may be left out

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((q - k + self.offset) % (self.first + h) == 0) | (k == q)


@dataclass(frozen=True)
class Widening(Pattern):
    """The later half of what came before: a band that grows."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & (2 * k >= q)


@dataclass(frozen=True)
class Beginning(Pattern):
    """The first positions and the last ones, as an attention sink has it."""

    n: int
    window: int

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((k < self.n) | (q - k < self.window))


@dataclass(frozen=True)
class OnlySelf(Pattern):
    """Nothing but itself."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return k == q


@dataclass(frozen=True)
class Scattered(Pattern):
    """About one key in two, with no order in it."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & (((q * 37 + k * 101) % 17 < 8) | (k == q))


@dataclass(frozen=True)
class Gapped(Banded):
    """A subclass of a kind that is known, which reads something else."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((q - k >= self.window) | (k == q))


@dataclass(frozen=True)
class EvenFixed(Fixed):
    """A subclass of a kind that falls into known parts, which reads something else."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((k % 2 == 0) & (q // self.block == k // self.block) | (k == q))


@dataclass(frozen=True)
class LateDense(Dense):
    """A subclass of the densest kind, which reads less."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((k > 2) | (k == q))


@dataclass(frozen=True)
class Delayed(Pattern):
    """Itself and what another pattern reads: a pattern that holds one."""

    inner: Pattern

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (q % 2 == 0) & self.inner.allows(q, k, h) | (k == q)


UNLISTED: dict[str, type[Pattern]] = {
    "every_third": EveryThird,
    "primesback": PrimesBack,
    "headsteps": HeadSteps,
    "widening": Widening,
    "beginning": Beginning,
    "onlyself": OnlySelf,
    "scattered": Scattered,
    "gapped": Gapped,
    "evenfixed": EvenFixed,
    "latedense": LateDense,
    "delayed": Delayed,
}
ODD = [
    EveryThird(),
    PrimesBack(),
    HeadSteps(),
    HeadSteps(1, 2),
    Widening(),
    Beginning(2, 3),
    OnlySelf(),
    Scattered(),
    Gapped(3),
    EvenFixed(5, 2),
    LateDense(),
    Delayed(Strided(3)),
    Delayed(HeadSteps(2)),
]


def all_patterns() -> list[Pattern]:
    """Those of ODD, and combinations of them: to be asked for once they are in the table, which orders their parts."""
    assert PATTERNS.items() >= UNLISTED.items()
    return [
        *ODD,
        EveryThird() | Banded(2),
        Strided(4) | PrimesBack() | Columns(6, 2),
        Fixed(8, 3) | Scattered() | EveryThird(),
        HeadSteps(2) | Banded(2),
        Gapped(4) | Gapped(3),
        LateDense() | Strided(2),
        PerHead(PrimesBack(), Dense(), EveryThird()),
        PerHead(HeadSteps(2), Widening()),
        PerHead(Banded(2), EveryThird()) | HeadSteps(3),
    ]


N_PATTERNS = len(ODD) + 9
