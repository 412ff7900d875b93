"""Servers for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'fewshot[serve]'")
pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")

from browser import CHROMIUM, expect, opened_browser, watch
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


@pytest.fixture(scope="module")  # not longer: while it is open, no other test can run an event loop
def browser() -> Iterator[Any]:
    """A browser."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}: apt-get install chromium")
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def only_page(browser: Any) -> Any:
    """A page that lists what goes wrong on it."""
    context = browser.new_context(accept_downloads=True, color_scheme="light", viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.problems = watch(page)
    return page


@pytest.fixture
def page(only_page: Any, server: Server) -> Iterator[Any]:
    """The playground with nothing kept from before; nothing may go wrong on it, and nothing leave the machine."""
    page = only_page
    page.goto(f"{server.url}/health")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    page.problems.clear()
    page.goto(server.url)
    expect(page, "#model").to_contain_text("tiny")
    yield page
    page.unroute_all()
    assert page.problems == []
