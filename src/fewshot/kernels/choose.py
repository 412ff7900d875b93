"""Which kernel computes attention: a name and a need go in, a kernel and the reason come out."""

from __future__ import annotations

from fewshot.base.errors import KernelUnsupported, UnknownName
from fewshot.kernels import reference, sdpa
from fewshot.kernels.need import Attend, Kernel, Need

# In the order in which `auto` tries them; the last one fits every need.
KERNELS: dict[str, Kernel] = {"sdpa": sdpa, "reference": reference}


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


def _first_that_fits(need: Need) -> tuple[Attend, str]:
    problems: list[str] = []
    for name, kernel in KERNELS.items():
        problem = kernel.supports(need)
        if problem is None:
            why = "; ".join(problems) or "the first in the list"
            return kernel.attend, f"kernel {name} for {need.pattern}: {why}"
        problems.append(f"not {name}, because {problem}")
    raise KernelUnsupported(f"no kernel fits {need.pattern}: {'; '.join(problems)}")
