"""SAT analogies: which pair of words is related as another pair is. In: Turney's file. Out: one task of choosing.

Source: Turney & Littman 2005; Brown et al. 2020, section 3.9.3.
"""

from __future__ import annotations

import re

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.data.splits import need_split, refuse_harness
from fewshot.evaluate.demonstrations import own_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task

SAT_FILE = "SAT-package-V3.txt"
NO_CHOICE = ("no", "choice")  # fills the place of a fifth choice where a question has four


def read_sat_analogies(file: Found) -> list[Example]:
    """Return the questions of blocks of eight lines: where it is from, the pair, five choices, the right one's letter
    a to e.

    Every pair is two words and their parts of speech. Lines that begin with # are the file's licence.
    """
    lines = [line.strip() for line in file.text().splitlines() if not line.startswith("#")]
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines).strip("\n"))]
    questions = [block for block in blocks if len(block) == 8]
    if not questions:
        raise BadFile(f"{file} holds no blocks of eight lines: an origin, a pair of words, five more and a letter")
    return [_question(file, number, block) for number, block in enumerate(questions, start=1)]


def _question(file: Found, number: int, block: list[str]) -> Example:
    _, stem, *choices, letter = block
    pairs = [tuple(line.split()[:2]) for line in (stem, *choices)]
    if any(len(pair) < 2 for pair in pairs) or letter not in tuple("abcde"):
        raise BadFile(f"{file} question {number} must have two words a line and end in a letter from a to e")
    (first, second), *others = pairs
    right = others["abcde".index(letter)]
    there = [pair for pair in others if pair != NO_CHOICE]
    completions = tuple(f" {one} is to {other}" for one, other in there)
    return Example(f"{file.short}:{number}", f"{first} is to {second} as", completions, there.index(right))


def make_sat_analogies(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the 374 questions; each is shown others of the same set."""
    refuse_harness("sat_analogies", protocol)
    split = need_split("sat_analogies", needed("sat_analogies", data, SAT_FILE), read_sat_analogies, SAT_FILE)
    return Task(
        name="sat_analogies",
        paper_name="SAT Analogies",
        kind="choose",
        metrics=(accuracy("token"),),
        episodes=own_episodes("sat_analogies", split.examples),
        source=f"{split.name}, demonstrations from the same set",
        default_shots=20,
        chance=0.2,
        notes=("the file is not public: its author gives it for research",),
    )


TASKS = {"sat_analogies": make_sat_analogies}
