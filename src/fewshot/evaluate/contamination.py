"""Which examples of a task stood in the training text, and what its scores are without them.

In: a task's examples, the training documents, a model's answers. Out: clean and dirty examples with the evidence, and
each score over all, clean and dirty questions. Knows neither runs nor files; the command brings them together:

    examples = {task.name: [episode.example for episode in task.episodes(limit, 0, seed)] for task in tasks}
    shards = load_tokens(read_data_config(run), run.data).training    # a tuple of shards for each source
    documents = documents_of_shards(chain.from_iterable(shards), load_tokenizer(run.tokenizer))
    # of a run whose data folder is gone: documents = read_documents(paths of the text)
    synthetic = {task.name for task in tasks if task.synthetic}
    split = find_contamination(examples, documents, synthetic=synthetic)    # one pass for all tasks
    for task in tasks:
        for shots, answers in answers_of[task.name].items():
            scores += split_results(split[task.name], answers, task.metrics, shots=shots, seed=seed)

Source: Brown et al. 2020, section 4 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import check
from fewshot.corpus.document import Document
from fewshot.corpus.overlap import which_collide, words
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, grouped

MIN_WORDS, MAX_WORDS = 8, 13  # of an n-gram; fewer collide by chance, more are slower and find less
LENGTH_PERCENTILE = 5


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A dirty example and what it shares with the training text."""

    id: str
    gram: str  # the first words in a row that were found
    document: str  # where
    n_grams: int  # how many of the example's n-grams stand in some document


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """A task's examples: clean, by id, and dirty."""

    task: str
    n_words: int  # of an n-gram; an example with fewer is looked for as a whole
    clean: tuple[str, ...]
    dirty: tuple[Overlap, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the split as plain values."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], *, where: str) -> Contamination:
        """Return the split that `to_json` gave; `where` names its file in an error."""
        return from_plain(cls, plain, where=where)


@dataclass(frozen=True, kw_only=True)
class SubsetScore:
    """A metric over all, the clean or the dirty questions, with its 95% interval; None where there are no questions."""

    n: int  # questions
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class CleanDirtyScores:
    """One metric of one task at one K over all, clean and dirty questions."""

    task: str
    metric: str
    share: bool  # the metric is a share, to be shown in per cent
    shots: int
    n_words: int
    all: SubsetScore
    clean: SubsetScore
    dirty: SubsetScore
    clean_share: float  # of the questions
    # (clean - all) / all; of a perplexity, unlike a share, more is worse. None where a score is missing or 0
    relative_difference: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], *, where: str) -> CleanDirtyScores:
        """Return the scores that `to_json` gave; `where` names their file in an error."""
        return from_plain(cls, plain, where=where)


def compared_text(example: Example) -> str:
    """Return the text that is looked for: the context and its right completion, in the zero-shot form if there is one.

    So of LAMBADA it is the whole passage, unbroken; of short questions it is what they say without "Q:" and "A:".
    """
    return example.bare or "".join((example.zero_shot or example).pairs[example.gold])


def gram_length(lengths: Sequence[int], *, synthetic: bool) -> int:
    """Return the n of the n-grams for examples of `lengths` words: their 5th percentile, from 8 to 13.

    For a synthetic task it may be less. Source: appendix C, with table C.1.
    """
    percentile = int(np.percentile(lengths, LENGTH_PERCENTILE, method="lower"))
    return max(1 if synthetic else MIN_WORDS, min(percentile, MAX_WORDS))


def find_contamination(
    examples: Mapping[str, Sequence[Example]], documents: Iterable[Document], *, synthetic: Collection[str] = ()
) -> dict[str, Contamination]:
    """Return each task's examples as clean and dirty, by the task's name, in one pass through the documents.

    An example is dirty if any n words in a row, or all its words where it has fewer, stand in any document. An example
    with no word is clean. The tasks named in `synthetic` may have shorter n-grams (see `gram_length`).
    """
    texts = {
        (task, i): compared_text(example) for task, of_task in examples.items() for i, example in enumerate(of_task)
    }
    lengths = {key: len(words(text)) for key, text in texts.items()}
    n_of_task: dict[str, int] = {}
    for task, of_task in examples.items():
        check(len(of_task) > 0, f"{task} has no examples to compare with the training text")
        n_of_task[task] = gram_length([lengths[task, i] for i in range(len(of_task))], synthetic=task in synthetic)
    n_of = {key: max(1, min(n_of_task[key[0]], length)) for key, length in lengths.items()}
    collisions = which_collide(texts, documents, n_of)
    split = {}
    for task, of_task in examples.items():
        dirty = [
            Overlap(id=example.id, gram=hit.gram, document=hit.document, n_grams=hit.n_grams)
            for i, example in enumerate(of_task)
            if (hit := collisions.get((task, i)))
        ]
        dirty_ids = {overlap.id for overlap in dirty}
        clean = tuple(example.id for example in of_task if example.id not in dirty_ids)
        split[task] = Contamination(task=task, n_words=n_of_task[task], clean=clean, dirty=tuple(dirty))
    return split


def split_results(
    split: Contamination, answers: Sequence[Answer], metrics: Sequence[Metric], *, shots: int, seed: int
) -> list[CleanDirtyScores]:
    """Return each metric of the answers at one K over all, clean and dirty questions.

    A group is dirty if any of its examples is. Answers belong to examples by id; one to an example that was not
    compared raises `BadValue`.
    """
    is_dirty = dict.fromkeys(split.clean, False) | dict.fromkeys((overlap.id for overlap in split.dirty), True)
    for answer in answers:
        check(
            answer.example.id in is_dirty,
            f"{split.task}: example {answer.example.id!r} was not compared with the training text: compare again",
        )
    groups = grouped(answers)
    marks = [any(is_dirty[answer.example.id] for answer in group) for group in groups]
    clean_groups, dirty_groups = (
        [group for group, mark in zip(groups, marks, strict=True) if mark == wanted] for wanted in (False, True)
    )
    rows = []
    for metric in metrics:
        whole, clean, dirty = (_score(metric, part, seed) for part in (groups, clean_groups, dirty_groups))
        rows.append(
            CleanDirtyScores(
                task=split.task,
                metric=metric.name,
                share=metric.share,
                shots=shots,
                n_words=split.n_words,
                all=whole,
                clean=clean,
                dirty=dirty,
                clean_share=len(clean_groups) / max(1, len(groups)),
                relative_difference=_relative(clean.value, whole.value),
            )
        )
    return rows


def _relative(clean: float | None, whole: float | None) -> float | None:
    return None if clean is None or not whole else (clean - whole) / whole


def _score(metric: Metric, groups: Sequence[Sequence[Answer]], seed: int) -> SubsetScore:
    answers = [answer for group in groups for answer in group]
    if not answers:
        return SubsetScore(n=0, value=None, low=None, high=None)
    value, low, high = (
        number if math.isfinite(number) else None
        for number in (metric.of(answers), *metric.interval(answers, seed=seed))
    )
    return SubsetScore(n=len(groups), value=value, low=low, high=high)
