"""Which kernel computes attention: a name and a need go in, a kernel and the reason come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from fewshot.base.errors import KernelUnsupported, UnknownName
from fewshot.kernels import flex, native, reference, sdpa, triton_strips
from fewshot.kernels.need import Attend, Kernel, Need
from fewshot.patterns.pattern import Pattern

# In the order in which `auto` tries them; the last one fits every need.
KERNELS: dict[str, Kernel] = {
    "native": native,
    "triton": triton_strips,
    "flex": flex,
    "sdpa": sdpa,
    "reference": reference,
}


def choose(name: str, need: Need) -> tuple[Attend, str]:
    """The kernel called `name` and, for the log, why it was taken; `auto` takes the first that fits.

    Raises KernelUnsupported with the reason if a named kernel cannot do what is needed, UnknownName if there is none.
    """
    if name == "auto":
        return _first_that_fits(need)
    if name not in KERNELS:
        raise UnknownName("kernel", name, ["auto", *KERNELS])
    if problem := KERNELS[name].supports(need):
        raise KernelUnsupported(f"kernel {name!r} does not fit {need.pattern}: {problem}; use 'auto'")
    return KERNELS[name].attend, f"kernel {name} for {need.pattern}: asked for by name"


def choose_for(patterns: Iterable[Pattern], name: str, need: Need) -> tuple[Attend, list[str]]:
    """A kernel for a model with several patterns, each chosen by itself; and why. `need.pattern` is not looked at."""
    chosen = {pattern: choose(name, dataclasses.replace(need, pattern=pattern)) for pattern in patterns}
    kernels = {pattern: attend for pattern, (attend, _) in chosen.items()}
    reasons = [why for _, why in chosen.values()]
    first = next(iter(kernels.values()))
    if all(attend is first for attend in kernels.values()):
        return first, reasons

    def attend_by_pattern(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pattern: Pattern,
        *,
        q_start: int = 0,
        documents: Tensor | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        return kernels[pattern](q, k, v, pattern, q_start=q_start, documents=documents, dropout=dropout)

    return attend_by_pattern, reasons


def _first_that_fits(need: Need) -> tuple[Attend, str]:
    problems: list[str] = []
    for name, kernel in KERNELS.items():
        problem = kernel.supports(need)
        if problem is None:
            why = "; ".join(problems) or "the first in the list"
            return kernel.attend, f"kernel {name} for {need.pattern}: {why}"
        problems.append(f"not {name}, because {problem}")
    raise KernelUnsupported(f"no kernel fits {need.pattern}: {'; '.join(problems)}")
