from __future__ import annotations

import pytest


@pytest.fixture
def tracing(request: pytest.FixtureRequest) -> None:
    """Skips where shapes are checked at every call: torch's tracer cannot follow the checker."""
    if request.config.getoption("jaxtyping_packages", None):
        pytest.skip("torch.compile and the checker of shapes exclude each other")
