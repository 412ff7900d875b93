"""What learning a new task costs and gives, on one axis for every learner. In: figures of many tasks. Out: curves.

A learner in weights takes gradient steps on K examples; a learner in context reads them. Both are judged by what they
make of other examples of the same unseen task, against examples seen, gradient steps and FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadValue, Diverged, check
from fewshot.evaluate.variation import spread
from fewshot.meta.outer_loop import Step

MOST = 2**53  # whole numbers up to here are numbers of a figure's axis too
LARGEST = 1e300  # what is beyond cannot be drawn
KINDS = ("weights", "context", "baseline", "bound")


@dataclass(frozen=True, kw_only=True)
class Point:
    """The mean over unseen tasks, with its 95% interval, after seeing so much of each."""

    n_examples: int  # of the new task
    n_steps: int = 0  # gradient steps on them
    flops: float | None = None  # to take in the examples of one task and answer one query
    mean: float
    low: float
    high: float
    n: int  # tasks, or seeds, that the interval is over

    def __post_init__(self) -> None:
        counts = (self.n_examples, self.n_steps, self.n - 1)
        check(
            all(0 <= count < MOST for count in counts),
            f"a point has n_examples {self.n_examples}, n_steps {self.n_steps} and n {self.n}, allowed: from 0, "
            f"from 0, from 1, below {MOST}",
        )
        check(
            _is_figure(self.mean) and self.low <= self.mean <= self.high and _is_figure(self.high - self.low),
            f"a point's mean is {self.mean}, its interval {self.low} to {self.high}: finite numbers in order are due",
        )
        check(self.flops is None or 0 <= self.flops < math.inf, f"a point's flops is {self.flops}, must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One learner's points."""

    learner: str
    kind: str  # of KINDS: "weights" learns by gradient steps, "context" by reading; "bound" is the best possible
    points: tuple[Point, ...]
    tasks: str = ""  # where one result has several sorts of tasks, which
    training_flops: float | None = None  # of the outer loop
    training_seconds: float | None = None

    def __post_init__(self) -> None:
        check(self.kind in KINDS, f"kind is {self.kind!r}, allowed: {', '.join(KINDS)}")
        for name in ("training_flops", "training_seconds"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, f"{name} is {value}, must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that one command found about one sort of task."""

    tasks: str
    quantity: str  # what a point's mean is: "mean squared error", "accuracy"
    curves: tuple[Curve, ...]
    more_is_better: bool = False
    history: dict[str, Any] = field(default_factory=dict)  # rows that the outer loops reported, by name
    about: dict[str, Any] = field(default_factory=dict)  # settings and machine

    def __post_init__(self) -> None:
        for name, rows in self.history.items():
            alike = isinstance(rows, list) and all(_is_row(row) and row.keys() == rows[0].keys() for row in rows)
            check(alike, f"history.{name} is no list of rows of the same figures")


def _is_row(row: object) -> bool:
    return isinstance(row, Mapping) and {"iteration", "loss"} <= row.keys() and all(map(_is_figure, row.values()))


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def to_json(measured: Measured) -> dict[str, Any]:
    """As plain values."""
    return to_plain(measured)


def from_json(plain: Mapping[str, Any], *, where: str) -> Measured:
    """Back from plain values; raises BadValue, as `from_plain` does, for what is none."""
    try:
        return from_plain(Measured, plain, where=where)
    except BadValue as error:
        if where in str(error):
            raise
        raise BadValue(f"{where} is no result of meta: {error}") from None


def point(values: Sequence[float], *, n_examples: int, n_steps: int = 0, flops: float | None = None) -> Point:
    """Return the mean of one figure for each of N tasks (or seeds), with its 95% interval by Student's t; raises
    Diverged.
    """
    lost = sum(not math.isfinite(value) for value in values)
    if lost:
        given = f"{n_steps} gradient steps on {n_examples} examples"
        way_out = (
            "lower its step size, such as learner.step_size, or test with fewer steps"
            if n_steps
            else "the model has diverged: lower lr"
        )
        raise Diverged(f"after {given} the figure of {lost} of {len(values)} tasks is no number: {way_out}")
    over = spread(values)
    half = over.half_width or 0.0
    low, high = over.mean - half, over.mean + half
    return Point(n_examples=n_examples, n_steps=n_steps, flops=flops, mean=over.mean, low=low, high=high, n=over.n)


def flops_of(work: Callable[[], object]) -> float:
    """Return floating point operations of matrix products and convolutions in `work`, backward passes included.

    Counted by torch as they run, under `torch.func` too. Additions, norms and activations are left out, as in GPT-3's
    Appendix D; so are kernels of ours that torch does not know: take `reference` or `sdpa`.
    """
    with (
        torch.compiler.set_stance("force_eager"),  # what is compiled is not counted,
        sdpa_kernel(SDPBackend.MATH),  # nor is a CPU's fused attention
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return float(counter.get_total_flops())


def training_flops(step: Step, *, n_iterations: int) -> float:
    """Return those of an outer loop: an iteration's, forward and backward, half-way through, times their number."""

    def iterate() -> None:
        loss = step(torch.Generator().manual_seed(0), 0.5)
        if loss.slopes is None:
            loss.value.backward()

    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        iterate()  # the first one may trace its program, which is not to be counted
        return n_iterations * flops_of(iterate)
