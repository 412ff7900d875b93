"""Tasks of text with a hidden rule each, as tokens. In: families of rules, a tokenizer. Out: episodes and prompts.

A task is a rule; its examples are lines, a question and its answer. What learns in the weights reads each line by
itself, what learns in the context reads K lines and the question as one text: both are made here from the same lines.
Only the answer and the line break behind it are asked for. Knows no learner.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import check
from fewshot.evaluate.prompt import make_span
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.tasks.novel import Family
from fewshot.meta.episodes import Episodes
from fewshot.tokenizer.vocab import Tokenizer

Line = tuple[str, str]  # question, answer
UNASKED = -1  # as a target: nothing is asked for here


@dataclass(frozen=True)
class TextTask:
    """One hidden rule: lines with distinct questions to learn from, and others to be judged on.

    A query may be one of the shown questions, as in `fewshot evaluate`: then it is to be remembered.
    """

    family: Family
    shown: tuple[Line, ...]
    queries: tuple[Line, ...]

    def first(self, shots: int) -> TextTask:
        """Return the same task and queries with only the first lines shown."""
        return replace(self, shown=self.shown[:shots])

    def ideal(self) -> float:
        """Return how often the ideal learner is right about the queries."""
        seen = dict(self.shown)
        return sum(self.family.ideal(seen, question) for question, _ in self.queries) / len(self.queries)


def draw_text(family: Family, n_support: int, n_query: int, rng: random.Random, *, held_out: bool) -> TextTask:
    """Return a task as `Family.episodes` draws it, of a rule for evaluation or for training.

    Raises BadValue for more distinct examples than the family has questions.
    """
    check(
        n_support <= family.n_questions,
        f"{family.name} has {family.n_questions} distinct questions: {n_support} examples cannot be shown",
    )
    rule = family.rule(rng, held_out=held_out)
    questions = [family.draw_question(rng) for _ in range(n_query)]
    shown: dict[str, str] = {}
    while len(shown) < n_support:
        question = family.draw_question(rng)
        shown.setdefault(question, family.answer(rule, question))
    return TextTask(family, tuple(shown.items()), tuple((q, family.answer(rule, q)) for q in questions))


def prompts(tokenizer: Tokenizer, tasks: Sequence[TextTask]) -> tuple[Int[Tensor, "N Q T"], Int[Tensor, "N Q T"]]:
    """Return tokens of each query behind all shown lines, and targets: what learners in the context read."""
    return _rows(tokenizer, [(task.family, task.shown, task.queries) for task in tasks])


def as_episodes(tokenizer: Tokenizer, tasks: Sequence[TextTask]) -> Episodes:
    """Return each line by itself, without any before it: what learners in the weights read."""
    shown = _rows(tokenizer, [(task.family, (), task.shown) for task in tasks])
    return Episodes(*shown, *_rows(tokenizer, [(task.family, (), task.queries) for task in tasks]))


def _rows(
    tokenizer: Tokenizer, asked: Sequence[tuple[Family, Sequence[Line], Sequence[Line]]]
) -> tuple[Int[Tensor, "N Q T"], Int[Tensor, "N Q T"]]:
    """Return tokens of each last line behind the lines before, and what is to come after each token.

    A row begins with <|endoftext|> and is one running text, as documents of the training data and prompts of
    `fewshot evaluate` are. Targets are UNASKED but for the last answer and its line break. Rows are padded at their
    ends to the longest, which nothing before reads.
    """
    spans = []
    for family, before, last in asked:
        text = "".join(f"{family.context(q)}{family.completion(a)}\n" for q, a in before)
        ends = [(text + family.context(q), f"{family.completion(a)}\n") for q, a in last]
        spans.append([make_span(tokenizer, GPT3, context, end) for context, end in ends])
    width = max(len(span.tokens) for row in spans for span in row) - 1
    tokens = torch.full((len(spans), len(spans[0]), width), tokenizer.eot)
    targets = torch.full_like(tokens, UNASKED)
    for i, row in enumerate(spans):
        for j, span in enumerate(row):
            given, wanted = torch.tensor(span.tokens[:-1]), torch.tensor(span.tokens[span.start :])
            tokens[i, j, : len(given)] = given
            targets[i, j, span.start - 1 : len(given)] = wanted
    return tokens, targets


@dataclass(frozen=True)
class TextTasks:
    """Tasks of several families in equal shares, as `episodes.Tasks` asks for them."""

    families: tuple[Family, ...]
    tokenizer: Tokenizer
    held_out: bool  # rules for evaluation; else for training
    shots: tuple[int, ...] = ()  # each draw shows one of these numbers of lines, at most `n_support`; (): `n_support`

    def draw_texts(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> list[TextTask]:
        """Return fresh tasks, family after family in turn, all with the same number of lines shown."""
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        k = rng.choice([shots for shots in self.shots if shots <= n_support] or [n_support])
        return [
            draw_text(self.families[i % len(self.families)], k, n_query, rng, held_out=self.held_out)
            for i in range(n_tasks)
        ]

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return the same as tokens."""
        return as_episodes(self.tokenizer, self.draw_texts(n_tasks, n_support, n_query, generator))


def answer_loss(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Float[Tensor, ""]:
    """Return mean nats of the asked tokens; differentiable any number of times, and under vmap."""
    asked = targets != UNASKED
    logprobs = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -(logprobs * asked).sum() / asked.sum()


def answered(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Bool[Tensor, "*N"]:
    """Return whether greedy decoding writes exactly the answer and ends the line.

    The answer stands in the row, so one pass tells: each token of it must be the likeliest after those before.
    """
    return ((logits.argmax(-1) == targets) | (targets == UNASKED)).all(-1)


def share_answered(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Float[Tensor, ""]:
    """Return the share of rows that are answered."""
    return answered(logits, targets).float().mean()
