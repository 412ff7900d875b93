"""Tasks that no training text can hold: every prompt has a fresh hidden rule. In: a seed. Out: tasks and documents.

Zero-shot is chance by construction, so whatever a model gains with K it has learned from the prompt.
A rule of a `novel_` family is kept for evaluation or for training by a hash of the rule itself, so no evaluated rule
was ever trained on. The `hidden_` families have too few rules for that: each was trained on, and only
the demonstrations tell which one holds.
Refuses to know models.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from fewshot.base.errors import check
from fewshot.base.rng import python_rng, seed_of
from fewshot.evaluate.data.files import Data
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import accuracy, written_exactly
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task, TaskKind
from fewshot.evaluate.tasks.form import refuse_harness

R = TypeVar("R", bound=Hashable)

MAX_QUESTIONS = 100_000  # at once: there are as many as one asks for, and all are in memory
HELD_OUT_SHARE = 8  # one rule in eight is kept for evaluation


class Family(ABC, Generic[R]):
    """Hidden rules of one sort, and the one form in which prompts and training documents write them.

    A line is `context(question)` and `completion(answer)`. Questions are drawn alike everywhere, save that the
    demonstrations of one prompt are distinct; the query may be one of them (then it is to be remembered).
    """

    name: str
    kind: TaskKind
    sign: str  # between question and answer
    n_questions: int  # distinct questions
    default_shots: int
    holds_out = True  # whether one rule in eight is kept for evaluation
    n_lines = (10, 20)  # of a training document, from-to
    max_answer_tokens = 32
    choices: tuple[str, ...] = ()  # answers to choose among, for the kind "choose"

    @abstractmethod
    def draw_rule(self, rng: random.Random) -> R:
        """Return a rule, drawn uniformly from all of the family."""

    @abstractmethod
    def draw_question(self, rng: random.Random) -> str:
        """Return a question that every rule answers."""

    @abstractmethod
    def answer(self, rule: R, question: str) -> str:
        """Return the rule's answer."""

    @abstractmethod
    def ideal(self, known: Mapping[str, str], query: str) -> float:
        """Return the probability that the best guess is right given `known`, if all rules are equally likely."""

    def context(self, question: str) -> str:
        """Return the beginning of a line, which is the question."""
        return f"{question} {self.sign}" if self.sign else question

    def completion(self, answer: str) -> str:
        """Return the end of a line, which is the answer."""
        return f" {answer}"

    def held_out(self, rule: R) -> bool:
        """Return whether the rule is for evaluation only."""
        return self.holds_out and seed_of(self.name, repr(rule)) % HELD_OUT_SHARE == 0

    def rule(self, rng: random.Random, *, held_out: bool) -> R:
        """Return a rule for evaluation (held out, where the family holds any out) or for training."""
        while True:
            rule = self.draw_rule(rng)
            if not self.holds_out or self.held_out(rule) == held_out:
                return rule

    def episodes(self, n: int, max_shots: int, seed: int) -> list[Episode]:
        """Return `n` prompts with a rule of their own; more shots keep the former demonstrations."""
        check(1 <= n <= MAX_QUESTIONS, f"limit is {n}, must be at least 1 and at most {MAX_QUESTIONS:,}")
        return [self._episode(index, max_shots, seed) for index in range(n)]

    def _episode(self, index: int, max_shots: int, seed: int) -> Episode:
        rng = python_rng(self.name, "evaluation", index, seed)
        rule, query = self.rule(rng, held_out=True), self.draw_question(rng)
        known: dict[str, str] = {}
        ideal = [self.ideal(known, query)]
        while len(known) < min(max_shots, self.n_questions):
            question = self.draw_question(rng)
            if question not in known:
                known[question] = self.answer(rule, question)
                ideal.append(self.ideal(known, query))
        name = f"{self.name}:{index}"
        demonstrations = tuple(self._example(name, question, answer) for question, answer in known.items())
        return Episode(self._example(name, query, self.answer(rule, query)), demonstrations, tuple(ideal))

    def _example(self, name: str, question: str, answer: str) -> Example:
        answers = self.choices or (answer,)
        completions = tuple(map(self.completion, answers))
        return Example(name, self.context(question), completions, answers.index(answer))

    def draw_questions(self, rng: random.Random, n: int) -> list[str]:
        """Return the questions of one training document; they may come again."""
        return [self.draw_question(rng) for _ in range(n)]

    def training_documents(self, n: int, seed: int, *, n_lines: int | None = None) -> Iterator[str]:
        """Yield `n` texts of one training rule each, of `n_lines` lines or as many as the family's documents have."""
        for index in range(n):
            rng = python_rng(self.name, "training", index, seed)
            rule = self.rule(rng, held_out=False)
            questions = self.draw_questions(rng, n_lines or rng.randint(*self.n_lines))
            yield "\n".join(self.context(q) + self.completion(self.answer(rule, q)) for q in questions)


