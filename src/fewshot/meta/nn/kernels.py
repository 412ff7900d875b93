"""Check, before training, that an inner loop can be differentiated through a module's attention kernels.

In: a module. Out: nothing, or an error. Learning in the weights differentiates a model by `torch.func`, for all tasks
at once, and in exact second order it differentiates the gradient again. Few kernels allow both.
"""

from __future__ import annotations

from torch import nn

from fewshot.base.errors import KernelUnsupported
from fewshot.kernels import choose
from fewshot.kernels.interface import Attend
from fewshot.model.layers import Attention

BATCHED = ("reference", "sdpa")  # torch.func differentiates these for many tasks at once; sdpa in a loop over tasks
TWICE = ("reference",)  # and the gradients of these


def check_kernels(module: nn.Module, *, second_order: bool) -> None:
    """Raise KernelUnsupported if `module` has attention by a kernel that cannot be differentiated as needed.

    A function that is no kernel of ours is allowed: whoever wrote it knows its derivatives.
    """
    for part in module.modules():
        name = kernel_name(part.attend) if isinstance(part, Attention) else None
        if name is None or name in (TWICE if second_order else BATCHED):
            continue
        if name in BATCHED:
            raise KernelUnsupported(
                f"kernel {name!r} has no second derivative, which an exact second-order inner loop needs: "
                "use 'reference', or a first-order learner such as fomaml"
            )
        others = "" if second_order else " or 'sdpa'"
        raise KernelUnsupported(
            f"kernel {name!r} cannot be differentiated for many tasks at once, as the inner loop needs it: "
            f"use 'reference'{others}"
        )


def kernel_name(attend: Attend) -> str | None:
    """Return the name in `KERNELS`, "auto" for a mixture by pattern, None for a function that is no kernel of ours."""
    for name, kernel in choose.KERNELS.items():
        if kernel.attend is attend:
            return name
    return "auto" if getattr(attend, "__module__", "") == choose.__name__ else None
