"""In-context evaluation, with no gradient update. In: a model, a tokenizer, a task. Out: its answers for every K.

Knows neither the command line nor where results are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fewshot.base.dist import gather, n_ranks, rank
from fewshot.base.errors import BadValue, check
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Episode, n_questions
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.prompt import Prompt, build_prompt
from fewshot.evaluate.result import TaskAnswers
from fewshot.evaluate.scoring.answerer import Answerer
from fewshot.evaluate.task import Task
from fewshot.tokenizer.vocab import Tokenizer

BATCHES_AT_ONCE = 8  # prompts of so many batches are planned and sorted together


@runtime_checkable
class Store(Protocol):
    """Where answers are stored as they come."""

    def add(self, task: Task, answers: Sequence[tuple[Prompt, Answer]]) -> None:
        """Store answers."""
        ...

    def get(self, task: Task, prompt: Prompt) -> Answer | None:
        """Return the stored answer to the prompt, or None."""
        ...


def evaluate(
    lm: LanguageModel,
    tokenizer: Tokenizer,
    task: Task,
    *,
    shots: Sequence[int],
    limit: int,
    seed: int,
    batch_size: int = 32,
    store: Store | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TaskAnswers]:
    """Return the answers for every K in `shots`, over at most `limit` questions, the same ones for every K.

    All K of a question run together, so that what their prompts share is computed once. `on_progress(done, total)`
    counts questions. A question that does not fit the context is counted as skipped; a demonstration that does not
    fit is left out. With `store`, answers are stored as they come and those that are there are not computed again.
    Under torchrun the processes share the questions, each with a store of its own, and all get all answers.
    Source: Brown et al. 2020, section 2.4.
    """
    check(len(shots) > 0 and min(shots) >= 0, f"shots are {list(shots)}: give one or more numbers from 0 up")
    answerer = Answerer(lm, tokenizer, batch_size=batch_size)
    by_shots = {k: task.episodes(limit, k, seed) for k in shots}
    n = len(by_shots[shots[0]])
    slab = max(1, min(batch_size * BATCHES_AT_ONCE // len(shots), -(-n // n_ranks())))
    answers: dict[tuple[int, int], Answer] = {}  # by (K, place of the question)
    prompts: dict[tuple[int, int], Prompt] = {}
    for number, first in enumerate(range(0, n, slab)):
        if number % n_ranks() == rank():
            places = [(k, at) for at in range(first, min(first + slab, n)) for k in shots]
            built = {(k, at): build_prompt(tokenizer, task, by_shots[k][at], shots=k, n_ctx=lm.n_ctx)
                     for k, at in places}  # fmt: skip
            fitting = {place: prompt for place, prompt in built.items() if prompt is not None}
            prompts |= fitting
            answers |= _answer(answerer, task, fitting, store)
        if on_progress is not None:
            on_progress(len(shots) * min(first + slab, n), len(shots) * n)
    for their_answers, their_prompts in gather((answers, prompts)):
        answers, prompts = {**their_answers, **answers}, {**their_prompts, **prompts}
    questions = digest_of_set(task, limit)
    return [_at_one_k(task, k, seed, by_shots[k], answers, prompts, questions) for k in shots]


def digest_of_set(task: Task, limit: int) -> str:
    """Return a digest of the set of questions: of contexts, completions, right answers and demonstrations.

    It is the same for all K and seeds, so that these belong together: the demonstrations in it, and the questions of a
    made task, which are others for another seed, are those of seed 0.
    """
    try:
        episodes = task.episodes(limit, 1, 0)
    except BadValue:  # there are none
        episodes = task.episodes(limit, 0, 0)
    digest = hashlib.blake2b(digest_size=8)
    for episode in episodes:
        question = episode.example
        shown = [demonstration.demonstration for demonstration in episode.demonstrations]
        content = (question.context, question.contexts, question.completions, question.gold, question.also_right, shown)
        digest.update(repr(content).encode())
    return digest.hexdigest()


def _answer(
    answerer: Answerer, task: Task, prompts: Mapping[tuple[int, int], Prompt], store: Store | None
) -> dict[tuple[int, int], Answer]:
    """Return the answers to the prompts, from the store where it has them; the others are computed and stored."""
    stored = {place: store.get(task, prompt) for place, prompt in prompts.items()} if store else {}
    known = {place: answer for place, answer in stored.items() if answer is not None}
    missing = {place: prompt for place, prompt in prompts.items() if place not in known}
    answers = answerer.answers(task, list(missing.values())) if missing else []
    if store and missing:
        store.add(task, list(zip(missing.values(), answers, strict=True)))
    return known | dict(zip(missing, answers, strict=True))


def _at_one_k(
    task: Task,
    k: int,
    seed: int,
    episodes: Sequence[Episode],
    answers: Mapping[tuple[int, int], Answer],
    prompts: Mapping[tuple[int, int], Prompt],
    questions: str,
) -> TaskAnswers:
    """Return the answers at one K in the order of the episodes, without groups of which a question was skipped."""
    examples = [episode.example for episode in episodes]
    absent = {example.group for at, example in enumerate(examples) if (k, at) not in answers} - {""}
    places = [at for at, example in enumerate(examples) if (k, at) in answers and example.group not in absent]
    ideals = [(episodes[at].ideal, prompts[k, at].shots) for at in places]
    return TaskAnswers(
        task=task,
        shots=k,
        seed=seed,
        answers=tuple(answers[k, at] for at in places),
        prompts=tuple(prompts[k, at] for at in places),
        ideals=tuple(ideal[shots] for ideal, shots in ideals if ideal is not None),
        n_skipped=n_questions(examples) - n_questions([examples[at] for at in places]),
        questions=questions,
    )
