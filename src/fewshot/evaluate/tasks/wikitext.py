"""WikiText-2: perplexity of its test articles. In: its raw file. Out: one task of reading.

A task of the harness alone: the paper leaves it out, as Wikipedia is in its training data (section 3.1.1).
Source: Merity et al. 2016; the text without its tokenisation lm_eval 0.4.13, tasks/wikitext.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import Metric, exp_of, ratio
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task

FILES = ("wiki.test.raw",)

_TITLE = re.compile(r"= (?!=).*[^=] =")  # of an article; those of its sections have more signs

# In this order: the harness's, some of which never match.
_REPLACED = (
    (r"s '", r"s'"),
    (r"/' [0-9]/", r"/'[0-9]/"),
    *((rf" @{sign}@ ", sign) for sign in ("-", ",")),
    (r" @\.@ ", "."),
    *((rf" ({sign}) ", r"\1 ") for sign in (":", ";", r"\.", "!", r"\?", ",")),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def plain_text(page: str) -> str:
    """Return the page as it was before it was split into words, as far as the harness goes."""
    for pattern, replacement in _REPLACED:
        page = re.sub(pattern, replacement, page)
    return page


def read_wikitext(file: DataFile) -> list[Example]:
    """Return the articles of a raw file, each from its title to the next, with the raw text in `references`."""
    pages: list[list[str]] = [[]]
    for line in file.text().split("\n"):
        if _TITLE.fullmatch(line.strip()):
            pages.append([])
        pages[-1].append(line)
    texts = [text for text in map("\n".join, pages) if text.strip()]
    if not texts:
        raise BadFile(f"{file} holds no text")
    return [Example(f"{file.short}:{n}", "", (plain_text(text),), references=text) for n, text in enumerate(texts, 1)]


def _per(name: str, count: Callable[[str], int], value: Callable[[float], float]) -> Metric:
    """Return `value` of the mean nats a unit, as many as `count` gives for the raw article."""

    def statistics(answer: Answer) -> tuple[float, float]:
        return -answer.logprobs[0], count(answer.example.references)

    return Metric(
        name,
        lambda group: [sum(column) for column in zip(*map(statistics, group), strict=True)],
        lambda sums: value(ratio(sums)),
    )


def n_words(text: str) -> int:
    """Return the number of pieces between white space, with empty ones at both ends, as the harness counts them."""
    return len(re.split(r"\s+", text))


def n_bytes(text: str) -> int:
    """Return the number of bytes in UTF-8."""
    return len(text.encode())


def make_wikitext(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the perplexity of the test articles, each read by itself; no form of it has demonstrations."""
    file = require_data("wikitext", data, *FILES).require("wikitext", *FILES)
    pages = read_wikitext(file)
    return Task(
        name="wikitext",
        protocol=protocol,
        kind="rolling",
        metrics=(
            _per("word_perplexity", n_words, exp_of),
            _per("byte_perplexity", n_bytes, exp_of),
            _per("bits_per_byte", n_bytes, lambda nats: nats / math.log(2)),
        ),
        episodes=lambda n, max_shots, seed: [Episode(page) for page in pages[:n]],
        source=file.short,
        notes=("the text is scored as it was before word splitting, but words and bytes are counted after it",),
    )


TASKS = {"wikitext": make_wikitext}
