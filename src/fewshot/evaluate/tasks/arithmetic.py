"""The ten arithmetic tasks. In: a rule, or a file as released with the paper. Out: tasks of completing.

Contexts bring their own blank line, so the delimiter is empty. Source: Brown et al. 2020, section 3.9.1.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial

from fewshot.base.log import note
from fewshot.base.rng import python_rng
from fewshot.evaluate.data.files import Data, read_released
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import greedy_accuracy, written_exactly
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

N_INSTANCES = 2000  # in the paper and in every released file
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class Rule:
    """How one kind of question is made: `draw(rng)` gives an expression and its value."""

    paper_name: str
    released: str  # name of the released file
    draw: Callable[[random.Random], tuple[str, int]]


def _two_numbers(n_digits: int, sign: str, word: str, rng: random.Random) -> tuple[str, int]:
    """Return both numbers are uniform below 10**n_digits, so shorter ones occur."""
    a, b = rng.randrange(10**n_digits), rng.randrange(10**n_digits)
    return f"{a} {word} {b}", OPERATORS[sign](a, b)


def _three_digits(rng: random.Random) -> tuple[str, int]:
    """As in the released file: digits 1 to 9, the first two in parentheses (the paper's text says the last two)."""
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 9)
    inner, outer = rng.choice("+-*"), rng.choice("+-*")
    return f"({a} {inner} {b}) {outer} {c}", OPERATORS[outer](OPERATORS[inner](a, b), c)


RULES = {
    "arithmetic_2d_add": Rule("2D+", "two_digit_addition.jsonl", partial(_two_numbers, 2, "+", "plus")),
    "arithmetic_2d_subtract": Rule("2D-", "two_digit_subtraction.jsonl", partial(_two_numbers, 2, "-", "minus")),
    "arithmetic_3d_add": Rule("3D+", "three_digit_addition.jsonl", partial(_two_numbers, 3, "+", "plus")),
    "arithmetic_3d_subtract": Rule("3D-", "three_digit_subtraction.jsonl", partial(_two_numbers, 3, "-", "minus")),
    "arithmetic_4d_add": Rule("4D+", "four_digit_addition.jsonl", partial(_two_numbers, 4, "+", "plus")),
    "arithmetic_4d_subtract": Rule("4D-", "four_digit_subtraction.jsonl", partial(_two_numbers, 4, "-", "minus")),
    "arithmetic_5d_add": Rule("5D+", "five_digit_addition.jsonl", partial(_two_numbers, 5, "+", "plus")),
    "arithmetic_5d_subtract": Rule("5D-", "five_digit_subtraction.jsonl", partial(_two_numbers, 5, "-", "minus")),
    "arithmetic_2d_multiply": Rule("2Dx", "two_digit_multiplication.jsonl", partial(_two_numbers, 2, "*", "times")),
    "arithmetic_1d_composite": Rule("1DC", "single_digit_three_ops.jsonl", _three_digits),
}


def generate(name: str, n: int, *, seed: int, exclude: Set[str] = frozenset()) -> list[Example]:
    """Return `n` distinct questions of the task `name` in the released files' exact form, none with an id in
    `exclude`.
    """
    rng = python_rng("arithmetic", name, seed)
    made: dict[str, Example] = {}
    while len(made) < n:
        expression, value = RULES[name].draw(rng)
        question = f"Q: What is {expression}?\n\nA:"
        if question not in exclude:
            made[question] = Example(question, f"\n\n{question}", (f" {value}",))
    return list(made.values())


def _harness_form(example: Example) -> Example:
    """Return the harness writes "Question:" and "Answer:", and scores the answer instead of writing it."""
    text = example.context.strip().replace("\n\n", "\n").replace("Q:", "Question:").replace("A:", "Answer:")
    return Example(example.id, text, example.completions)


def make_arithmetic(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name; evaluated on its released file where the folder `data` holds it, else on generated
    lines.

    Demonstrations are always generated, and never questions that are evaluated.
    """
    rule = RULES[name]
    file = data.find(rule.released) if data else None
    if data and not file:
        note(f"{name}: {data} holds no {rule.released}, so its questions are made by rule")
    evaluated = read_released(file) if file else generate(name, N_INSTANCES, seed=0)
    if protocol is HARNESS:
        evaluated = [_harness_form(example) for example in evaluated]
        return Task(
            name=name,
            paper_name=rule.paper_name,
            protocol=protocol,
            kind="perplexity",
            metrics=(greedy_accuracy("acc"),),
            episodes=harness_episodes(name, evaluated, evaluated, excluding=True),
            source=file.short if file else "made by rule",
            synthetic=True,
            delimiter="\n\n",
        )
    training = generate(name, N_INSTANCES, seed=1, exclude={example.id for example in evaluated})
    return Task(
        name=name,
        paper_name=rule.paper_name,
        kind="complete",
        metrics=(written_exactly(),),
        episodes=drawn_episodes(name, evaluated, training),
        source=file.short if file else "made by rule",
        synthetic=True,
        delimiter="",
        default_shots=50,
        max_answer_tokens=8,  # " -99999" and the line break, a token a character
    )


TASKS = {name: partial(make_arithmetic, name) for name in RULES}
