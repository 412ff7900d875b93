"""Metrics of question answering, as each set's official script defines them. In: answers. Out: `Metric`s.

Free-form answers are compared by exact match and by F1 over words, against the best of several references; where people
gave the references, each is left out in turn, so that a model is not favoured over a person. Knows no task.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from fewshot.evaluate.answer import Answer, Normalisation
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, judged, mean_of, ratio
from fewshot.evaluate.metrics.normalise import first_line, normalise_answer

TextScore = Callable[[str, str], float]  # of a written answer against one reference

CANNOT_ANSWER = "CANNOTANSWER"  # QuAC's mark
MIN_HUMAN_F1 = 0.4  # QuAC: questions on which people agree less are not counted

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


# ---- against one reference


def exact(answer: str, reference: str) -> float:
    """Return 1.0 if both are the same, normalised; else 0.0. Source: SQuAD 2.0's evaluation."""
    return float(normalise_answer(answer) == normalise_answer(reference))


def token_f1(answer: str, reference: str) -> float:
    """Return the F1 of the answer's words as a bag, normalised; two without words agree. Source: SQuAD 2.0's script."""
    predicted, right = normalise_answer(answer).split(), normalise_answer(reference).split()
    if not predicted or not right:
        return float(predicted == right)
    return _f1(sum((Counter(predicted) & Counter(right)).values()), len(predicted), len(right))


def _f1(n_same: float, n_predicted: float, n_right: float) -> float:
    """Return the harmonic mean of precision and recall; 0 where nothing is the same."""
    if not n_same:
        return 0.0
    precision, recall = n_same / n_predicted, n_same / n_right
    return 2 * precision * recall / (precision + recall)


# ---- against several


def best(score: TextScore, answer: str, references: Sequence[str]) -> float:
    """Return the highest score that the answer has against any reference."""
    return max(score(answer, reference) for reference in references)


def leave_one_out(score: TextScore, answer: str, references: Sequence[str]) -> float:
    """Return the mean of the best scores when each reference is left out in turn; a single one stays.

    Source: Choi et al. 2018 (QuAC), Reddy et al. 2018 (CoQA), their official scripts.
    """
    if len(references) == 1:
        return score(answer, references[0])
    scores = [score(answer, reference) for reference in references]
    return sum(max(scores[:i] + scores[i + 1 :]) for i in range(len(scores))) / len(scores)


# ---- SQuAD 2.0 and CoQA


def squad(name: str, score: TextScore, *, no_answer: str = "", answerable: bool | None = None) -> Metric:
    """Return the metric: the mean of `score`, the best over the accepted answers.

    To a question without accepted answers the right answer is empty; one that is `no_answer` counts as empty.
    `answerable` restricts the metric to questions with, or without, an accepted answer.
    Source: Rajpurkar et al. 2018, the official script.
    """

    def value(answer: Answer) -> float:
        prediction = first_line(answer.text)
        accepted = [reference for reference in answer.example.references if normalise_answer(reference)]
        return best(score, "" if no_answer and exact(prediction, no_answer) else prediction, accepted or [""])

    if answerable is None:
        return mean_of(name, value, share=score is exact)
    return _mean_where(name, value, lambda answer: bool(answer.example.references) is answerable)


def coqa(name: str, score: TextScore) -> Metric:
    """Return the metric: the mean of `score` over turns, each reference left out in turn. Source: Reddy et al. 2018."""
    return judged(name, lambda text, example: leave_one_out(score, first_line(text), example.references))


def _mean_where(name: str, value: Callable[[Answer], float], counts: Callable[[Answer], bool]) -> Metric:
    """Return the metric: the mean of `value` over the answers that count."""

    def statistics(group: Sequence[Answer]) -> tuple[float, float]:
        counted = [answer for answer in group if counts(answer)]
        return sum(map(value, counted)), len(counted)

    return Metric(name, statistics, ratio)


# ---- QuAC


def quac_references(references: Sequence[str]) -> list[str]:
    """Return the references that count: only "cannot answer" where at least half say so, else the others."""
    spans = [reference for reference in references if reference != CANNOT_ANSWER]
    return spans if len(spans) > len(references) / 2 else [CANNOT_ANSWER]


def quac_score(answer: str, reference: str) -> float:
    """Return the F1 over words; "cannot answer" is right or wrong as a whole. Source: QuAC's official script."""
    if reference == CANNOT_ANSWER:
        return float(answer == CANNOT_ANSWER)
    return token_f1(answer, reference) if normalise_answer(reference) else 0.0


def human_f1(references: Sequence[str]) -> float:
    """Return how far people agree: the mean of each reference's best F1 against the others; 1 for a single one."""
    if len(references) == 1:
        return 1.0
    others = [[*references[:i], *references[i + 1 :]] for i in range(len(references))]
    return sum(best(quac_score, own, rest) for own, rest in zip(references, others, strict=True)) / len(references)


def quac(name: str = "f1", *, filtered: bool = True) -> Metric:
    """Return the metric: F1 over questions, each reference left out in turn; `filtered`: where people agree.

    Source: Choi et al. 2018, the official script, whose f1 is the filtered one.
    """

    def value(answer: Answer) -> float:
        return leave_one_out(quac_score, first_line(answer.text), quac_references(answer.example.references))

    if not filtered:
        return mean_of(name, value)
    return _mean_where(name, value, lambda answer: human_f1(quac_references(answer.example.references)) >= MIN_HUMAN_F1)


