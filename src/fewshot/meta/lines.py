"""Tasks of text with a hidden rule each, as tokens. In: families of rules, a tokenizer. Out: episodes and prompts.

A task is a rule; its examples are lines, a question and its answer. What learns in the weights reads each line by
itself, what learns in the context reads K lines and the question as one text: both are made here from the same lines.
Only the answer and the line break behind it are asked for. Knows no learner.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

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

    def ideal(self, shots: int) -> float:
        """How often the ideal learner is right after so many of the shown lines."""
        seen = dict(self.shown[:shots])
        return sum(self.family.ideal(seen, question) for question, _ in self.queries) / len(self.queries)


def draw_texts(
    family: Family, n_tasks: int, n_support: int, n_query: int, rng: random.Random, *, held_out: bool
) -> list[TextTask]:
    """Fresh tasks of one family, drawn as `Family.episodes` draws them; rules for evaluation or for training.

    Raises BadValue for more distinct examples than the family has questions.
    """
    check(
        n_support <= family.n_questions,
        f"{family.name} has {family.n_questions} distinct questions: {n_support} examples cannot be shown",
    )
    drawn = []
    for _ in range(n_tasks):
        rule = family.rule(rng, held_out=held_out)
        questions = [family.draw_question(rng) for _ in range(n_query)]
        shown: dict[str, str] = {}
        while len(shown) < n_support:
            question = family.draw_question(rng)
            shown.setdefault(question, family.answer(rule, question))
        drawn.append(TextTask(family, tuple(shown.items()), tuple((q, family.answer(rule, q)) for q in questions)))
    return drawn


def rows(
    tokenizer: Tokenizer, tasks: Sequence[TextTask], shots: int, *, of_queries: bool
) -> tuple[Int[Tensor, "N Q T"], Int[Tensor, "N Q T"]]:
    """Tokens of each query (or of each shown line) behind `shots` shown lines, and what is to come after each token.

    A row begins with <|endoftext|> and is one running text, as documents of the training data and prompts of
    `fewshot evaluate` are. Targets are UNASKED but for the answer and its line break. Rows are padded at their ends
    to the longest, which nothing before reads.
    """
    spans = []
    for task in tasks:
        family, lines = task.family, task.queries if of_queries else task.shown
        before = "".join(f"{family.context(q)}{family.completion(a)}\n" for q, a in task.shown[:shots])
        spans.append(
            [make_span(tokenizer, GPT3, before + family.context(q), f"{family.completion(a)}\n") for q, a in lines]
        )
    width = max(len(span.tokens) for row in spans for span in row) - 1
    tokens = torch.full((len(spans), len(spans[0]), width), tokenizer.eot)
    targets = torch.full_like(tokens, UNASKED)
    for i, row in enumerate(spans):
        for j, span in enumerate(row):
            given, wanted = torch.tensor(span.tokens[:-1]), torch.tensor(span.tokens[span.start :])
            tokens[i, j, : len(given)] = given
            targets[i, j, span.start - 1 : len(given)] = wanted
    return tokens, targets


def as_episodes(tokenizer: Tokenizer, tasks: Sequence[TextTask]) -> Episodes:
    """Each line by itself, without any before it: what learners in the weights read."""
    return Episodes(
        *rows(tokenizer, tasks, 0, of_queries=False),
        *rows(tokenizer, tasks, 0, of_queries=True),
    )


@dataclass(frozen=True)
class TextTasks:
    """Tasks of several families in equal shares, as `episodes.Tasks` asks for them."""

    families: tuple[Family, ...]
    tokenizer: Tokenizer
    held_out: bool  # rules for evaluation; else for training

    def draw_texts(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> list[TextTask]:
        """Fresh tasks, family after family in turn."""
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        return [
            draw_texts(self.families[i % len(self.families)], 1, n_support, n_query, rng, held_out=self.held_out)[0]
            for i in range(n_tasks)
        ]

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """The same as tokens; a task with no examples cannot be drawn so."""
        return as_episodes(self.tokenizer, self.draw_texts(n_tasks, n_support, n_query, generator))


def answer_loss(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Float[Tensor, ""]:
    """Mean nats of the asked tokens; differentiable any number of times, and under vmap."""
    asked = targets != UNASKED
    logprobs = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -(logprobs * asked).sum() / asked.sum()


def answered(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Bool[Tensor, "*N"]:
    """Whether greedy decoding writes exactly the answer and ends the line.

    The answer stands in the row, so one pass tells: each token of it must be the likeliest after those before.
    """
    return ((logits.argmax(-1) == targets) | (targets == UNASKED)).all(-1)
