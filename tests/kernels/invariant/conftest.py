"""Every kernel of this folder, by C++ and without a compiler."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fewshot.kernels.invariant import attention, gelu, linear
from fewshot.kernels.library import Library, library


@pytest.fixture(params=["C++", "no compiler"], autouse=True)
def compiled(request: pytest.FixtureRequest, set_in_module: Callable[..., None]) -> None:
    if request.param == "no compiler":
        for function in (attention.attend_pages, gelu.invariant, linear.PackedLinear):
            set_in_module(function, "library", lambda: Library(None, "not here"))
    elif library().problem:
        pytest.skip(str(library().problem))
