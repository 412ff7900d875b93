"""The routes: completions as OpenAI has them, and what lm_eval needs to score without a tokenizer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from fewshot.base.errors import FewshotError
from fewshot.serve.answers import (
    CompletionAnswer,
    Health,
    Model,
    Models,
    Text,
    TokenizerInfo,
    Tokens,
    described,
    refused,
)
from fewshot.serve.completions import Call, Served
from fewshot.serve.few_shot import add_few_shot
from fewshot.serve.http import stream, take_room, whole
from fewshot.serve.limits.protect import Limits, Protect
from fewshot.serve.playground import add_playground
from fewshot.serve.receipt import receipt_of
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
    add_playground(app)
    started, end_of_text = int(time.time()), served.tokenizer.decode([served.tokenizer.eot])
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

    @app.get("/metrics", response_class=PlainTextResponse, responses=refused())
    async def metrics() -> Response:
        """Return counts and times in Prometheus' text format."""
        return PlainTextResponse(worker.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", **described(Models))
    async def models() -> dict[str, Any]:
        """Return the one model that is served."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}", **described(Model))
    async def one_model(name: str) -> dict[str, Any]:
        """Return the model, if it has that name."""
        served.check_name(name)
        return model

    @app.post("/tokenize", **described(Tokens, TokenizeRequest))
    async def tokenize(request: Request) -> dict[str, Any]:
        """Return the tokens of a text; the name of the token that ends a text, alone, is that token.

        By it lm_eval asks for the token that begins a document. To a tokenizer it is a text like another.
        """
        text = parse(TokenizeRequest, await request.body()).prompt
        is_name = text == end_of_text
        tokens = [served.tokenizer.eot] if is_name else await asyncio.to_thread(served.tokens_of, text)
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
        return {"eos_token": end_of_text, "bos_token": end_of_text, "pad_token": None, "chat_template": None}

    @app.post("/v1/completions", **described(CompletionAnswer, CompletionRequest, is_streamed=True))
    async def completions(request: Request) -> Response:
        """Complete one prompt or several."""
        body = parse_request(await request.body())
        served.check_name(body.model)
        call = await asyncio.to_thread(Call, body, served, key=request.scope["fewshot.key"])  # a long text takes long
        try:
            for wanted in call.requests:
                worker.engine.check(wanted)
        except FewshotError as error:
            raise ApiError(str(error)) from None
        take_room(request, worker, len(call.requests), call.n_values)
        if body.stream:
            return stream(_chunks(worker, call))
        return await whole(request, lambda: _whole(worker, call))

    add_few_shot(app, worker, served)
    return app


async def _chunks(worker: Worker, call: Call) -> AsyncIterator[dict[str, Any]]:
    """Yield what a stream tells."""
    pieces = worker.complete(call.requests)
    try:
        async for index, piece in pieces:
            for chunk in call.chunks(index, piece):
                yield chunk
        if call.body.receipt:
            yield {**call.head(), "choices": [], "receipt": receipt_of(call)}
        last = call.last_chunk()
        if last is not None:
            yield last
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


async def _whole(worker: Worker, call: Call) -> dict[str, Any]:
    """Return the answer once it is there."""
    pieces = worker.complete(call.requests)
    try:
        async for index, piece in pieces:
            call.choices[index].add(piece)
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]

    def answer() -> dict[str, Any]:
        return {**call.whole(), **({"receipt": receipt_of(call)} if call.body.receipt else {})}

    return await asyncio.to_thread(answer)  # a long one takes seconds
