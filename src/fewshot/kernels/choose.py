"""Which kernel computes attention: a name and a need go in, a kernel and the reason come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from fewshot.base.errors import KernelUnsupported, UnknownName
from fewshot.kernels import blocked, flex, native, reference, sdpa, triton_strips
from fewshot.kernels.cost import measured
from fewshot.kernels.need import Attend, Kernel, Need
from fewshot.patterns.pattern import Pattern

KERNELS: dict[str, Kernel] = {
    "native": native,
    "triton": triton_strips,
    "blocked": blocked,
    "flex": flex,
    "sdpa": sdpa,
    "reference": reference,
}
# Those that `auto` measures on a kind of device; where none fits it takes the reference. On a CPU `flex` is left out:
# it has no backward there and compiles for many seconds.
AUTO = {"cpu": ("native", "blocked", "sdpa"), "cuda": ("triton", "flex", "blocked", "sdpa")}


def choose(name: str, need: Need) -> tuple[Attend, str]:
    """The kernel called `name` and, for the log, why it was taken; `auto` takes the fastest, as measured here.

    Raises KernelUnsupported with the reason if a named kernel cannot do what is needed, UnknownName if there is none.
    """
    if name == "auto":
        return _fastest_that_fits(need)
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


def _fastest_that_fits(need: Need) -> tuple[Attend, str]:
    fitting, problems = {}, []
    for name in AUTO.get(need.device, ("blocked", "sdpa")):
        problem = KERNELS[name].supports(need)
        if problem is None:
            fitting[name] = KERNELS[name].attend
        else:
            problems.append(f"not {name}, because {problem}")
    if not fitting:
        fitting["reference"] = reference.attend  # the definition fits every need, at the cost of all scores
    if len(fitting) == 1:
        (name,) = fitting
        return fitting[name], f"kernel {name} for {need.pattern}: {'; '.join(problems) or 'no other fits'}"
    taken = measured(need, fitting)
    name, *others = sorted(taken, key=lambda each: taken[each])
    against = ", ".join(f"{other} {taken[other]:.3g}" for other in others)
    why = "; ".join([f"measured {taken[name]:.3g} ms here, {against}", *problems])
    return fitting[name], f"kernel {name} for {need.pattern}: {why}"
