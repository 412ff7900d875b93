"""The routes: completions as OpenAI has them, and what lm_eval needs to score without a tokenizer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from fewshot.base.errors import FewshotError
from fewshot.base.files import to_json
from fewshot.serve.answers import CompletionAnswer, Health, Model, Models, Text, TokenizerInfo, Tokens, described
from fewshot.serve.completions import Call, Served
from fewshot.serve.protect import Limits, Protect
from fewshot.serve.schema import ApiError, CompletionRequest, ListOf, parse, parse_request, told
from fewshot.serve.worker import Worker


class TokenizeRequest(BaseModel):
    """Text to tokens; lm_eval sends `add_special_tokens`, of which there are none."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(BaseModel):
    """Tokens to text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tokens: ListOf[int]
    model: str | None = None


def make_app(worker: Worker, served: Served, limits: Limits) -> FastAPI:
    """Return the application; the worker runs as long as the application."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(title="fewshot", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=life)
    app.add_middleware(Protect, limits=limits)
    started = int(time.time())
    model = {"id": served.name, "object": "model", "created": started, "owned_by": "fewshot"}

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        return JSONResponse({"error": error.body}, status_code=error.status)

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> Response:
        refusal = ApiError(f"{told(request.url.path, most=200)}: {error.detail}", status=error.status_code)
        return JSONResponse({"error": refusal.body}, status_code=refusal.status, headers=error.headers)

    @app.get("/health", **described(Health))
    async def health() -> dict[str, str]:
        """Return that the server answers."""
        return {"status": "ok"}

    @app.get("/v1/models", **described(Models))
    async def models() -> dict[str, Any]:
        """Return the one model that is served."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}", **described(Model))
    async def one_model(name: str) -> dict[str, Any]:
        """Return the model, if it has that name."""
        if name != served.name:
            raise ApiError(f"the model {name!r} does not exist; there is {served.name!r}", status=404, param="model")
        return model

    @app.post("/tokenize", **described(Tokens, TokenizeRequest))
    async def tokenize(request: Request) -> dict[str, Any]:
        """Return the tokens of a text."""
        body = parse(TokenizeRequest, await request.body())
        tokens = await asyncio.to_thread(served.tokenizer.encode, body.prompt)
        return {"tokens": tokens, "count": len(tokens), "max_model_len": served.n_ctx}

    @app.post("/detokenize", **described(Text, DetokenizeRequest))
    async def detokenize(request: Request) -> dict[str, str]:
        """Return the text of tokens."""
        try:
            return {"prompt": served.tokenizer.decode(parse(DetokenizeRequest, await request.body()).tokens)}
        except FewshotError as error:
            raise ApiError(str(error), param="tokens") from None

    @app.get("/tokenizer_info", **described(TokenizerInfo))
    async def tokenizer_info() -> dict[str, Any]:
        """Return what a client needs to know of the tokenizer."""
        eot = served.tokenizer.decode([served.tokenizer.eot])
        return {"eos_token": eot, "bos_token": eot, "pad_token": None, "chat_template": None}

    @app.post("/v1/completions", **described(CompletionAnswer, CompletionRequest, is_streamed=True))
    async def completions(request: Request) -> Response:
        """Complete one prompt or several."""
        body = parse_request(await request.body())
        if body.model is not None and body.model != served.name:
            raise ApiError(
                f"the model {body.model!r} does not exist; there is {served.name!r}", status=404, param="model"
            )
        call = await asyncio.to_thread(Call, body, served, key=request.scope["fewshot.key"])  # a long text takes long
        try:
            for wanted in call.requests:
                worker.engine.check(wanted)
        except FewshotError as error:
            raise ApiError(str(error)) from None
        if worker.closing:
            raise ApiError("the server is shutting down", status=503, kind="server_error")
        request.scope["fewshot.at_end"].enter_context(worker.room.taken(len(call.requests), call.n_values))
        if body.stream:
            return StreamingResponse(_events(worker, call), media_type="text/event-stream")
        return await _whole(request, worker, call)

    return app


async def _events(worker: Worker, call: Call) -> AsyncIterator[str]:
    """Yield server-sent events; closing it, as when the client goes away, cancels the completions."""
    pieces = worker.complete(call.requests)
    try:
        async for index, piece in pieces:
            for chunk in call.chunks(index, piece):
                yield _event(chunk)
        last = call.last_chunk()
        if last is not None:
            yield _event(last)
        yield "data: [DONE]\n\n"
    except FewshotError as error:
        yield _event({"error": ApiError(str(error), status=500, kind="server_error").body})
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


def _event(data: Any) -> str:
    return f"data: {to_json(data, where='a chunk')}\n\n"


async def _whole(request: Request, worker: Worker, call: Call) -> Response:
    """Return the whole answer, or nothing as soon as the client has gone away."""

    async def collect() -> None:
        pieces = worker.complete(call.requests)
        try:
            async for index, piece in pieces:
                call.choices[index].add(piece)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(collect()), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return Response(status_code=499)
        try:
            tasks[0].result()
        except FewshotError as error:
            raise ApiError(str(error), status=500, kind="server_error") from None
        return await asyncio.to_thread(lambda: JSONResponse(call.whole()))  # a long one takes seconds
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
