from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.serve.http import event, stream
from fewshot.serve.schema import ApiError


def events(error: Exception | None) -> list[str]:
    """What a stream of one piece sends, which fails then with an error."""
    closed = []

    async def data() -> AsyncIterator[Any]:
        try:
            yield {"a": "é\n"}
            if error is not None:
                raise error
        finally:
            closed.append(True)

    async def read() -> list[str]:
        return [str(part) async for part in stream(data()).body_iterator]  # type: ignore[attr-defined]

    sent = asyncio.run(read())
    assert closed == [True]
    return sent


def test_an_event_is_one_line_of_json() -> None:
    assert json.loads(event({"a": "é\n"}).removeprefix("data: ").removesuffix("\n\n")) == {"a": "é\n"}
    assert event({"a": "é\n"}).count("\n") == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [(BadValue("it broke"), "server_error"), (ApiError("not so", param="x"), "invalid_request_error")],
)
def test_a_stream_ends_with_done_or_with_an_error_event(error: Exception, kind: str) -> None:
    assert events(None) == [event({"a": "é\n"}), "data: [DONE]\n\n"]
    first, last = events(error)
    assert first == event({"a": "é\n"})
    told = json.loads(last.removeprefix("data: "))["error"]
    assert (told["type"], told["message"]) == (kind, str(error))
