"""What all routes share: bodies that are read and described, events of a stream, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ValidationError

from fewshot.base.errors import FewshotError
from fewshot.base.files import to_json
from fewshot.serve.schema import ApiError, told
from fewshot.serve.worker import Worker

MOST_OPEN = 512  # requests that wait or run, beyond which new ones are refused
B = TypeVar("B", bound=BaseModel)


def parsed(kind: type[B], body: bytes) -> B:
    """Return the body; raises `ApiError` with one line that names the field and what is allowed."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = told(".".join(str(part) for part in fault["loc"]), most=80)
        raise ApiError(f"{name or 'the body'}: {told(fault['msg'], most=300)}", param=name or None) from None


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route that reads its body itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    refused = {"description": "a request that is not allowed", "content": {"application/json": {}}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": dict.fromkeys(("400", "401", "403", "404", "408", "413", "429", "500", "503"), refused),
    }


def check_room(worker: Worker, n_requests: int) -> None:
    """Raise `ApiError` if the worker takes no more requests."""
    if worker.closing:
        raise ApiError("the server is shutting down", status=503, kind="server_error")
    if worker.n_open + n_requests > MOST_OPEN:
        raise ApiError("the queue is full: try again later", status=429, kind="rate_limit_exceeded")


def stream(data: AsyncIterator[Any]) -> Response:
    """Return a response that sends each piece of data as an event, and then `[DONE]`; an error is an event too.

    Where the client goes away, the iterator is closed.
    """

    async def events() -> AsyncIterator[str]:
        try:
            async for piece in data:
                yield event(piece)
            yield "data: [DONE]\n\n"
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
            return JSONResponse(work.result())
        except FewshotError as error:
            raise ApiError(str(error), status=500, kind="server_error") from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
