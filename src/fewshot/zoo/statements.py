"""Statements checked against results. In: a finding's statements, results. Out: a line each, with value and band."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.zoo.finding import Finding, Statement
from fewshot.zoo.values import NotReached, Value, value_at


@dataclass(frozen=True)
class Outcome:
    """Whether a statement holds."""

    says: str
    holds: bool
    value: str  # with its interval
    band: str
    not_shown: str = ""  # why it is known not to hold

    @property
    def fails(self) -> bool:
        """Whether it should hold and does not."""
        return not self.holds and not self.not_shown

    @property
    def verdict(self) -> str:
        """Whether it holds, in words."""
        return "holds" if self.holds else "not shown" if self.not_shown else "FAILS"


def outcomes(finding: Finding, results: Mapping[str, Any]) -> Iterator[Outcome]:
    """Yield the outcome of every statement; raises BadValue where a path leads nowhere."""
    for statement in finding.expect:
        try:
            yield _outcome(statement, results)
        except NotReached as error:
            says = statement.says or statement.value
            yield Outcome(says, False, str(error), _bounds(statement), statement.not_shown)


def _outcome(statement: Statement, results: Mapping[str, Any]) -> Outcome:
    value = value_at(results, statement.value)
    shown, holds, bands = _shown(value), True, []
    if bounds := _bounds(statement):
        if statement.seeds is None:
            holds = _within(value.mean, statement)
        else:
            inside = sum(_within(number, statement) for number in value.values)
            holds = inside >= statement.seeds
            shown += f", {inside} of {len(value.values)}"
        bands.append(bounds)
    if statement.above is not None:
        other = value_at(results, statement.above)
        holds &= value.mean > statement.times * other.mean and value.mean - statement.times * other.mean >= statement.by
        times = "" if statement.times == 1 else f"{statement.times:g} times "
        bands.append(f"above {times}{_shown(other)}" + (f" by {statement.by:g}" if statement.by else ""))
        if statement.apart:
            holds &= value.low is not None and other.high is not None and value.low > other.high
            bands.append("intervals apart")
    return Outcome(statement.says or statement.value, holds, shown, ", ".join(bands), statement.not_shown)


def _within(number: float, statement: Statement) -> bool:
    at_least, at_most = statement.at_least, statement.at_most
    return (at_least is None or number >= at_least) and (at_most is None or number <= at_most)


def _bounds(statement: Statement) -> str:
    pairs = (("at least", statement.at_least), ("at most", statement.at_most))
    text = ", ".join(f"{words} {bound:g}" for words, bound in pairs if bound is not None)
    return text if statement.seeds is None else f"{text} in {statement.seeds}"


def _shown(value: Value) -> str:
    half = "" if value.high is None else f" ± {value.high - value.mean:.2g}"
    return f"{value.mean:.4g}{half}"
