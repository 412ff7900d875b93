"""SAT analogies: which pair of words is related as another pair is. In: Turney's file. Out: one task of choosing.

Source: Turney & Littman 2005; Brown et al. 2020, section 3.9.3.
"""

from __future__ import annotations

import re

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.data.splits import Splits, require_split
from fewshot.evaluate.demonstrations import own_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACCURACY, Form, form_of

SAT_FILE = "SAT-package-V3.txt"
NO_CHOICE = ("no", "choice")  # fills the place of a fifth choice where a question has four


def read_sat_analogies(file: DataFile) -> list[Example]:
    """Return the questions of blocks of eight lines: the origin, the pair, five choices, the letter of the right one.

    Every pair is two words and their parts of speech. Lines that begin with # are the file's licence.
    """
    lines = [line.strip() for line in file.text().splitlines() if not line.startswith("#")]
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines).strip("\n"))]
    questions = [block for block in blocks if len(block) == 8]
    if not questions:
        raise BadFile(f"{file} holds no blocks of eight lines: an origin, a pair of words, five more and a letter")
    return [_question(file, number, block) for number, block in enumerate(questions, start=1)]


def _question(file: DataFile, number: int, block: list[str]) -> Example:
    _, stem, *choices, letter = block
    pairs = [tuple(line.split()[:2]) for line in (stem, *choices)]
    if any(len(pair) < 2 for pair in pairs) or letter not in tuple("abcde"):
        raise BadFile(f"{file} question {number} must have two words a line and end in a letter from a to e")
    (first, second), *others = pairs
    right = others["abcde".index(letter)]
    there = [pair for pair in others if pair != NO_CHOICE]
    completions = tuple(f" {word} is to {other}" for word, other in there)
    return Example(f"{file.short}:{number}", f"{first} is to {second} as", completions, there.index(right))


FORMS = {
    GPT3: Form(
        read=read_sat_analogies,
        metrics=ACCURACY,
        episodes=lambda name, splits: own_episodes(name, splits.evaluated.examples),
        delimiter="\n",
        chance=0.2,
        notes=("the file is not public: its author gives it on request, for research",),
    )
}


def make_sat_analogies(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task on all 374 questions; demonstrations of each are others of the same set."""
    form, data = form_of("sat_analogies", FORMS, protocol), require_data("sat_analogies", data, SAT_FILE)
    splits = Splits(require_split("sat_analogies", data, form.read, SAT_FILE))
    source = f"{splits.evaluated.name}, demonstrations from the same set"
    return form.task("sat_analogies", protocol, splits, paper_name="SAT Analogies", source=source, default_shots=20)


TASKS = {"sat_analogies": make_sat_analogies}
