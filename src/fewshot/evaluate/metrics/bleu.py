"""BLEU of a corpus, as multi-bleu.perl and as sacreBLEU count it. In: answers. Out: metrics. Knows no task.

Both are functions of sums over sentences: matches and totals of 1- to 4-grams and both lengths.
Source: Papineni et al. 2002; Koehn et al. 2007 (Moses); Post 2018.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial

from fewshot.base.errors import BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.metrics.metric import Metric, summed

Tokenise = Callable[[str], Sequence[str]]

ORDER = 4
_WORDS = re.compile(r"\S+", re.ASCII)  # multi-bleu.perl knows ASCII's spaces alone: others are parts of words


def words(text: str) -> list[str]:
    """Return the words of the text: what stands between spaces."""
    return _WORDS.findall(text)


def ngram_statistics(hypothesis: Sequence[str], reference: Sequence[str]) -> tuple[int, ...]:
    """Return the matches of 1- to 4-grams (at most as often as the reference has them), their totals, both lengths."""
    counts = [(_ngrams(hypothesis, n), _ngrams(reference, n)) for n in range(1, ORDER + 1)]
    matches = [(ours & theirs).total() for ours, theirs in counts]
    return (*matches, *(ours.total() for ours, _ in counts), len(hypothesis), len(reference))


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def bleu_of(sums: Sequence[float], *, smooth: bool) -> float:
    """Return BLEU, 0 to 100, of summed `ngram_statistics`; 0 where an order has no match.

    With `smooth`, the k-th order without a match counts as 1 / 2^k matches (sacreBLEU's "exp"), if any order has one.
    """
    matches, totals, (n_ours, n_theirs) = sums[:ORDER], sums[ORDER : 2 * ORDER], sums[2 * ORDER :]
    if not any(matches) or not all(totals):
        return 0.0
    precisions, halved = [], 1.0
    for match, total in zip(matches, totals, strict=True):
        if not match:
            if not smooth:
                return 0.0
            halved *= 2
        precisions.append(100 * match / total if match else 100 / (halved * total))
    brevity = min(1.0, math.exp(1 - n_theirs / n_ours))
    return brevity * math.exp(sum(map(math.log, precisions)) / ORDER)


def bleu_multi(name: str = "bleu_mb", *, tokenise: Tokenise = words) -> Metric:
    """Return BLEU as multi-bleu.perl counts it, not smoothed: of tokens, by default what stands between spaces."""
    return _bleu(name, tokenise, smooth=False)


def bleu_sacre(name: str = "bleu_sb") -> Metric:
    """Return BLEU as sacrebleu.corpus_bleu counts it: of its own tokens (13a), smoothed.

    Raises BadValue where sacrebleu is absent.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise BadValue("BLEU needs sacrebleu: pip install 'fewshot[evaluate]'")
    return _bleu(name, _tokens_13a, smooth=True)


def _bleu(name: str, tokenise: Tokenise, *, smooth: bool) -> Metric:
    def statistics(group: Sequence[Answer]) -> list[float]:
        return summed([_of_answer(answer, tokenise) for answer in group])

    return Metric(name, statistics, partial(bleu_of, smooth=smooth))


def _of_answer(answer: Answer, tokenise: Tokenise) -> tuple[int, ...]:
    """Return statistics of the answer's first line against the gold completion."""
    written = answer.text.lstrip().partition("\n")[0].rstrip(" ")
    return ngram_statistics(tokenise(written), tokenise(answer.example.completions[answer.example.gold].strip(" ")))


def _tokens_13a(text: str) -> list[str]:
    return _tokeniser_13a()(text).split()


@cache
def _tokeniser_13a() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()
