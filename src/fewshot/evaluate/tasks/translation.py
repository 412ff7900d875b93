"""Translation between English and French, German, Romanian. In: WMT's pairs of files. Out: six free-form tasks.

Source: Bojar et al. 2014, 2016; Brown et al. 2020, section 3.3.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.bleu import bleu_multi, bleu_sacre
from fewshot.evaluate.metrics.moses import moses_tokens
from fewshot.evaluate.metrics.translation import chrf, ter
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
CORPORA = ("news-commentary-v9", "news-commentary-v11", "europarl-v7", "europarl-v8", "commoncrawl")
MAX_TRAINING = 20_000  # pairs kept of a training corpus, evenly spread; demonstrations need few
MAX_TOKENS = 256  # of a written translation: the harness's, and room for every reference in the paper's form

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Direction:
    """One row of the paper: from a language to another, on the test set of a year."""

    paper_name: str
    test: str
    dev: str
    source: str
    target: str

    @property
    def foreign(self) -> str:
        """The language that is not English."""
        return self.source if self.target == "en" else self.target


def _both(year: str, foreign: str, name: str, test: str, dev: str) -> dict[str, Direction]:
    short, number = name, year[-2:]
    return {
        f"{year}_{foreign}_en": Direction(f"{short}->En {number}", test, dev, foreign, "en"),
        f"{year}_en_{foreign}": Direction(f"En->{short} {number}", test, dev, "en", foreign),
    }


DIRECTIONS = {
    **_both("wmt14", "fr", "Fr", "newstest2014", "newstest2013"),
    **_both("wmt16", "de", "De", "newstest2016", "newstest2015"),
    **_both("wmt16", "ro", "Ro", "newstest2016", "newsdev2016"),
}


def file_pairs(stem: str, direction: Direction) -> Iterator[tuple[str, str]]:
    """Yield names that the source and the target of a set may have: SGML in either direction, or plain lines."""
    source, target = direction.source, direction.target
    for pair in (source + target, target + source):
        for ours, theirs in (("src", "ref"), ("ref", "src")):
            yield f"{stem}-{pair}-{ours}.{source}.sgm", f"{stem}-{pair}-{theirs}.{target}.sgm"
    yield f"{stem}.{source}", f"{stem}.{target}"


def training_pairs(direction: Direction) -> Iterator[tuple[str, str]]:
    """Yield names that the source and the target of a training corpus may have."""
    for corpus in CORPORA:
        stem = f"{corpus}.{direction.foreign}-en"
        yield f"{stem}.{direction.source}", f"{stem}.{direction.target}"


def read_sentences(file: Found, protocol: EvalProtocol) -> list[str]:
    """Return the sentences of SGML's <seg>, or of plain lines; the harness reads spaces and SGML's entities as they
    stand.
    """
    text = file.text()
    if not re.search(r"\.sgml?(\.|$)", file.name):
        lines = text.rstrip("\n").split("\n")
        return [line.rstrip() if protocol is HARNESS else line.strip() for line in lines]
    segments = _SEGMENT.findall(text)
    return segments if protocol is HARNESS else [html.unescape(" ".join(one.split())) for one in segments]


def find_pairs(
    data: Data,
    names: Iterator[tuple[str, str]],
    direction: Direction,
    protocol: EvalProtocol,
    *,
    most: int | None = None,
) -> Split | None:
    """Return the sentence pairs of the first two files that are both there, at most `most`, evenly spread."""
    for source_name, target_name in names:
        files = data.find(source_name), data.find(target_name)
        if files[0] and files[1]:
            return _pairs(files[0], files[1], direction, protocol, most)
    return None


def _pairs(source: Found, target: Found, direction: Direction, protocol: EvalProtocol, most: int | None) -> Split:
    sentences, translations = read_sentences(source, protocol), read_sentences(target, protocol)
    if len(sentences) != len(translations):
        raise BadFile(
            f"{source} has {len(sentences):,} sentences and {target} {len(translations):,}: they must be pairs"
        )
    step = -(-len(sentences) // most) if most else 1
    pairs = list(zip(sentences, translations, strict=True))[::step]
    examples = [
        _example(f"{source.short}:{number}", sentence, translation, direction, protocol)
        for number, (sentence, translation) in enumerate(pairs, start=1)
        if sentence and translation
    ]
    if not examples:
        raise BadFile(f"{source} and {target} hold no sentences")
    return Split(f"{source.short} and {target.short}", examples)


def _example(name: str, sentence: str, translation: str, direction: Direction, protocol: EvalProtocol) -> Example:
    source, target = LANGUAGES[direction.source], LANGUAGES[direction.target]
    if protocol is HARNESS:  # its translations begin with a space, which comes after that of every answer
        return Example(name, f"{source} phrase: {sentence}\n{target} phrase:", (f"  {translation}",))
    question = Example(name, f"Q: What is the {target} translation of {sentence} A:", (f" {translation}",))
    return Example(name, f"{sentence} =", (f" {translation}",), zero_shot=question)


def make_translation(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the direction's test set; without its files the development set is evaluated.

    Demonstrations come from a training corpus in the paper's form, from the development set in the harness's and
    where there is no corpus.
    """
    direction = DIRECTIONS[name]
    test_names = list(file_pairs(direction.test, direction))
    shown_names = [" and ".join(test_names[0]), " and ".join(test_names[-1])]
    data = needed(name, data, *shown_names)
    test = find_pairs(data, iter(test_names), direction, protocol)
    dev = find_pairs(data, file_pairs(direction.dev, direction), direction, protocol)
    training = None
    if protocol is GPT3:
        training = find_pairs(data, training_pairs(direction), direction, protocol, most=MAX_TRAINING)
    evaluated = test or dev
    if evaluated is None:
        raise BadFile(f"{name}: {data} holds no {' or '.join(shown_names)}")
    splits = Splits(evaluated, training, dev if test else None)
    in_paper = (bleu_multi(tokenise=partial(moses_tokens, language=direction.target)), bleu_sacre("bleu_sb"))
    return Task(
        name=name,
        paper_name=direction.paper_name,
        protocol=protocol,
        kind="complete",
        metrics=(bleu_sacre("bleu"), ter(), chrf()) if protocol is HARNESS else in_paper,
        episodes=splits.episodes(name, protocol),
        dev=splits.dev_episodes(name) if protocol is GPT3 else None,
        source=splits.source(protocol),
        delimiter="\n\n" if protocol is HARNESS else "\n",
        default_shots=64,
        stop=("\n",),
        max_answer_tokens=MAX_TOKENS,
    )


TASKS = {name: partial(make_translation, name) for name in DIRECTIONS}
