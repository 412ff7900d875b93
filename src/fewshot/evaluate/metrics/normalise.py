"""Text of answers, normalised: without case, punctuation, articles and needless spaces. Knows no task."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation and articles, its words joined by single spaces.

    Source: Rajpurkar et al. 2016 (the official evaluation of SQuAD; closed-book QA has used it ever since).
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def first_line(text: str) -> str:
    """Return the first line of an answer that is not empty, without spaces at its ends."""
    return text.strip().partition("\n")[0].strip()


def matches_any(answer: str, accepted: Iterable[str]) -> float:
    """Return 1.0 if the answer's first line is, normalised, one of the accepted answers; else 0.0.

    Where nothing is left of a line it is compared as it stands: the official script takes silence for ")" or "The".
    """
    line = first_line(answer)
    plain = normalise_answer(line)
    return float(
        any(plain == normalise_answer(right) if plain else line and line == right.strip() for right in accepted)
    )
