"""Choose the kernel that computes attention: a name and requirements go in, a kernel and the reason come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fewshot.base.errors import BadValue, KernelUnsupported, UnknownName
from fewshot.kernels import blocked, flex, native, reference, sdpa, triton
from fewshot.kernels.cost import time_kernels
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend, Kernel, Requirements
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import parse

KERNELS: dict[str, Kernel] = {
    "native": native,
    "triton": triton,
    "blocked": blocked,
    "flex": flex,
    "sdpa": sdpa,
    "reference": reference,
}
# The kernels that `auto` times on each kind of device; where none fits it takes the reference. On a CPU `flex` is left
# out: it has no backward there and compiles for many seconds.
AUTO = {"cpu": ("native", "blocked", "sdpa"), "cuda": ("triton", "flex", "blocked", "sdpa")}


@dataclass(frozen=True)
class Choice:
    """The kernel of one pattern."""

    name: str  # in KERNELS
    attend: Attend
    why: str  # one line for the log: what it was chosen over, and why


@dataclass(frozen=True)
class Choices:
    """The kernels of a model, which may have several patterns."""

    attend: Attend  # computes each pattern by its own kernel
    names: dict[str, str]  # pattern's text -> kernel: given to `choose_for` again, it takes the same ones
    reasons: list[str]  # one a pattern, for the log


def choose(name: str, requirements: Requirements) -> Choice:
    """Return the kernel called `name`; "auto" is the fastest one that fits, as timed on this machine.

    Raises KernelUnsupported with the reason if a named kernel cannot do what is needed, UnknownName if there is none.
    """
    if name == "auto":
        return _fastest_that_fits(requirements)
    if name not in KERNELS:
        raise UnknownName("kernel", str(name), ["auto", *KERNELS])
    if problem := KERNELS[name].supports(requirements):
        raise KernelUnsupported(f"kernel {name!r} does not fit {requirements.pattern}: {problem}; use 'auto'")
    return Choice(name, KERNELS[name].attend, f"kernel {name} for {requirements.pattern}: as configured")


def choose_for(patterns: Iterable[Pattern], wanted: str | Mapping[str, object], requirements: Requirements) -> Choices:
    """Choose a kernel for each pattern of a model. The pattern in `requirements` is replaced by each of them.

    `wanted` is a name for all patterns, or names by the texts of patterns, as `Choices.names` has them.
    Raises as `choose` does, and BadValue if no name is given for one of the patterns.
    """
    names = _names_by_pattern(patterns, wanted)
    chosen = {
        pattern: choose(name, dataclasses.replace(requirements, pattern=pattern)) for pattern, name in names.items()
    }
    return Choices(
        _attend_by_pattern({pattern: choice.attend for pattern, choice in chosen.items()}),
        {pattern.text: choice.name for pattern, choice in chosen.items()},
        [choice.why for choice in chosen.values()],
    )


def _names_by_pattern(patterns: Iterable[Pattern], wanted: str | Mapping[str, object]) -> dict[Pattern, str]:
    if not isinstance(wanted, Mapping):
        return dict.fromkeys(patterns, wanted)
    given = {parse(text).text: str(name) for text, name in wanted.items()}  # however blanks and case are spelled
    names = {}
    for pattern in patterns:
        if pattern.text not in given:
            known = ", ".join(f"{text}: {name}" for text, name in given.items())
            raise BadValue(f"no kernel is named for {pattern.text!r} among {{{known}}}: add it, or give 'auto' for all")
        names[pattern] = given[pattern.text]
    return names


def _attend_by_pattern(kernels: Mapping[Pattern, Attend]) -> Attend:
    """Return the kernel that all share, or a function that computes each pattern by its own."""
    first = next(iter(kernels.values()))
    if all(attend is first for attend in kernels.values()):
        return first

    def attend_by_pattern(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pattern: Pattern,
        *,
        q_start: int = 0,
        documents: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        return kernels[pattern](q, k, v, pattern, q_start=q_start, documents=documents, dropout=dropout)

    return attend_by_pattern


def _fastest_that_fits(requirements: Requirements) -> Choice:
    fitting, problems = {}, []
    for name in AUTO.get(requirements.device, ("blocked", "sdpa")):
        problem = KERNELS[name].supports(requirements)
        if problem is None:
            fitting[name] = KERNELS[name].attend
        else:
            problems.append(f"not {name}, because {problem}")
    if not fitting:
        fitting["reference"] = reference.attend  # the definition fits any requirements, at the cost of all scores
    if len(fitting) == 1:
        (name,) = fitting
        return Choice(
            name, fitting[name], f"kernel {name} for {requirements.pattern}: {'; '.join(problems) or 'no other fits'}"
        )
    milliseconds = time_kernels(requirements, fitting)
    name, *others = sorted(milliseconds, key=milliseconds.__getitem__)
    slower = ", ".join(f"{other} {milliseconds[other]:.3g} ms" for other in others)
    why = "; ".join([f"fastest here: {milliseconds[name]:.3g} ms, {slower}", *problems])
    return Choice(name, fitting[name], f"kernel {name} for {requirements.pattern}: {why}")
