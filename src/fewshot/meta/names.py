"""Learners as pages and tables name them, and how their lines look. In: names in results. Out: words, styles.

Results keep the short names that configurations give. Whatever is not listed here is shown under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fewshot.report.chart import BLUE, BROWN, GREEN, GREY, OLIVE, ORANGE, PINK, PURPLE, RED, TEAL, Style, Styles

LEARNERS: Mapping[str, str] = {
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "anil": "ANIL",
    "meta-sgd": "Meta-SGD",
    "maml++": "MAML++",
    "reptile": "Reptile",
    "pretrain": "pre-training",
    "context": "in context",
    "context, mean till there": "in context, mean so far",
    "reader": "in-context tuning",
    "ideal": "ideal learner",
    "uniform": "uniform guess",
    "unigram": "unigram counts",
    "bigram": "bigram counts",
    "retrieve": "retrieval",
}
QUANTITIES: Mapping[str, str] = {"nats above the best reader": "nats above the best possible"}
DASHES: Mapping[str, str] = {"weights": "-", "context": "-", "baseline": "--", "bound": ":"}
BOUND = Style(PINK, dash=":")  # the best possible learner of a task, whatever it is called there
STYLES: Mapping[str, Style] = {
    "in context": Style(BLUE, "o"),
    "in context, mean so far": Style(TEAL, "o"),
    "MAML": Style(ORANGE, "s"),
    "first-order MAML": Style(OLIVE, "s"),
    "ANIL": Style(PURPLE, "^"),
    "Meta-SGD": Style(BROWN, "v"),
    "MAML++": Style(TEAL, "X"),
    "Reptile": Style(RED, "v"),
    "pre-training": Style(GREEN, "D"),
    "prompt": Style(BLUE, "P"),
    "fine-tuning": Style(GREEN, "X"),
    "in-context tuning": Style(PURPLE, "v"),
    "3 nearest neighbours": Style(BROWN, dash="--"),
    "nearest example": Style(BROWN, dash="--"),
    "averaging": Style(TEAL, dash="--"),
    "one gradient step": Style(RED, dash="--"),
    "predicting 0": Style(GREY, dash="--"),
    "more frequent answer": Style(GREY, dash="--"),
    "uniform guess": Style(GREY, dash="--"),
    "unigram counts": Style(BROWN, dash="--"),
    "retrieval": Style(GREEN, dash="--"),
    "bigram counts": BOUND,
    "least squares": BOUND,
    "ridge": BOUND,
    "ideal learner": BOUND,
}


def learner_in_words(name: str) -> str:
    """Return what pages call a learner of a result."""
    return LEARNERS.get(name, name)


def split_seed(loop: str) -> tuple[str, int | None]:
    """Return the learner that an outer loop of a result trains, and its number among loops of several seeds.

    >>> split_seed("maml_3"), split_seed("context")
    (('maml', 3), ('context', None))
    """
    numbered = re.fullmatch(r"(.+)_([0-9]{1,4})", loop)
    return (numbered[1], int(numbered[2])) if numbered else (loop, None)


def learner_styles() -> Styles:
    """Return the styles of a page of learners: the same for a known learner on every page."""
    return Styles(STYLES)
