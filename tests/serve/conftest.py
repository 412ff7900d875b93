"""Servers for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'fewshot[serve]'")
pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")

from serving import Server, running, tiny_model


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that most tests share."""
    yield from running(*tiny_model())


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    """Start servers with other limits."""
    begun: list[Iterator[Server]] = []

    def start(**limits: Any) -> Server:
        begun.append(running(*tiny_model(), **limits))
        return next(begun[-1])

    yield start
    for iterator in begun:
        next(iterator, None)
