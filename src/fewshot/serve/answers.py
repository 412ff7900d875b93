"""What each route takes and answers, for the OpenAPI document; nothing here checks a request or makes an answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

ALWAYS = {
    401: "no key, or a wrong one",
    403: "a Host that is not served",
    404: "nothing of that name",
    408: "the body did not come in time",
    413: "the body is too large",
    500: "a fault of the server",
    503: "the server is shutting down, or too much is sent to it at once",
}
WITH_BODY = {400: "a body that is not allowed", 429: "the queue is full"}


class Error(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The answer to whatever is refused."""

    error: Error


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


class Model(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """The models."""

    object: Literal["list"]
    data: list[Model]


class Tokens(BaseModel):
    """The tokens of a text."""

    tokens: list[int]
    count: int
    max_model_len: int


class Text(BaseModel):
    """The text of tokens."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What a client needs to know of the tokenizer."""

    eos_token: str
    bos_token: str
    pad_token: str | None
    chat_template: str | None


class Logprobs(BaseModel):
    """What the model thought of each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    top_token_ids: list[dict[str, int] | None] = Field(default=[])
    text_offset: list[int]
    given_logprobs: list[dict[str, float] | None] = Field(default=[])


class Choice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] = Field(default=[])


class CachedTokens(BaseModel):
    """What was not read again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionAnswer(BaseModel):
    """The answer to a completion request."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[Choice]
    usage: Usage
    receipt: dict[str, Any] = Field(default={})


class TaskForm(BaseModel):
    """How prompts of a task are put together, and the share of right answers of a guess."""

    chance: float | None
    description: str
    delimiter: str


class NamedTask(TaskForm):
    """A task."""

    name: str


class Tasks(BaseModel):
    """The tasks that questions can be drawn of."""

    tasks: list[NamedTask]


class Question(BaseModel):
    """A question, as a curve takes it."""

    context: str = ""
    contexts: list[str] = Field(default=[])
    choices: list[str]
    answer: int
    demonstrations: list[str]


class Drawn(TaskForm):
    """Questions of a task."""

    task: str
    questions: list[Question]


class Accuracy(BaseModel):
    """The share of right answers behind so many demonstrations."""

    shots: int
    accuracy: float
    n: int


class CurveAnswer(BaseModel):
    """A point for every question and number of demonstrations; those of a question that does not fit are skipped."""

    points: list[dict[str, Any]]
    accuracy: list[Accuracy]


class LayerWeights(BaseModel):
    """The attention of the last position in one layer: of each head on all positions."""

    pattern: str
    weights: list[list[float]]
    allowed: list[bool]


class AttentionAnswer(BaseModel):
    """What the last position of a prompt reads."""

    tokens: list[str]
    token_ids: list[int]
    layers: list[LayerWeights]


def refused(statuses: dict[int, str] = ALWAYS) -> dict[int | str, dict[str, Any]]:
    """Return the answers to what is refused."""
    every: list[tuple[int | str, str]] = [*statuses.items(), ("4XX", "what HTTP itself does not allow")]
    return {status: {"model": ErrorAnswer, "description": text} for status, text in every}


def described(answer: type[BaseModel], body: type[BaseModel] | None = None, *, is_streamed: bool = False) -> Any:
    """Return what a route is to be decorated with; one that is streamed answers with events too."""
    responses = refused({**ALWAYS, **WITH_BODY} if body else ALWAYS)
    responses[200] = {"model": answer, "description": answer.__doc__}
    if is_streamed:
        responses[200]["content"] = {"text/event-stream": {"schema": {}}}
    kept: dict[str, Any] = {"responses": responses}
    if body is not None:
        schema = body.model_json_schema()
        schema = _inlined(schema, schema.get("$defs", {}))
        kept["openapi_extra"] = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    return kept


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON schema without references, which would point to nothing within another document."""
    if isinstance(value, list):
        return [_inlined(part, definitions) for part in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(part, definitions) for name, part in value.items() if name != "$defs"}
