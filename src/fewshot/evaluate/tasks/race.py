"""RACE: English examinations. In: its folder of articles. Out: two tasks of choosing, middle and high school.

The paper's form answers an article's other questions first, and compares the options above their probability after a
bare "A:". Source: Lai et al. 2017; Brown et al. 2020, sections 2.4 and 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.files import Data, DataFile, in_layout, require_data
from fewshot.evaluate.data.passages import demonstration_split, question_split, splits_of
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, Form, form_of

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
    def questions(self) -> list[Example]:
        """Every problem."""
        return [self._example(number) for number in range(len(self.problems))]

    @property
    def demonstrations(self) -> list[Example]:
        """The last problem, with all others before it."""
        return [self._example(len(self.problems) - 1)]

    def _example(self, evaluated: int) -> Example:
        """Return a problem, after all others with their answers. Source: Brown et al. 2020, figures G.1 and G.3."""
        context = f"Article:\n{self.text.strip()}"
        for number, problem in enumerate(self.problems):
            if number != evaluated:
                context += f"\n\nQ: {problem.question.strip()}\n\nA: {problem.options[problem.gold].strip()}"
        problem = self.problems[evaluated]
        options = tuple(f" {option.strip()}" for option in problem.options)
        return Example(
            f"{self.id}:{evaluated + 1}", f"{context}\n\nQ: {problem.question.strip()}\n\nA:", options, problem.gold
        )

    def as_harness(self) -> Example:
        """Return the last problem in the harness's form. Source: lm_eval 0.4.13, tasks/race."""
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


def read_article(file: DataFile) -> Article:
    """Return the article that is a file by itself."""
    with in_layout(file, "an article of RACE"):
        value = file.json(RACE)
        rows = zip(value["questions"], value["options"], value["answers"], strict=True)
        problems = tuple(Problem(question, tuple(options), LETTERS.index(gold)) for question, options, gold in rows)
        if not problems or any(len(problem.options) != len(LETTERS) for problem in problems):
            raise ValueError("every question needs four options")
        return Article(str(value["id"]), value["article"], problems)


def _articles(data: Data, split: str, school: str) -> list[Article]:
    return [read_article(file) for file in data.under(f"RACE/{split}/{school}", ".txt")]


def _splits(name: str, data: Data, school: str, test: list[Article]) -> Splits:
    training, dev = _articles(data, "train", school), _articles(data, "dev", school)
    demonstrations = demonstration_split(f"RACE/{'train' if training else 'dev'}/{school}", training or dev)
    splits = splits_of(name, f"RACE/test/{school}", test, demonstrations if demonstrations.examples else None, GPT3)
    return replace(splits, dev=question_split(f"RACE/dev/{school}", dev)) if training and dev else splits


def _last_problems(name: str, data: Data, school: str, test: list[Article]) -> Splits:
    return Splits(Split(f"RACE/test/{school}", [article.as_harness() for article in test]))


FORMS = {
    GPT3: Form(
        read=_splits,
        metrics=(accuracy("unconditional"),),
        answer_context="A:",
        notes=("a demonstration is a whole article of the training set with all its questions answered",),
    ),
    HARNESS: Form(
        read=_last_problems,
        metrics=ACC,
        notes=(
            "as in the harness only the last question of each article is asked",
            "articles are in the order of their file names; the harness's own copy may have another order",
        ),
    ),
}


def make_race(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name on RACE's test set; the best K is chosen on its development set."""
    school, paper_name = SCHOOLS[name]
    if protocol is HARNESS and name != "race_h":
        raise BadValue(f"{name} is no task of lm-evaluation-harness 0.4.13, which has only race_h: use --protocol gpt3")
    form, folder = form_of(name, FORMS, protocol), f"RACE/test/{school}"
    data = require_data(name, data, folder)
    test = _articles(data, "test", school)
    if not test:
        raise BadFile(f"{name}: {data} holds no {folder}/*.txt")
    splits = form.read(name, data, school, test)
    return form.task(name, protocol, splits, paper_name=paper_name, default_shots=10, chance=0.25)


TASKS = {name: partial(make_race, name) for name in SCHOOLS}
