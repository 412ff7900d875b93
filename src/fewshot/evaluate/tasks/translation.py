"""Translation between English and French, German, Romanian. In: WMT's pairs of files. Out: six free-form tasks.

Source: Bojar et al. 2014, 2016; Brown et al. 2020, section 3.3.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from functools import partial

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.file_names import DIRECTIONS, Direction, file_pairs
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.bleu import bleu_multi, bleu_sacre
from fewshot.evaluate.metrics.moses import moses_tokens
from fewshot.evaluate.metrics.translation import chrf, ter
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
CORPORA = ("news-commentary-v9", "news-commentary-v11", "europarl-v7", "europarl-v8", "commoncrawl")
MAX_TRAINING = 20_000  # pairs kept of a training corpus, evenly spread; demonstrations need few
MAX_TOKENS = 256  # of a written translation: the harness's, and room for every reference in the paper's form

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)


def training_pairs(direction: Direction) -> Iterator[tuple[str, str]]:
    """Yield names that the source and the target of a training corpus may have."""
    for corpus in CORPORA:
        stem = f"{corpus}.{direction.foreign}-en"
        yield f"{stem}.{direction.source}", f"{stem}.{direction.target}"


def read_sentences(file: DataFile) -> list[str]:
    """Return the sentences of SGML's <seg>, or of plain lines, without superfluous spaces and with entities decoded."""
    if _is_sgml(file):
        return [html.unescape(" ".join(segment.split())) for segment in _SEGMENT.findall(file.text())]
    return list(map(str.strip, _lines(file)))


def read_sentences_as_harness(file: DataFile) -> list[str]:
    """Return the sentences that `read_sentences` returns, but with the spaces and entities that the file has."""
    return _SEGMENT.findall(file.text()) if _is_sgml(file) else list(map(str.rstrip, _lines(file)))


def _is_sgml(file: DataFile) -> bool:
    return re.search(r"\.sgml?(\.|$)", file.name) is not None


def _lines(file: DataFile) -> list[str]:
    return file.text().rstrip("\n").split("\n")


ReadPairs = Callable[[DataFile, DataFile, Direction, int | None], Split]


def find_pairs(
    data: Data, names: Iterator[tuple[str, str]], direction: Direction, read: ReadPairs, *, most: int | None = None
) -> Split | None:
    """Return the sentence pairs of the first two files that are both there, at most `most`, evenly spread."""
    for source_name, target_name in names:
        files = data.find(source_name), data.find(target_name)
        if files[0] and files[1]:
            return read(files[0], files[1], direction, most)
    return None


def read_pairs(
    read: Callable[[DataFile], list[str]],
    make_example: Callable[[str, str, str, Direction], Example],
    source: DataFile,
    target: DataFile,
    direction: Direction,
    most: int | None,
) -> Split:
    """Return the sentences of one file with their translations in the other, at most `most`, evenly spread."""
    sentences, translations = read(source), read(target)
    if len(sentences) != len(translations):
        raise BadFile(
            f"{source} has {len(sentences):,} sentences and {target} {len(translations):,}: they must be pairs"
        )
    step = -(-len(sentences) // most) if most else 1
    pairs = list(zip(sentences, translations, strict=True))[::step]
    examples = [
        make_example(f"{source.short}:{number}", sentence, translation, direction)
        for number, (sentence, translation) in enumerate(pairs, start=1)
        if sentence and translation
    ]
    if not examples:
        raise BadFile(f"{source} and {target} hold no sentences")
    return Split(f"{source.short} and {target.short}", examples)


def _example(name: str, sentence: str, translation: str, direction: Direction) -> Example:
    target = LANGUAGES[direction.target]
    question = Example(name, f"Q: What is the {target} translation of {sentence} A:", (f" {translation}",))
    return Example(name, f"{sentence} =", (f" {translation}",), zero_shot=question)


def _example_as_harness(name: str, sentence: str, translation: str, direction: Direction) -> Example:
    source, target = LANGUAGES[direction.source], LANGUAGES[direction.target]
    completion = f"  {translation}"  # the harness's translations begin with a space, behind that of every answer
    return Example(name, f"{source} phrase: {sentence}\n{target} phrase:", (completion,))


def _forms(direction: Direction) -> dict[EvalProtocol, Form]:
    return {
        GPT3: Form(
            read=partial(read_pairs, read_sentences, _example),
            kind="complete",
            metrics=(bleu_multi(tokenise=partial(moses_tokens, language=direction.target)), bleu_sacre("bleu_sb")),
            delimiter="\n",
        ),
        HARNESS: Form(
            read=partial(read_pairs, read_sentences_as_harness, _example_as_harness),
            kind="complete",
            metrics=(bleu_sacre("bleu"), ter(), chrf()),
            uses_training=False,
        ),
    }


def make_translation(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the direction on its test set, or on its development set where the test set's files are missing.

    Demonstrations come from a training corpus in the paper's form, from the development set in the harness's and
    where there is no corpus.
    """
    direction = DIRECTIONS[name]
    form = form_of(name, _forms(direction), protocol)
    test_names = list(file_pairs(direction.test, direction))
    wanted = [" and ".join(test_names[0]), " and ".join(test_names[-1])]
    data = require_data(name, data, *wanted)
    test = find_pairs(data, iter(test_names), direction, form.read)
    dev = find_pairs(data, file_pairs(direction.dev, direction), direction, form.read)
    training = None
    if form.uses_training:
        training = find_pairs(data, training_pairs(direction), direction, form.read, most=MAX_TRAINING)
    evaluated = test or dev
    if evaluated is None:
        raise BadFile(f"{name}: {data} holds no {' or '.join(wanted)}")
    return form.task(
        name,
        protocol,
        Splits(evaluated, training, dev if test else None),
        paper_name=direction.paper_name,
        default_shots=64,
        max_answer_tokens=MAX_TOKENS,
    )


TASKS = {name: partial(make_translation, name) for name in DIRECTIONS}
