"""Text tasks with a hidden rule each, as tokens. In: families of rules, a tokenizer. Out: episodes and prompts.

A task is a rule; its examples are lines of a question and its answer. A learner in weights reads each line by itself, a
learner in context reads K lines and the question as one text: both are made here from the same examples. Only the
answer and the line break after it are targets. Knows no learner.
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

Answered = tuple[str, str]  # question, answer
NO_TARGET = -1  # in targets: this position is not judged


@dataclass(frozen=True)
class TextTask:
    """One hidden rule: demonstrations with distinct questions to learn from, and queries to be judged on.

    A query may be one of the demonstrated questions, as in `fewshot evaluate`: then it is to be remembered.
    """

    family: Family
    demonstrations: tuple[Answered, ...]
    queries: tuple[Answered, ...]

    def first(self, shots: int) -> TextTask:
        """Return the same task and queries with only the first demonstrations."""
        return replace(self, demonstrations=self.demonstrations[:shots])

    def ideal(self) -> float:
        """Return the ideal learner's accuracy on the queries."""
        known = dict(self.demonstrations)
        return sum(self.family.ideal(known, question) for question, _ in self.queries) / len(self.queries)


def draw_text(family: Family, n_support: int, n_query: int, rng: random.Random, *, held_out: bool) -> TextTask:
    """Return a task of a rule for evaluation or for training, drawn as `Family.episodes` does.

    Raises BadValue for more demonstrations than the family has questions.
    """
    check(
        n_support <= family.n_questions,
        f"{family.name} has {family.n_questions} distinct questions: {n_support} examples cannot be shown",
    )
    rule = family.rule(rng, held_out=held_out)
    questions = [family.draw_question(rng) for _ in range(n_query)]
    demonstrations: dict[str, str] = {}
    while len(demonstrations) < n_support:
        question = family.draw_question(rng)
        demonstrations.setdefault(question, family.answer(rule, question))
    return TextTask(family, tuple(demonstrations.items()), tuple((q, family.answer(rule, q)) for q in questions))


def prompts(tokenizer: Tokenizer, tasks: Sequence[TextTask]) -> tuple[Int[Tensor, "N Q T"], Int[Tensor, "N Q T"]]:
    """Return tokens of each query after all demonstrations, and targets: what learners in context read."""
    return _rows(tokenizer, [(task.family, task.demonstrations, task.queries) for task in tasks])


def as_episodes(tokenizer: Tokenizer, tasks: Sequence[TextTask]) -> Episodes:
    """Return each line by itself, without others before it: what learners in weights read."""
    support = _rows(tokenizer, [(task.family, (), task.demonstrations) for task in tasks])
    return Episodes(*support, *_rows(tokenizer, [(task.family, (), task.queries) for task in tasks]))


def _rows(
    tokenizer: Tokenizer, parts: Sequence[tuple[Family, Sequence[Answered], Sequence[Answered]]]
) -> tuple[Int[Tensor, "N Q T"], Int[Tensor, "N Q T"]]:
    """Return tokens and targets: for each (family, lines before, last lines) a row for each last line.

    A row begins with <|endoftext|> and is one running text, like documents of the training data and prompts of
    `fewshot evaluate`. The target of a position is the next token in the last answer and its line break, NO_TARGET
    elsewhere. Rows are padded at their ends to the longest; no token before reads the padding.
    """
    spans = []
    for family, before, last in parts:
        text = "".join(f"{family.context(q)}{family.completion(a)}\n" for q, a in before)
        ends = [(text + family.context(q), f"{family.completion(a)}\n") for q, a in last]
        spans.append([make_span(tokenizer, GPT3, context, end) for context, end in ends])
    width = max(len(span.tokens) for row in spans for span in row) - 1
    tokens = torch.full((len(spans), len(spans[0]), width), tokenizer.eot)
    targets = torch.full_like(tokens, NO_TARGET)
    for i, row in enumerate(spans):
        for j, span in enumerate(row):
            inputs, answer = torch.tensor(span.tokens[:-1]), torch.tensor(span.tokens[span.start :])
            tokens[i, j, : len(inputs)] = inputs
            targets[i, j, span.start - 1 : len(inputs)] = answer
    return tokens, targets


@dataclass(frozen=True)
class TextTasks:
    """Tasks of several families in equal shares; an `episodes.Tasks`."""

    families: tuple[Family, ...]
    tokenizer: Tokenizer
    held_out: bool  # rules for evaluation; else for training
    shots: tuple[int, ...] = ()  # numbers of demonstrations, one for each draw, at most `n_support`; (): `n_support`

    def draw_texts(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> list[TextTask]:
        """Return fresh tasks of the families in turn, all with the same number of demonstrations."""
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        k = rng.choice([shots for shots in self.shots if shots <= n_support] or [n_support])
        return [
            draw_text(self.families[i % len(self.families)], k, n_query, rng, held_out=self.held_out)
            for i in range(n_tasks)
        ]

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh tasks as tokens."""
        return as_episodes(self.tokenizer, self.draw_texts(n_tasks, n_support, n_query, generator))


def answer_loss(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Float[Tensor, ""]:
    """Return the mean loss in nats over the targets; differentiable any number of times, and under vmap."""
    is_target = targets != NO_TARGET
    logprobs = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -(logprobs * is_target).sum() / is_target.sum()


def answered(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Bool[Tensor, "*N"]:
    """Return whether greedy decoding writes exactly the answer and ends the line.

    One pass over the row with the answer tells: each of its tokens must be the likeliest after those before.
    """
    return ((logits.argmax(-1) == targets) | (targets == NO_TARGET)).all(-1)


def share_answered(logits: Float[Tensor, "*N T V"], targets: Int[Tensor, "*N T"]) -> Float[Tensor, ""]:
    """Return the share of rows that are answered right."""
    return answered(logits, targets).float().mean()
