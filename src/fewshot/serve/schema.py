"""The body of a completion request and the shape of errors, as OpenAI's legacy completions have them.

A field that is absent or null has its default. Every field is honoured or refused; one that is not listed is refused.
Source: CreateCompletionRequest in OpenAI's openapi.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)
ListOf = Annotated[list[T], Field(fail_fast=True)]  # a body of 2 MB may have a million faults: the first will do
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
MOST_CHOICES = 256  # of one request: prompts times candidates
MOST_FAULTS = 1000  # of a body; to tell of one, pydantic makes a list of all


class ApiError(Exception):
    """What is told to a client in OpenAI's shape, with an HTTP status."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status, self.body = status, {"message": message, "type": kind, "param": param, "code": None}


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    model_config = STRICT
    include_usage: bool = False
    include_obfuscation: bool = False  # true is refused


class CompletionRequest(BaseModel):
    """A completion request; fields without a comment are OpenAI's."""

    model_config = STRICT

    model: str | None = None
    prompt: (
        str
        | Annotated[ListOf[str], Field(max_length=MOST_CHOICES)]
        | ListOf[int]
        | Annotated[ListOf[ListOf[int]], Field(max_length=MOST_CHOICES)]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    stop: str | Annotated[ListOf[str], Field(max_length=16)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    suffix: str | None = None  # refused unless null
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    user: str | None = None  # accepted, and used for nothing
    top_k: Annotated[int, Field(ge=1, le=2**31)] | None = None  # ours: sample from the k likeliest tokens
    logprob_token_ids: Annotated[ListOf[int], Field(max_length=64)] | None = None  # ours: told at every written place
    return_token_ids: bool | None = None  # ours
    receipt: bool | None = None  # ours: what is needed to make the completion again


def given(value: T | None, default: T) -> T:
    """Return the value, or the default of one that is absent or null; 0 and false are values."""
    return default if value is None else value


def parse(kind: type[Body], body: bytes) -> Body:
    """Return what a JSON body says; raises `ApiError` with one line that names the field and what is allowed."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def parse_request(body: bytes) -> CompletionRequest:
    """Return the request of a JSON body; raises `ApiError` as `parse` does, also where fields contradict each other."""
    request = parse(CompletionRequest, body)
    for name in ("logprob_token_ids", "prompt", "stop"):
        if getattr(request, name) == []:
            raise ApiError(f"{name} is an empty list", param=name)
    if request.suffix is not None:
        raise ApiError("suffix is not supported: the model only writes on", param="suffix")
    options = request.stream_options
    if options is not None and not request.stream:
        raise ApiError("stream_options are only allowed with stream: true", param="stream_options")
    if options is not None and options.include_obfuscation:
        raise ApiError("include_obfuscation is not supported", param="stream_options")
    n, best_of = given(request.n, 1), given(request.best_of, given(request.n, 1))
    if best_of < n:
        raise ApiError(f"best_of is {best_of}, must be at least n, which is {n}", param="best_of")
    if best_of > n and request.stream:
        raise ApiError("best_of above n cannot be streamed: which are best is known in the end", param="best_of")
    if given(request.max_tokens, 16) == 0 and not request.echo:
        raise ApiError("max_tokens is 0 without echo: there would be nothing to return", param="max_tokens")
    return request


def _refusal(error: ValidationError) -> ApiError:
    """Return the first fault in one line, without what was sent: it may be no JSON that can be sent back."""
    if error.error_count() > MOST_FAULTS:
        return ApiError(f"the body has {error.error_count():,} faults")
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    extra: Any = next((fault for fault in faults if fault["type"] == "extra_forbidden"), None)
    if extra is not None:
        unknown = told(".".join(str(part) for part in extra["loc"]), most=80)
        return ApiError(f"Unrecognized request argument supplied: {unknown}", param=unknown)
    fault = faults[0]
    name = str(fault["loc"][0]) if fault["loc"] else None
    if len(fault["loc"]) > 2 and isinstance(fault["loc"][1], int) and isinstance(fault["loc"][2], str):
        name = ".".join(map(str, fault["loc"][:3]))  # a field of one of several values, such as questions.0.choices
    reasons = dict.fromkeys(str(other["msg"]) for other in faults if other["loc"][:1] == fault["loc"][:1])
    message = told("; or ".join(list(reasons)[:4]), most=300)
    return ApiError(f"{name or 'the body'}: {message}", param=name)


def told(text: str, *, most: int) -> str:
    """Return what a client sent as it can be told: one line of ASCII, not longer than `most`."""
    return text.encode("unicode_escape").decode("ascii")[:most]
