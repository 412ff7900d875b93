"""The five word scrambling tasks. In: a word list, or a file as released with the paper. Out: tasks of completing.

Contexts bring their own line break, so the delimiter is empty. Source: Brown et al. 2020, section 3.9.2.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fewshot.base.errors import BadValue
from fewshot.base.log import note
from fewshot.base.rng import python_rng
from fewshot.evaluate.data.file_names import SCRAMBLE_FILES
from fewshot.evaluate.data.files import Data, read_released
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import same_text, written_exactly
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

INSERTED = " ./!"  # what random insertion puts between letters
N_WORDS = 10_000  # in the paper and in every released file

# Whole lower-case words of 6 to 15 letters: no part of a name, a number or a hyphenated word.
_WORD = re.compile(r"(?<![\w'-])[a-z]{6,15}(?![\w'-])")


def most_frequent_words(documents: Iterable[str], n: int = N_WORDS) -> list[str]:
    """Return the n most frequent lower-case words of 6 to 15 letters, the most frequent first, ties by alphabet."""
    counts = Counter(word for text in documents for word in _WORD.findall(text))
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]


def default_words() -> list[str]:
    """Return about 2,000 words of the Python manual, which every machine with Python has: nothing is downloaded."""
    try:
        from pydoc_data.topics import topics  # some systems package Python without it
    except ModuleNotFoundError:
        raise BadValue(
            "this Python has no help topics to take words from: give --data with the released files"
        ) from None
    return most_frequent_words(topics.values())


def cycle_letters(word: str, rng: random.Random) -> str:
    """Return the word rotated by 1 to len - 1 letters, never into itself."""
    rotations = [word[k:] + word[:k] for k in range(1, len(word))]
    return rng.choice([rotated for rotated in rotations if rotated != word] or [word])


def permute_inside(word: str, rng: random.Random, *, n_fixed: int) -> str:
    """Return the word with all but its first and last `n_fixed` letters permuted; the same only if it must be."""
    first, middle, last = word[:n_fixed], word[n_fixed:-n_fixed], word[-n_fixed:]
    letters = list(middle)
    while len(set(middle)) > 1 and "".join(letters) == middle:
        rng.shuffle(letters)
    return first + "".join(letters) + last


def insert_symbols(word: str, rng: random.Random) -> str:
    """Return the word with one random symbol or space between each two letters."""
    return word[0] + "".join(rng.choice(INSERTED) + letter for letter in word[1:])


def reverse_word(word: str, rng: random.Random) -> str:
    """Return the word backwards; nothing is random."""
    return word[::-1]


@dataclass(frozen=True)
class ScrambleRule:
    """How one kind of scramble is made."""

    paper_name: str
    scramble: Callable[[str, random.Random], str]


RULES = {
    "scramble_cl": ScrambleRule("CL", cycle_letters),
    "scramble_a1": ScrambleRule("A1", partial(permute_inside, n_fixed=1)),
    "scramble_a2": ScrambleRule("A2", partial(permute_inside, n_fixed=2)),
    "scramble_ri": ScrambleRule("RI", insert_symbols),
    "scramble_rw": ScrambleRule("RW", reverse_word),
}


def generate(name: str, words: Sequence[str], *, seed: int) -> list[Example]:
    """Return a question for each word, in the released files' exact form; it depends on the word and the seed."""
    scramble = RULES[name].scramble
    lines = [(word, scramble(word, python_rng("scramble", name, word, seed))) for word in words]
    return [Example(f"{scrambled} =", f"\n{scrambled} =", (f" {word}",)) for word, scrambled in lines]


def _as_harness(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with a second space before a demonstration's answer, as the harness has."""
    return [replace(example, as_demonstration=f"{example.context} {example.completions[0]}") for example in examples]


FORMS = {
    GPT3: Form(
        kind="complete",
        metrics=(written_exactly(),),
        description="Please unscramble the letters into a word, and write that word:",
        delimiter="",
        default_shots=100,
        max_answer_tokens=17,  # a space, 15 letters and the line break, a token a character
    ),
    HARNESS: Form(read=_as_harness, kind="complete", metrics=(same_text(),), max_answer_tokens=256),
}


def make_scramble(
    name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3, words: Sequence[str] | None = None
) -> Task:
    """Return the task of that name: on its released file where the folder `data` holds it, else on `words`.

    `words` default to `default_words()`. In the paper's form one word in five is kept for demonstrations and never
    evaluated.
    """
    rule, released, form = RULES[name], SCRAMBLE_FILES[name], form_of(name, FORMS, protocol)
    file = data.find(released) if data else None
    if data and not file:
        note(f"{name}: {data} holds no {released}, so its questions are generated by rule")
    examples = read_released(file) if file else generate(name, words or default_words(), seed=0)
    source = file.short if file else "made by rule"
    splits = Splits(Split(source, form.read(examples)))
    return form.task(name, protocol, splits, paper_name=rule.paper_name, source=source, synthetic=True)


TASKS = {name: partial(make_scramble, name) for name in RULES}
