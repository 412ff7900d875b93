"""RACE: English examinations. In: its folder of articles. Out: two tasks of choosing, middle and high school.

The paper's form answers an article's other questions first, and compares the options above their probability after a
bare "A:". Source: Lai et al. 2017; Brown et al. 2020, sections 2.4 and 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.files import Data, Found, laid_out, needed
from fewshot.evaluate.data.passages import all_asked, all_shown, splits_of
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

LETTERS = "ABCD"
RACE = {"id": ID, "article": str, "questions": [str], "options": [[str]], "answers": [OneOf(tuple(LETTERS))]}
SCHOOLS = {"race_h": ("high", "RACE-h"), "race_m": ("middle", "RACE-m")}
BLANK = "  _  ."  # where the harness fills an answer in


@dataclass(frozen=True)
class Problem:
    """A question with its options."""

    question: str
    options: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Article:
    """A text with its problems."""

    id: str
    text: str
    problems: tuple[Problem, ...]

    @property
    def asked(self) -> list[Example]:
        """Every problem."""
        return [self._example(number) for number in range(len(self.problems))]

    @property
    def shown(self) -> list[Example]:
        """The last problem, with all others before it."""
        return [self._example(len(self.problems) - 1)]

    def _example(self, asked: int) -> Example:
        """Return one problem, after all others with their answers. Source: Brown et al. 2020, figures G.1 and G.3."""
        context = f"Article:\n{self.text.strip()}"
        for number, problem in enumerate(self.problems):
            if number != asked:
                context += f"\n\nQ: {problem.question.strip()}\n\nA: {problem.options[problem.gold].strip()}"
        problem = self.problems[asked]
        options = tuple(f" {option.strip()}" for option in problem.options)
        return Example(
            f"{self.id}:{asked + 1}", f"{context}\n\nQ: {problem.question.strip()}\n\nA:", options, problem.gold
        )

    def as_harness(self) -> Example:
        """Return the last problem, as the harness asks it. Source: lm_eval 0.4.13, tasks/race."""
        text = f"Article: {self.text}\n\n"
        for problem in self.problems[:-1]:
            answer = problem.options[problem.gold]
            if problem.question.endswith(BLANK):
                text += problem.question[: 1 - len(BLANK)] + answer + "\n"
            else:
                text += f"Question: {problem.question}\nAnswer: {answer}\n"
        last = self.problems[-1]
        name = f"{self.id}:{len(self.problems)}"  # as in the paper's form
        return Example(name, text + last.question, tuple(f" {option}" for option in last.options), last.gold)


def read_article(file: Found) -> Article:
    """Return an article of its own file."""
    with laid_out(file, "an article of RACE"):
        value = file.json(RACE)
        rows = zip(value["questions"], value["options"], value["answers"], strict=True)
        problems = tuple(Problem(question, tuple(options), LETTERS.index(gold)) for question, options, gold in rows)
        if not problems or any(len(problem.options) != len(LETTERS) for problem in problems):
            raise ValueError("every question needs four options")
        return Article(str(value["id"]), value["article"], problems)


def _articles(data: Data, split: str, school: str) -> list[Article]:
    return [read_article(file) for file in data.under(f"RACE/{split}/{school}", ".txt")]


def make_race(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return RACE's test set of one school; the best K is found on its development set. The harness has the high
    school's.
    """
    school, paper_name = SCHOOLS[name]
    if protocol is HARNESS and name != "race_h":
        raise BadValue(f"{name} is no task of lm-evaluation-harness 0.4.13, only race_h is: use --protocol gpt3")
    folder = f"RACE/test/{school}"
    data = needed(name, data, folder)
    test = _articles(data, "test", school)
    if not test:
        raise BadFile(f"{name}: {data} holds no {folder}/*.txt")
    if protocol is HARNESS:
        return _as_harness(name, paper_name, Split(folder, [article.as_harness() for article in test]))
    training, dev = _articles(data, "train", school), _articles(data, "dev", school)
    shown = all_shown(f"RACE/{'train' if training else 'dev'}/{school}", training or dev)
    splits = splits_of(name, folder, test, shown if shown.examples else None, protocol)
    if training and dev:
        splits = replace(splits, dev=all_asked(f"RACE/dev/{school}", dev))
    return Task(
        name=name,
        paper_name=paper_name,
        kind="choose",
        metrics=(accuracy("unconditional"),),
        episodes=splits.episodes(name, protocol),
        dev=splits.dev_episodes(name),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=10,
        answer_context="A:",
        chance=0.25,
        notes=("a demonstration is a whole article of the training set with all its questions answered",),
    )


def _as_harness(name: str, paper_name: str, test: Split) -> Task:
    splits = Splits(test)
    return Task(
        name=name,
        paper_name=paper_name,
        protocol=HARNESS,
        kind="choose",
        metrics=(accuracy("sum", name="acc"),),
        episodes=splits.episodes(name, HARNESS),
        source=splits.source(HARNESS),
        delimiter="\n\n",
        default_shots=10,
        chance=0.25,
        notes=(
            "the harness asks the last question of each article alone",
            "articles stand in the order of their file names; the harness's own copy may have another",
        ),
    )


TASKS = {name: partial(make_race, name) for name in SCHOOLS}
