"""The ten arithmetic tasks. In: a rule, or a file as released with the paper. Out: tasks of completing.

Contexts bring their own blank line, so the delimiter is empty. Source: Brown et al. 2020, section 3.9.1.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from fewshot.base.log import note
from fewshot.base.rng import python_rng
from fewshot.evaluate.data.file_names import ARITHMETIC_FILES
from fewshot.evaluate.data.files import Data, read_released
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import greedy_accuracy, written_exactly
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

N_INSTANCES = 2000  # in the paper and in every released file
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class ArithmeticRule:
    """How one kind of question is made: `draw(rng)` gives an expression and its value."""

    paper_name: str
    draw: Callable[[random.Random], tuple[str, int]]


def _two_numbers(n_digits: int, sign: str, word: str, rng: random.Random) -> tuple[str, int]:
    """Return a question of two numbers, uniform below 10**n_digits, so that shorter ones occur."""
    a, b = rng.randrange(10**n_digits), rng.randrange(10**n_digits)
    return f"{a} {word} {b}", OPERATORS[sign](a, b)


def _three_digits(rng: random.Random) -> tuple[str, int]:
    """Return digits 1 to 9, the first two in parentheses as in the released file (the paper's text says the last)."""
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 9)
    inner, outer = rng.choice("+-*"), rng.choice("+-*")
    return f"({a} {inner} {b}) {outer} {c}", OPERATORS[outer](OPERATORS[inner](a, b), c)


RULES = {
    "arithmetic_2d_add": ArithmeticRule("2D+", partial(_two_numbers, 2, "+", "plus")),
    "arithmetic_2d_subtract": ArithmeticRule("2D-", partial(_two_numbers, 2, "-", "minus")),
    "arithmetic_3d_add": ArithmeticRule("3D+", partial(_two_numbers, 3, "+", "plus")),
    "arithmetic_3d_subtract": ArithmeticRule("3D-", partial(_two_numbers, 3, "-", "minus")),
    "arithmetic_4d_add": ArithmeticRule("4D+", partial(_two_numbers, 4, "+", "plus")),
    "arithmetic_4d_subtract": ArithmeticRule("4D-", partial(_two_numbers, 4, "-", "minus")),
    "arithmetic_5d_add": ArithmeticRule("5D+", partial(_two_numbers, 5, "+", "plus")),
    "arithmetic_5d_subtract": ArithmeticRule("5D-", partial(_two_numbers, 5, "-", "minus")),
    "arithmetic_2d_multiply": ArithmeticRule("2Dx", partial(_two_numbers, 2, "*", "times")),
    "arithmetic_1d_composite": ArithmeticRule("1DC", _three_digits),
}


def generate(name: str, n: int, *, seed: int, exclude: Set[str] = frozenset()) -> list[Example]:
    """Return `n` distinct questions of that task in the released files' exact form, without the ids in `exclude`."""
    rng = python_rng("arithmetic", name, seed)
    examples: dict[str, Example] = {}
    while len(examples) < n:
        expression, value = RULES[name].draw(rng)
        question = f"Q: What is {expression}?\n\nA:"
        if question not in exclude:
            examples[question] = Example(question, f"\n\n{question}", (f" {value}",))
    return list(examples.values())


def _as_harness(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with the harness's words, "Question:" and "Answer:"."""
    return [
        replace(
            example,
            context=example.context.strip().replace("\n\n", "\n").replace("Q:", "Question:").replace("A:", "Answer:"),
        )
        for example in examples
    ]


FORMS = {
    GPT3: Form(
        kind="complete",
        metrics=(written_exactly(),),
        delimiter="",
        default_shots=50,
        max_answer_tokens=8,  # " -99999" and the line break, a token a character
    ),
    HARNESS: Form(read=_as_harness, kind="perplexity", metrics=(greedy_accuracy("acc"),), uses_training=False),
}


def make_arithmetic(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name, on its released file where `data` holds it, else on generated questions.

    Demonstrations are always generated, and never questions that are evaluated.
    """
    rule, released, form = RULES[name], ARITHMETIC_FILES[name], form_of(name, FORMS, protocol)
    file = data.find(released) if data else None
    if data and not file:
        note(f"{name}: {data} holds no {released}, so its questions are made by rule")
    evaluated = form.read(read_released(file) if file else generate(name, N_INSTANCES, seed=0))
    training = None
    if form.uses_training:
        exclude = {example.id for example in evaluated}
        training = Split("made by rule", generate(name, N_INSTANCES, seed=1, exclude=exclude))
    source = file.short if file else "made by rule"
    splits = Splits(Split(source, evaluated), training, harness_excludes=True)
    return form.task(name, protocol, splits, paper_name=rule.paper_name, source=source, synthetic=True)


TASKS = {name: partial(make_arithmetic, name) for name in RULES}
