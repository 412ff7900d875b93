"""The routes for in-context learning: tasks, questions drawn of them, accuracy against shots, and attention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from fewshot.base.errors import FewshotError
from fewshot.evaluate.task import Task
from fewshot.generate.attention_weights import last_attention
from fewshot.serve.answers import AttentionAnswer, CurveAnswer, Drawn, Tasks, described
from fewshot.serve.completions import Served, token_text
from fewshot.serve.curve import MOST_QUESTIONS, Curve, CurveRequest, Shots, question_of
from fewshot.serve.http import stream, take_room, whole
from fewshot.serve.schema import STRICT, ApiError, parse
from fewshot.serve.worker import Worker


class DrawRequest(BaseModel):
    """Questions of a task, with demonstrations that are drawn by the seed."""

    model_config = STRICT
    task: str
    n_questions: Annotated[int, Field(ge=1, le=MOST_QUESTIONS)] = 1
    shots: Shots = 0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class AttentionRequest(BaseModel):
    """A prompt whose last position is looked at."""

    model_config = STRICT
    model: str | None = None
    prompt: str | list[int]


def add_few_shot(app: FastAPI, worker: Worker, served: Served) -> None:
    """Add the routes under /v1/fewshot."""
    one_at_a_time = asyncio.Lock()

    @app.get("/v1/fewshot/tasks", **described(Tasks))
    async def tasks() -> dict[str, Any]:
        """Return the tasks that questions can be drawn of."""
        return {"tasks": [{"name": name, **_form(task)} for name, task in served.tasks.items()]}

    @app.post("/v1/fewshot/draw", **described(Drawn, DrawRequest))
    async def draw(request: Request) -> dict[str, Any]:
        """Return questions of a task, each with its own demonstrations."""
        body = parse(DrawRequest, await request.body())
        task = served.tasks.get(body.task)
        if task is None:
            known = ", ".join(served.tasks)
            raise ApiError(f"there is no task of that name; there are: {known}", param="task")
        try:
            episodes = await asyncio.to_thread(task.episodes, body.n_questions, body.shots, body.seed)
        except FewshotError as error:
            raise ApiError(str(error)) from None
        return {"task": body.task, **_form(task), "questions": [question_of(episode) for episode in episodes]}

    @app.post("/v1/fewshot/curve", **described(CurveAnswer, CurveRequest, is_streamed=True))
    async def curve(request: Request) -> Response:
        """Answer questions behind several numbers of demonstrations."""
        body = parse(CurveRequest, await request.body())
        served.check_name(body.model)
        made = Curve(body, served.tokenizer, served.n_ctx, key=request.scope["fewshot.key"])
        take_room(request, worker, made.n_at_once, made.n_values)

        async def told() -> AsyncIterator[dict[str, Any]]:
            async for point in made.points(worker):
                yield point
            yield {"accuracy": made.accuracy()}

        async def collected() -> dict[str, Any]:
            points = [point async for point in made.points(worker)]
            return {"points": points, "accuracy": made.accuracy()}

        return stream(told()) if body.stream else await whole(request, collected)

    @app.post("/v1/fewshot/attention", **described(AttentionAnswer, AttentionRequest))
    async def attention(request: Request) -> Response:
        """Return what the last position of a prompt reads, layer by layer and head by head."""
        body = parse(AttentionRequest, await request.body())
        served.check_name(body.model)
        async with one_at_a_time:
            return await asyncio.to_thread(_attention, worker, served, body.prompt)


def _attention(worker: Worker, served: Served, prompt: str | list[int]) -> Response:
    begin = [served.tokenizer.start] if isinstance(prompt, str) else []  # as before the prompts of a curve
    tokens = begin + served.tokens_of(prompt)
    try:
        layers = last_attention(worker.engine.model, tokens)
    except FewshotError as error:
        raise ApiError(str(error), param="prompt") from None
    return JSONResponse(
        {
            "tokens": [token_text(served.tokenizer, token) for token in tokens],
            "token_ids": tokens,
            "layers": [
                {
                    "pattern": str(layer.pattern),
                    "weights": layer.weights.tolist(),
                    "allowed": layer.allowed.any(dim=0).tolist(),
                }
                for layer in layers
            ],
        }
    )


def _form(task: Task) -> dict[str, Any]:
    return {"chance": task.chance, "description": task.description, "delimiter": task.delimiter}