class Symbols(Family[str]):
    """A bijection of symbols, "q t": the query is one of the K demonstrations, or 1 in n - K must be guessed."""

    name, kind, sign, default_shots = "novel_symbols", "choose", "", 16
    n_lines = (24, 40)
    few = (2, 3, 4, 5, 6, 8, 10, 12)  # distinct questions of four training documents in five

    def __init__(self, symbols: str = "abcdefghijklmnop") -> None:
        check(len(set(symbols)) == len(symbols) > 1, f"symbols {symbols!r} must be two or more distinct characters")
        self.symbols, self.choices, self.n_questions = symbols, tuple(symbols), len(symbols)

    def draw_rule(self, rng: random.Random) -> str:
        """Return the symbols in a random order: each maps to what stands at its place."""
        return "".join(rng.sample(self.symbols, len(self.symbols)))

    def draw_question(self, rng: random.Random) -> str:
        """Return one symbol."""
        return rng.choice(self.symbols)

    def draw_questions(self, rng: random.Random, n: int) -> list[str]:
        """Return a few symbols, or all, each time in a new order: short dictionaries are learned first."""
        n_distinct = rng.choice(self.few) if rng.random() < 0.8 else self.n_questions
        chosen = rng.sample(self.symbols, min(n_distinct, self.n_questions))
        phases = [rng.sample(chosen, len(chosen)) for _ in range(-(-n // len(chosen)))]
        return [symbol for symbols in phases for symbol in symbols][:n]

    def answer(self, rule: str, question: str) -> str:
        """Return the symbol that the bijection gives."""
        return rule[self.symbols.index(question)]

    def ideal(self, known: Mapping[str, str], query: str) -> float:
        """Return 1 if the query's answer is known, else the share of one of the symbols that are not yet an answer."""
        return 1.0 if query in known else 1 / (len(self.symbols) - len(known))


class Countable(Family[R]):
    """A family so small that the ideal learner can go through all of its rules."""

    rules: Sequence[R]

    def draw_rule(self, rng: random.Random) -> R:
        """Return one of the rules."""
        return rng.choice(self.rules)

    def ideal(self, known: Mapping[str, str], query: str) -> float:
        """Return the share of the commonest answer among the rules that agree with all known answers."""
        agreeing = [rule for rule in self.rules if all(self.answer(rule, q) == a for q, a in known.items())]
        answers = Counter(self.answer(rule, query) for rule in agreeing)
        return max(answers.values()) / len(agreeing)


class Letters(Countable[tuple[int, ...]]):
    """An unknown operation on a list of five distinct letters, "a x c f e -> e f c x a".

    A rule is the places that the answer takes its letters from: one or two steps out of `STEPS`. Equal operations
    count once, so a held-out operation was never trained on under another name.
    """

    name, kind, sign, default_shots = "novel_letters", "complete", "->", 8
    n_letters = 5
    n_questions = 26 * 25 * 24 * 23 * 22
    max_answer_tokens = 41  # twenty letters with their spaces and the line break, a token a character
    steps = (
        lambda x: x[::-1],  # reverse
        lambda x: x[1:] + x[:1],  # rotate left
        lambda x: x[-1:] + x[:-1],  # rotate right
        lambda x: x[-1:] + x[1:-1] + x[:1] if len(x) > 1 else x,  # swap the ends
        lambda x: x[:1],  # first
        lambda x: x[-1:],  # last
        lambda x: x[1:],  # all but the first
        lambda x: x[:-1],  # all but the last
        lambda x: tuple(place for place in x for _ in range(2)),  # double every letter
        lambda x: x + x,  # repeat the list
    )

    def __init__(self) -> None:
        places = tuple(range(self.n_letters))
        once = [step(places) for step in self.steps]
        twice = [step(result) for result in once for step in self.steps]
        self.rules = sorted({result for result in (*once, *twice) if result})

    def draw_question(self, rng: random.Random) -> str:
        """Return five distinct letters."""
        return " ".join(rng.sample("abcdefghijklmnopqrstuvwxyz", self.n_letters))

    def answer(self, rule: tuple[int, ...], question: str) -> str:
        """Return the letters at the rule's places."""
        letters = question.split()
        return " ".join(letters[place] for place in rule)


class Offset(Countable[int]):
    """An unknown number to add, "7 -> 12": a single demonstration tells the rule."""

    name, kind, sign, default_shots = "novel_offset", "complete", "->", 4
    n_questions = 100  # 0 to 99
    rules: Sequence[int] = range(1, 100)
    max_answer_tokens = 5  # a space, three digits and the line break, a token a character

    def draw_question(self, rng: random.Random) -> str:
        """Return a number from 0 on."""
        return str(rng.randrange(self.n_questions))

    def answer(self, rule: int, question: str) -> str:
        """Return the number with the offset added."""
        return str(int(question) + rule)


class SmallOffset(Offset):
    """The same with numbers below 20 and five rules: within reach of a model that trains for minutes."""

    name, holds_out = "hidden_offset", False
    n_questions = 20
    rules = range(1, 6)


class Letter(Countable[str]):
    """An unknown relation of one letter to another, "c -> d": the same, its capital, the next, the one before."""

    name, kind, sign, default_shots, holds_out = "hidden_letter", "complete", "->", 8, False
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    n_questions = 26
    rules = ("same", "capital", "next", "previous")
    max_answer_tokens = 3

    def draw_question(self, rng: random.Random) -> str:
        """Return one letter."""
        return rng.choice(self.alphabet)

    def answer(self, rule: str, question: str) -> str:
        """Return the related letter; the alphabet is a ring."""
        if rule == "capital":
            return question.upper()
        step = {"same": 0, "next": 1, "previous": -1}[rule]
        return self.alphabet[(self.alphabet.index(question) + step) % len(self.alphabet)]


FAMILIES: dict[str, type[Family]] = {family.name: family for family in (Symbols, Letters, Offset, SmallOffset, Letter)}


def make_novel(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name; it is made by rule and ignores `data`."""
    refuse_harness(name, protocol)
    family = FAMILIES[name]()
    query = family.draw_question(python_rng(name))
    return Task(
        name=name,
        kind=family.kind,
        metrics=(accuracy("sum") if family.kind == "choose" else written_exactly(),),
        episodes=family.episodes,
        source="made by rule, a fresh one for every prompt",
        synthetic=True,
        default_shots=family.default_shots,
        max_answer_tokens=family.max_answer_tokens,
        chance=family.ideal({}, query),
    )


TASKS = {name: partial(make_novel, name) for name in FAMILIES}