# ---- DROP


def drop_words(text: str) -> str:
    """Return the text as DROP compares it.

    It is split at spaces and hyphens; numbers are floats; articles and punctuation are left out.
    """
    parts = [" ".join(_ARTICLE.sub(" ", _drop_part(part.lower())).split()) for part in re.split(" |-", text)]
    return " ".join(part for part in parts if part)


def _drop_part(part: str) -> str:
    if not _is_number(part):  # the point of a number is no punctuation
        part = "".join(letter for letter in part if letter not in _PUNCTUATION)
    return str(float(part)) if _is_number(part) else part


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def drop_scores(predicted: Sequence[str], right: Sequence[str]) -> tuple[float, float]:
    """Return (exact match, F1) of the predicted spans against the right ones, in any order.

    F1 is that of the best one-to-one alignment of the spans, rounded to two decimals as in the official script; a span
    with numbers counts only if one of them is predicted.
    Source: Dua et al. 2019, allennlp-reading-comprehension drop_eval.
    """
    predicted_spans, right_spans = list(map(drop_words, predicted)), list(map(drop_words, right))
    same = len(predicted_spans) == len(right_spans) and set(predicted_spans) == set(right_spans)
    scores = [[_bag_f1(set(ours.split()), set(theirs.split())) for theirs in right_spans] for ours in predicted_spans]
    f1 = _best_alignment(scores) / max(len(predicted), len(right))
    return float(same), float(np.round(f1, 2))  # NumPy's rounding, as in the script: Python's differs at halves


def _bag_f1(predicted: set[str], right: set[str]) -> float:
    numbers = {word for word in right if _is_number(word)}
    if numbers and not numbers & predicted:
        return 0.0
    if not predicted and not right:
        return 1.0
    return _f1(len(predicted & right), len(predicted), len(right))


def _best_alignment(scores: Sequence[Sequence[float]]) -> float:
    """Return the greatest sum of scores of which no two stand in one row or column; quick where one side is short."""
    if len(scores[0]) > len(scores):
        scores = list(zip(*scores, strict=True))
    totals = {0: 0.0}  # the best sum for each set of columns taken, as bits
    for row in scores:
        grown = dict(totals)
        for taken, total in totals.items():
            for column, score in enumerate(row):
                if score > 0 and not taken >> column & 1:
                    key = taken | 1 << column
                    grown[key] = max(grown.get(key, 0.0), total + score)
        totals = grown
    return max(totals.values())


def drop(name: str, *, f1: bool, listed: bool = False) -> Metric:
    """Return the metric: the mean of DROP's F1, or exact match, against the best accepted answer, a tuple of spans.

    The written text is one span; if `listed`, it may also be several with commas between them, whichever suits better.
    """

    def judge(text: str, example: Example) -> float:
        readings = [[text], text.split(", ")] if listed else [[text]]
        accepted = [spans for spans in example.references if spans[0].strip()]
        return max((drop_scores(spans, right)[1 if f1 else 0] for spans in readings for right in accepted), default=0.0)

    return judged(name, judge, share=not f1)


# ---- choices


def class_f1(name: str, classes: Sequence[int], normalisation: Normalisation = "token") -> Metric:
    """Return the metric: the mean over `classes` of each class's F1, a class being the number of the gold completion.

    Of CB's three it is its macro F1; of MultiRC's "true" alone, over all answers, its F1a. Source: Wang et al. 2019.
    """

    def statistics(group: Sequence[Answer]) -> list[float]:
        pairs = [(answer.choice(normalisation), answer.example.gold) for answer in group]
        counts = [(pairs.count((label, label)), _count(pairs, 0, label), _count(pairs, 1, label)) for label in classes]
        return [float(number) for row in counts for number in row]

    def value(sums: Sequence[float]) -> float:
        return sum(_f1(*sums[at : at + 3]) for at in range(0, len(sums), 3)) / len(classes)

    return Metric(name, statistics, value, normalisation=normalisation)


def _count(pairs: Sequence[tuple[int, int]], place: int, wanted: int) -> int:
    return sum(pair[place] == wanted for pair in pairs)


def all_right(name: str = "accuracy", normalisation: Normalisation = "token") -> Metric:
    """Return the metric: the share of groups (MultiRC's questions) in which every choice is right."""

    def statistics(group: Sequence[Answer]) -> tuple[float, float]:
        return float(all(answer.example.is_right(answer.choice(normalisation)) for answer in group)), 1.0

    return Metric(name, statistics, ratio, share=True, normalisation=normalisation)


def chosen_text(name: str, score: TextScore, normalisation: Normalisation = "token") -> Metric:
    """Return the metric: the mean of `score` of the chosen text against the best right one.

    An example's `references` hold a text for each completion. Source: Zhang et al. 2018 (ReCoRD), the official script.
    """

    def value(answer: Answer) -> float:
        texts, example = answer.example.references, answer.example
        right = [texts[example.gold], *(texts[index] for index in example.also_right)]
        return best(score, texts[answer.choice(normalisation)], right)

    return mean_of(name, value, share=score is exact, normalisation=normalisation)
