"""In-context learning in one request: questions behind 0, 1, ... demonstrations, the log-probabilities of all choices.

Prompts and choices are as the evaluator makes them (`evaluate/prompt.py`); what they share is read once, as the engine
keeps what it has read. In: the body of a request. Out: a point for every question and number of demonstrations.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from fewshot.base.errors import FewshotError
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.prompt import Prompt, build_prompt
from fewshot.evaluate.task import Task
from fewshot.generate.engine import Engine
from fewshot.generate.request import Request
from fewshot.serve.completions import token_text
from fewshot.serve.schema import STRICT, ApiError
from fewshot.serve.worker import Piece, Worker
from fewshot.tokenizer.vocab import Tokenizer

MOST_SHOTS = 64
MOST_CHARACTERS = 1 << 27  # tokenised in one call: seconds of work
AT_ONCE = 64  # requests of the engine; as many as one question's choices may need
N_TOP = 10  # likeliest first tokens of an answer that are told
MOST_QUESTIONS = 64
Text = Annotated[str, Field(min_length=1)]
Shots = Annotated[int, Field(ge=0, le=MOST_SHOTS)]
Demonstrations = Annotated[list[Text], Field(max_length=MOST_SHOTS)]


class CurveQuestion(BaseModel):
    """A question with its choices, which carry their own leading space."""

    model_config = STRICT
    context: str = ""
    contexts: list[str] | None = None  # in place of `context`, where every choice has its own
    choices: Annotated[list[Text], Field(min_length=1, max_length=AT_ONCE)]
    answer: Annotated[int, Field(ge=0)] | None = None  # which choice is right
    demonstrations: Demonstrations | None = None  # in place of those of all questions


class CurveRequest(BaseModel):
    """Questions, demonstrations, and how many of them are to stand before a question."""

    model_config = STRICT
    model: str | None = None
    description: str = ""  # before the first demonstration
    delimiter: str = "\n"  # between description, demonstrations and question
    demonstrations: Demonstrations = []
    questions: Annotated[list[CurveQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)]
    shots: Annotated[list[Shots], Field(min_length=1, max_length=MOST_SHOTS + 1)]
    stream: bool = False


def question_of(episode: Episode) -> dict[str, Any]:
    """Return an episode of a task as a question of a request."""
    example = episode.example
    return {
        **({"contexts": list(example.contexts)} if example.contexts else {"context": example.context}),
        "choices": list(example.completions),
        "answer": example.gold,
        "demonstrations": [demonstration.demonstration for demonstration in episode.demonstrations],
    }


def _episode(question: CurveQuestion, shared: Sequence[str]) -> Episode:
    texts = shared if question.demonstrations is None else question.demonstrations
    example = Example(
        id="",
        context=question.context,
        contexts=tuple(question.contexts or ()),
        completions=tuple(question.choices),
        gold=question.answer or 0,
    )
    return Episode(example, tuple(Example(id="", context="", completions=(text,)) for text in texts))


@dataclass(frozen=True)
class _Scoring:
    """A prompt, and the engine's requests that score its choices: one for all choices that differ in their last token.

    A request reads a choice without its last token, and is asked for the log-probabilities of last tokens.
    """

    prompt: Prompt
    requests: Sequence[Request]
    places: Sequence[tuple[int, int]]  # of each choice: its request, and its last token's place there

    @classmethod
    def of(cls, prompt: Prompt, key: str) -> _Scoring:
        last_tokens: dict[tuple[int, tuple[int, ...]], list[int]] = {}  # by (where the choice begins, what is read)
        for span in prompt.spans:
            last_tokens.setdefault((span.start, span.tokens[:-1]), []).append(span.tokens[-1])
        order = {name: number for number, name in enumerate(last_tokens)}
        requests = [
            Request(
                prompt=tokens,
                max_tokens=1,
                top_logprobs=N_TOP,
                logprob_tokens=others,
                prompt_logprobs=len(tokens) > start,
                n_unscored=start,
                key=key,
            )
            for (start, tokens), others in last_tokens.items()
        ]
        names = [(span.start, span.tokens[:-1]) for span in prompt.spans]
        places = [
            (order[name], last_tokens[name].index(span.tokens[-1]))
            for name, span in zip(names, prompt.spans, strict=True)
        ]
        return cls(prompt, requests, places)

    def top(self, pieces: Sequence[Piece]) -> tuple[tuple[int, float], ...]:
        """Return the likeliest tokens where the first choice begins."""
        first = pieces[self.places[0][0]]
        return (*first.prompt_scores, *([first.first_score] if first.first_score else []))[0].top

    def answer(self, pieces: Sequence[Piece]) -> Answer:
        """Return what the model answers, from the first piece of each request."""
        logprobs, greedy = [], []
        for (number, place), span in zip(self.places, self.prompt.spans, strict=True):
            read, last = pieces[number].prompt_scores, pieces[number].first_score
            assert last is not None, "a token was asked for"
            logprobs.append(math.fsum([*(score.logprob for score in read), last.others[place]]))
            likeliest = [score.top[0][0] for score in (*read, last)]
            greedy.append(likeliest == list(span.tokens[span.start :]))
        return Answer(
            example=self.prompt.example,
            logprobs=tuple(logprobs),
            n_tokens=tuple(len(span.tokens) - span.start for span in self.prompt.spans),
            greedy=tuple(greedy),
            shots=self.prompt.shots,
        )


class Curve:
    """One request for a curve: its requests of the engine come question after question."""

    def __init__(self, body: CurveRequest, tokenizer: Tokenizer, n_ctx: int, *, key: str = "") -> None:
        self.body, self._tokenizer, self._n_ctx, self._key = body, tokenizer, n_ctx, key
        for number, question in enumerate(body.questions):
            n = len(question.choices)
            if question.answer is not None and question.answer >= n:
                raise ApiError(f"answer of question {number} is {question.answer}, there are {n} choices")
            if question.contexts is not None and question.context:
                raise ApiError(f"question {number} has a context and contexts: give one of them")
            if question.contexts is not None and len(question.contexts) != n:
                raise ApiError(f"question {number} has {len(question.contexts)} contexts for {n} choices")
        self.shots = sorted(set(body.shots))
        n_characters = sum(map(self._n_characters, body.questions))
        if n_characters > MOST_CHARACTERS:
            raise ApiError(
                f"the prompts have {n_characters:,} characters in all, at most {MOST_CHARACTERS:,} are allowed: ask "
                f"fewer questions, shots or choices at once"
            )
        self._right: dict[int, list[bool]] = {k: [] for k in self.shots}

    def _n_characters(self, question: CurveQuestion) -> int:
        """Count what is tokenised for a question."""
        shown = self.body.demonstrations if question.demonstrations is None else question.demonstrations
        contexts = question.contexts or [question.context]
        n_prompt = sum(map(len, shown[: self.shots[-1]])) + max(map(len, contexts)) + max(map(len, question.choices))
        return n_prompt * len(question.choices) * len(self.shots)

    @property
    def n_at_once(self) -> int:
        """The most requests that are asked of the engine at once."""
        most = max(len(question.choices) for question in self.body.questions)
        return min(AT_ONCE, len(self.shots) * most)

    @property
    def n_values(self) -> int:
        """Count the numbers that the answer may have."""
        return sum(3 * len(question.choices) + 2 * N_TOP for question in self.body.questions) * len(self.shots)

    async def points(self, worker: Worker) -> AsyncIterator[dict[str, Any]]:
        """Yield a point for every question and number of demonstrations, as they are computed.

        All of a question run together, that with the most demonstrations first: it reads what the others begin with.
        """
        for number, question in enumerate(self.body.questions):
            scorings: dict[int, _Scoring] = {}
            for k in reversed(self.shots):
                if worker.closing:
                    raise FewshotError("the server is shutting down")
                scoring = await asyncio.to_thread(self._scoring, question, k, worker.engine)
                if scoring is None:
                    yield {"question": number, "shots": k, "skipped": True}
                else:
                    scorings[k] = scoring
            for batch in _batches(scorings):
                async for k, pieces in _pieces(worker, batch):
                    top = [[token_text(self._tokenizer, token), logprob] for token, logprob in batch[k].top(pieces)]
                    yield {**self._point(number, question, k, batch[k].answer(pieces)), "first_token": top}

    def accuracy(self) -> list[dict[str, Any]]:
        """Return the share of right answers at each number of demonstrations, among the points that were yielded."""
        known = [(k, right) for k, right in self._right.items() if right]
        return [{"shots": k, "accuracy": sum(right) / len(right), "n": len(right)} for k, right in known]

    def _scoring(self, question: CurveQuestion, k: int, engine: Engine) -> _Scoring | None:
        """Return how a question is scored behind k demonstrations, None where it does not fit.

        Raises `ApiError` for what the tokenizer cannot encode or the engine has no room for.
        """
        episode = _episode(question, self.body.demonstrations)
        task = Task(
            name="curve",
            kind="choose",
            episodes=lambda *_: [episode],
            metrics=(),
            source="",
            description=self.body.description,
            delimiter=self.body.delimiter,
        )
        try:
            prompt = build_prompt(self._tokenizer, task, episode, shots=k, n_ctx=self._n_ctx)
            if prompt is None:
                return None
            scoring = _Scoring.of(prompt, self._key)
            for request in scoring.requests:
                engine.check(request)
        except FewshotError as error:
            raise ApiError(str(error)) from None
        return scoring

    def _point(self, number: int, question: CurveQuestion, k: int, answer: Answer) -> dict[str, Any]:
        choice = answer.choice("token")
        right = None
        if question.answer is not None:
            right = answer.greedy[0] if len(question.choices) == 1 else choice == question.answer
            self._right[k].append(right)
        return {
            "question": number,
            "shots": k,
            "n_demonstrations": answer.shots,
            "logprobs": list(answer.logprobs),
            "n_tokens": list(answer.n_tokens),
            "probabilities": _shares(answer.logprobs),
            "choice": choice,
            "right": right,
        }


def _batches(scorings: dict[int, _Scoring]) -> Iterator[dict[int, _Scoring]]:
    """Yield the prompts in their order, as many at once as have `AT_ONCE` requests."""
    batch: dict[int, _Scoring] = {}
    for k, scoring in scorings.items():
        if sum(len(other.requests) for other in batch.values()) + len(scoring.requests) > AT_ONCE:
            yield batch
            batch = {}
        batch[k] = scoring
    if batch:
        yield batch


async def _pieces(worker: Worker, scorings: dict[int, _Scoring]) -> AsyncIterator[tuple[int, list[Piece]]]:
    """Yield what each prompt's requests gave once all of them are done."""
    owners = [(k, place) for k, scoring in scorings.items() for place in range(len(scoring.requests))]
    pieces: dict[int, dict[int, Piece]] = {k: {} for k in scorings}
    running = worker.complete([scorings[k].requests[place] for k, place in owners])
    try:
        async for number, piece in running:
            k, place = owners[number]
            pieces[k][place] = piece
            if len(pieces[k]) == len(scorings[k].requests):
                yield k, [pieces[k][place] for place in range(len(pieces[k]))]
    finally:
        await running.aclose()  # type: ignore[attr-defined]


def _shares(logprobs: Sequence[float]) -> list[float]:
    """Return probabilities that are 1 in sum."""
    most = max(logprobs)
    weights = [math.exp(logprob - most) for logprob in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]
