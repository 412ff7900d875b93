"""How a model is divided over processes. In: five numbers. Out: what each process has, or why that cannot be.

pp divides the layers, tp the heads and the feed-forward width, fsdp weights, gradients and optimizer state; dp divides
nothing but the rows of a batch, cp the positions of every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fewshot.model.config import GPTConfig

SIZES = ("dp", "fsdp", "tp", "pp", "cp")  # in this order wherever a layout is written
TRIED = SIZES[:-1]  # by a plan that may choose; cp is for rows that are too long otherwise


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The sizes of the dimensions that processes are arranged in."""

    dp: int = 1  # copies of everything
    fsdp: int = 1  # processes among which weights, gradients and optimizer state are divided
    tp: int = 1  # processes among which heads and feed-forward width are divided
    pp: int = 1  # stages of a pipeline
    cp: int = 1  # processes among which the positions of a row are divided

    @property
    def n_processes(self) -> int:
        """Processes that the layout takes."""
        return math.prod(getattr(self, name) for name in SIZES)

    @property
    def n_data(self) -> int:
        """Over how many processes the rows of a batch are spread."""
        return self.dp * self.fsdp

    @property
    def n_copies(self) -> int:
        """How many processes have the same share of the weights."""
        return self.dp * self.cp

    @property
    def text(self) -> str:
        """The layout as "dp 1 x fsdp 64 x tp 8 x pp 2", and cp where it is not 1."""
        return " x ".join(f"{name} {getattr(self, name)}" for name in SIZES if name in TRIED or self.cp > 1)

    @property
    def options(self) -> str:
        """The layout as options of a command, those of 1 left out."""
        given = [f"--parallel.{name} {getattr(self, name)}" for name in SIZES if getattr(self, name) > 1]
        return " ".join(given) or "--parallel.dp 1"


def why_not(layout: Layout, config: GPTConfig) -> str | None:
    """Return why a model cannot be divided so, or None if it can."""
    together = layout.cp > 1 and layout.pp > 1
    return (
        heads_problem(config, layout.tp)
        or stages_problem(config, layout.pp)
        or context_problem(config, layout.cp)
        or ("parallel.cp and parallel.pp cannot be used together: leave one of them out" if together else None)
    )


def heads_problem(config: GPTConfig, tp: int) -> str | None:
    """Return why heads or feed-forward units cannot be shared out evenly over `tp` processes, or None if they can."""
    for name, n in (("n_heads", config.n_heads), ("d_ff", config.ff_width)):
        if n % tp:
            return f"parallel.tp is {tp}, but model.{name} {n} is not a multiple of it: lower --parallel.tp"
    n_heads = config.n_heads // tp
    for pattern in config.patterns:
        n_kinds = len(pattern.by_head)
        if n_heads % n_kinds:
            return (
                f"parallel.tp is {tp}, which leaves {n_heads} heads for the {n_kinds} kinds of {pattern}: "
                "lower --parallel.tp, so that each process has whole rounds of them"
            )
    return None


def stages_problem(config: GPTConfig, pp: int) -> str | None:
    """Return why a model has too few blocks for `pp` stages, or None if it has enough."""
    if config.n_layers < pp:
        return f"parallel.pp is {pp}, but the model has {config.n_layers} layers: lower --parallel.pp"
    return None


def context_problem(config: GPTConfig, cp: int) -> str | None:
    """Return why the positions of a row cannot be shared out evenly over `cp` processes, or None if they can."""
    if config.n_ctx % cp:
        return f"parallel.cp is {cp}, but model.n_ctx {config.n_ctx} is not a multiple of it: lower --parallel.cp"
    if cp > 1 and config.dropout:
        return (
            f"parallel.cp is {cp}, but model.dropout is {config.dropout}, drawn for whole rows: leave one of them out"
        )
    return None


def stage_layers(n_layers: int, pp: int) -> list[int]:
    """Return how many layers each stage of a pipeline has: as even as can be, the later stages one more."""
    return [(n_layers + stage) // pp for stage in range(pp)]


def divisors(n: int) -> list[int]:
    """Return the divisors of a number, in order."""
    small = [i for i in range(1, math.isqrt(n) + 1) if n % i == 0]
    return sorted({*small, *(n // i for i in small)})


def layouts(n_processes: int, *, given: dict[str, int]) -> Iterator[Layout]:
    """Yield all layouts of so many processes that have the `given` sizes; cp is 1 unless it is given."""
    fixed = math.prod(given.values())
    if n_processes % fixed:
        return
    yield from _filled(n_processes // fixed, [name for name in TRIED if name not in given], given)


def _filled(left: int, names: list[str], sizes: dict[str, int]) -> Iterator[Layout]:
    if not names:
        if left == 1:
            yield Layout(**sizes)
        return
    for size in divisors(left) if len(names) > 1 else [left]:
        yield from _filled(left // size, names[1:], {**sizes, names[0]: size})
