"""What all routes share: room for a call, events of a stream, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from fewshot.base.errors import FewshotError
from fewshot.base.files import to_json
from fewshot.serve.schema import ApiError
from fewshot.serve.worker import Worker


def take_room(request: Request, worker: Worker, n_requests: int, n_values: int) -> None:
    """Hold room for a call until its answer has gone; raises `ApiError` where there is none."""
    if worker.closing:
        raise ApiError("the server is shutting down", status=503, kind="server_error")
    request.scope["fewshot.at_end"].enter_context(worker.room.taken(n_requests, n_values))


def stream(data: AsyncIterator[Any]) -> Response:
    """Return a response that sends each piece of data as an event, and then `[DONE]`; an error is an event too.

    Where the client goes away, the iterator is closed.
    """

    async def events() -> AsyncIterator[str]:
        try:
            async for piece in data:
                yield event(piece)
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield event({"error": error.body})
        except FewshotError as error:
            yield event({"error": ApiError(str(error), status=500, kind="server_error").body})
        finally:
            await data.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(events(), media_type="text/event-stream")


def event(data: Any) -> str:
    """Return a server-sent event."""
    return f"data: {to_json(data, where='a chunk')}\n\n"


async def whole(request: Request, make: Callable[[], Awaitable[Any]]) -> Response:
    """Return what `make` gives as JSON; it is cancelled as soon as the client has gone away."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work = asyncio.ensure_future(make())
    tasks = [work, asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)
        try:
            return await asyncio.to_thread(JSONResponse, work.result())  # a long one takes seconds
        except FewshotError as error:
            raise ApiError(str(error), status=500, kind="server_error") from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
