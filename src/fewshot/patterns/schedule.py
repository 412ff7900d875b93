"""Which pattern each layer uses: a text goes in, a frozen schedule comes out, which prints as that text again.

The command line, the YAML and the checkpoint share this one parser. The grammar, blanks and case ignored:

    schedule = "alternate" "(" union {"," union} ")" | union
    union    = term {"|" term}
    term     = "(" union ")" | name ["(" argument {"," argument} ")"]
    argument = whole number | union

It refuses to know the number of layers.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np

from fewshot.base.errors import BadValue, UnknownName, check
from fewshot.patterns.pattern import PATTERNS, Pattern, PerHead

_TOKEN = re.compile(r"(?P<name>[^\W\d]\w*)|(?P<number>\d+)|(?P<sign>[(),|])", re.ASCII)
_DEEPEST = 20  # brackets inside brackets
_HEADS_TRIED, _POSITIONS_TRIED = 4, 64  # of a pattern of a kind that was not tried in tests


@dataclass(frozen=True)
class Schedule:
    """The patterns of layers 0, 1, ..., cycled; GPT-3's is `alternate(Dense(), Banded(256))`."""

    patterns: tuple[Pattern, ...]

    def __post_init__(self) -> None:
        check(len(self.patterns) > 0, "a schedule needs at least one pattern")
        for pattern in self.patterns:
            check(isinstance(pattern, Pattern), f"a schedule holds patterns, got {str(pattern)!r}")
            if not pattern.is_simple:
                _check_reads(pattern)

    def for_layer(self, i: int) -> Pattern:
        """Return the pattern of layer `i`, counted from 0."""
        return self.patterns[i % len(self.patterns)]

    @property
    def text(self) -> str:
        """The text that makes this schedule: `parse` reads it back."""
        texts = [pattern.text for pattern in self.patterns]
        return texts[0] if len(texts) == 1 else f"alternate({', '.join(texts)})"

    def __str__(self) -> str:
        return self.text


def alternate(*patterns: Pattern) -> Schedule:
    """Return the schedule that gives these patterns to the layers in turn (interleaved, in the paper's word)."""
    return Schedule(patterns)


def _check_reads(pattern: Pattern) -> None:
    """Raise BadValue for a pattern that reads a later position, or not itself: kernels would differ without a word."""
    heads, queries, keys = np.ogrid[:_HEADS_TRIED, :_POSITIONS_TRIED, :_POSITIONS_TRIED]
    allowed = np.broadcast_to(pattern.allows(queries, keys, heads), (_HEADS_TRIED, _POSITIONS_TRIED, _POSITIONS_TRIED))
    wrong = np.argwhere(np.where(keys > queries, allowed, ~allowed & (keys == queries)))
    if len(wrong):
        head, query, key = wrong[0].tolist()
        what = "does not read itself" if key == query else f"reads position {key}, which comes later"
        raise BadValue(f"pattern {pattern.text!r}: position {query} {what} (head {head}); correct its 'allows'")


def parse(text: str) -> Schedule:
    """Return the schedule that `text` spells, such as `alternate(dense, banded(256))`.

    A bare pattern is for every layer.
    Raises `BadValue` or `UnknownName` with the text, the position (counted from 1) and what is allowed there.
    """
    check(isinstance(text, str), f"a pattern is spelled as text such as 'banded(256)', got {text!r}")
    return _parse(text)


@lru_cache(maxsize=256)  # every layer, cache and kernel asks for it, at each call
def _parse(text: str) -> Schedule:
    return _Parser(text).schedule()


class _Parser:
    """A recursive descent parser with one token of lookahead; `at` is where that token starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.end = 0
        self.depth = 0
        self.kind, self.token = "", ""
        self.advance()

    def schedule(self) -> Schedule:
        if self.token == "alternate":
            self.advance()
            self.expect("(")
            patterns = [self.union()]
            while self.took(","):
                patterns.append(self.union())
            self.expect(")")
        else:
            patterns = [self.union()]
        if self.token:
            self.fail(f"expected the end, found {self.token!r}")
        return Schedule(tuple(patterns))

    def union(self) -> Pattern:
        merged = self.term()
        while self.took("|"):
            merged = merged | self.term()
        return merged

    def term(self) -> Pattern:
        at = self.at
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(f"brackets are nested more than {_DEEPEST} deep")
        if self.took("("):
            inner = self.union()
            self.expect(")")
        else:
            inner = self.named(at)
        self.depth -= 1
        return inner

    def named(self, at: int) -> Pattern:
        name = self.token
        if self.kind != "name":
            self.fail(f"expected a pattern, found {name!r}" if name else "expected a pattern, found the end")
        if name == "alternate":
            self.fail("alternate must be outermost: it cannot stand inside another pattern")
        if name not in PATTERNS:
            raise UnknownName(f"pattern at character {at + 1} of {self.text!r}:", name, PATTERNS)
        self.advance()
        arguments: list[int | Pattern] = []
        if self.took("(") and not self.took(")"):
            arguments.append(self.argument())
            while self.took(","):
                arguments.append(self.argument())
            self.expect(")")
        return self.build(name, arguments, at)

    def argument(self) -> int | Pattern:
        if self.kind != "number":
            return self.union()
        digits = self.token
        if len(digits) > 10:
            self.fail("this number is too large")
        self.advance()
        return int(digits)

    def build(self, name: str, arguments: list[int | Pattern], at: int) -> Pattern:
        kind = PATTERNS[name]
        fields = dataclasses.fields(kind)
        n_required = sum(field.default is dataclasses.MISSING for field in fields)
        if kind is not PerHead and not n_required <= len(arguments) <= len(fields):
            takes = ", ".join(field.name for field in fields) or "nothing"
            self.fail(f"{name} takes ({takes}), got {len(arguments)} argument(s)", at)
        try:
            return kind(*arguments)
        except BadValue as error:
            self.fail(str(error), at)

    def advance(self) -> None:
        """Move to the next token, in lower case; at the end it is empty."""
        rest = self.text[self.end :]
        self.at = self.end + len(rest) - len(rest.lstrip())
        token = _TOKEN.match(self.text, self.at)
        if token:
            self.kind, self.token, self.end = str(token.lastgroup), token[0].lower(), token.end()
        elif self.at < len(self.text):
            self.fail(f"unexpected {self.text[self.at]!r}")
        else:
            self.kind, self.token = "", ""

    def took(self, sign: str) -> bool:
        """Return whether the next token is `sign`; if so, move past it."""
        if self.token != sign:
            return False
        self.advance()
        return True

    def expect(self, sign: str) -> None:
        if not self.took(sign):
            self.fail(f"expected {sign!r}, found {self.token!r}" if self.token else f"expected {sign!r}, found the end")

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        where = (self.at if at is None else at) + 1
        raise BadValue(f"pattern {self.text!r}, character {where}: {problem}; known patterns: {', '.join(PATTERNS)}")
