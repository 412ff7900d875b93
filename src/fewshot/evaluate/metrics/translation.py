"""chrF and TER of a corpus, as sacreBLEU counts them. In: answers. Out: metrics. Knows no task.

Both are functions of sums over sentences, as BLEU is. Source: Popović 2015 (chrF); Snover et al. 2006 (TER); Post 2018.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from fewshot.base.errors import BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.metrics.metric import Metric, summed

CHRF_ORDER = 6  # characters of the longest n-gram
CHRF_BETA = 2  # how much more recall counts than precision


def chrf(name: str = "chrf") -> Metric:
    """Return chrF, 0 to 100: the F-score of n-grams of characters, from mean precision and recall over their orders."""

    def statistics(group: Sequence[Answer]) -> list[float]:
        return summed([chrf_statistics(*_pair(answer)) for answer in group])

    return Metric(name, statistics, chrf_of)


def chrf_statistics(hypothesis: str, reference: str) -> list[float]:
    """Return for each order how many n-grams were written, the reference has and both share, without white space."""
    counts: list[float] = []
    for n in range(1, CHRF_ORDER + 1):
        ours, theirs = _ngrams(hypothesis, n), _ngrams(reference, n)
        counts += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return counts


def chrf_of(sums: Sequence[float]) -> float:
    """Return chrF of summed `chrf_statistics`."""
    orders = [sums[at : at + 3] for at in range(0, len(sums), 3)]
    shares = [(both / ours, both / theirs) for ours, theirs, both in orders if ours and theirs]
    precision, recall = (sum(column) / len(shares) for column in zip(*shares, strict=True)) if shares else (0.0, 0.0)
    below = CHRF_BETA**2 * precision + recall
    return 100 * (1 + CHRF_BETA**2) * precision * recall / below if below else 0.0


def ter(name: str = "ter") -> Metric:
    """Return TER: edits, with shifts of words, per hundred words of the reference.

    Raises BadValue where sacrebleu is absent.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise BadValue("TER needs sacrebleu: pip install 'fewshot[evaluate]'")

    def statistics(group: Sequence[Answer]) -> list[float]:
        scores = [_ter().sentence_score(hypothesis, [reference]) for hypothesis, reference in map(_pair, group)]
        return summed([(score.num_edits, score.ref_length) for score in scores])

    return Metric(name, statistics, lambda sums: 100 * (sums[0] / sums[1] if sums[1] else float(sums[0] > 0)))


def _pair(answer: Answer) -> tuple[str, str]:
    return answer.text, answer.example.completions[answer.example.gold]


def _ngrams(text: str, n: int) -> Counter[str]:
    text = "".join(text.split())
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))


@cache
def _ter() -> Any:
    from sacrebleu.metrics.ter import TER

    return TER()
