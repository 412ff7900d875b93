"""Closed-book question answering: Natural Questions, WebQuestions, TriviaQA. In: their files. Out: free-form tasks.

Source: Kwiatkowski et al. 2019, Berant et al. 2013, Joshi et al. 2017; Brown et al. 2020, section 3.2.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, Row, in_layout, require_data
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe, check_schema
from fewshot.evaluate.data.splits import ReadExamples, Split, Splits, find_split, join_splits, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, judged, mean_of
from fewshot.evaluate.metrics.normalise import matches_any
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

SHOTS = 64  # the paper's K for all three

TRIVIA = {
    "Data": [
        {
            "QuestionId": ID,
            "Question": str,
            "Answer": {"Value": str, "Aliases": Many(str), "HumanAnswers": Maybe(Many(str))},
        }
    ]
}

_DESCRIBED = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]*))\)')
_ARTICLES = re.compile(r"\b(?:The |the |An |A |a |an )")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """A question with the answers that are accepted; the first stands in demonstrations."""

    id: str
    text: str
    answers: tuple[str, ...]


Questions = list[Question]


def read_nq_open(file: DataFile) -> Questions:
    """Return the questions of lines of {"question": ..., "answer": [...]}."""
    return file.parse_rows(
        lambda n, row: Question(f"{file.short}:{n}", row["question"], _accepted(file, n, row["answer"])),
        question=str,
        answer=[str],
    )


def read_web_questions(file: DataFile) -> Questions:
    """Return the questions of objects with "utterance" and "targetValue", or with "qText" and "answers"."""
    with in_layout(file, "WebQuestions' list"):
        return [_web_question(file, n, row) for n, row in _from_1(file.json([Each(object)]))]


def _web_question(file: DataFile, number: int, row: Row) -> Question:
    later = "qText" in row
    check_schema(
        row, {"qText": str, "answers": [str]} if later else {"utterance": str, "targetValue": str}, f"[{number - 1}]"
    )
    if later:
        answers, text = row["answers"], row["qText"]
    else:
        answers = [quoted or plain for quoted, plain in _DESCRIBED.findall(row["targetValue"])]
        text = row["utterance"]
    return Question(f"{file.short}:{number}", text, _accepted(file, number, answers))


def read_trivia_qa(file: DataFile, *, value_first: bool = True) -> Questions:
    """Return the questions of {"Data": [{"Question", "Answer": {"Value", "Aliases"}}]}, or of lines with aliases.

    The first answer is the value, or else (as the harness has it) the first alias.
    """
    if file.suffix == ".jsonl":
        return file.parse_rows(
            lambda n, row: _plain_trivia(file, n, row, value_first), context=str, answer=str, aliases=Many(str)
        )
    with in_layout(file, "TriviaQA's wikipedia-dev.json"):
        return [
            Question(
                f"{file.short}:{row['QuestionId']}",
                row["Question"].strip(),
                _aliases(file, n, row["Answer"], value_first),
            )
            for n, row in _from_1(file.json(TRIVIA)["Data"])
        ]


def _plain_trivia(file: DataFile, number: int, row: Row, value_first: bool) -> Question:
    text = row["context"].removeprefix("Question: ").removesuffix("\nAnswer:")
    answer = {"Value": row["answer"], "Aliases": row["aliases"]}
    return Question(f"{file.short}:{number}", text, _aliases(file, number, answer, value_first))


def _aliases(file: DataFile, number: int, answer: Row, value_first: bool) -> tuple[str, ...]:
    aliases = [*answer["Aliases"], *(answer.get("HumanAnswers") or [])] if value_first else answer["Aliases"]
    return _accepted(file, number, [*([answer["Value"]] if value_first else []), *aliases])


def _accepted(file: DataFile, number: int, answers: Sequence[str]) -> tuple[str, ...]:
    """Return the answers without empty ones and repetitions."""
    accepted = tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not accepted:
        raise BadFile(f"{file} question {number} has no answer")
    return accepted


def _from_1(rows: Sequence[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(rows, start=1))


def paper_example(question: Question) -> Example:
    """Return `Q: ...`, a blank line, `A:` and the answers. Source: Brown et al. 2020, appendix G."""
    answers = tuple(f" {answer}" for answer in question.answers)
    return Example(question.id, f"Q: {question.text}\n\nA:", answers, bare=f"{question.text}{answers[0]}")


def written_answer(name: str = "accuracy") -> Metric:
    """Return the share of questions whose written answer is, normalised, one of the accepted ones."""
    return judged(name, lambda text, example: matches_any(text, example.completions), share=True)


def harness_exact_match(*, without_articles: bool) -> Metric:
    """Return the share of answers that equal an accepted one in lower case and without punctuation."""

    def plain(text: str) -> str:
        text = _ARTICLES.sub("", text.strip()) if without_articles else text.strip()
        return text.lower().translate(_PUNCTUATION)

    def judge(text: str, example: Example) -> float:
        return float(plain(text) in set(map(plain, example.completions)))

    return judged("exact_match", judge, share=True)


def any_greedy(name: str = "exact_match") -> Metric:
    """Return the share of questions of which some completion is, token by token, the model's first choice."""
    return mean_of(name, lambda answer: float(any(answer.greedy)), share=True)


def without_continuations(answers: Sequence[str]) -> list[str]:
    """Return the answers in order of their characters, save those that continue the one before."""
    distinct: list[str] = []
    for answer in sorted(answers):
        if not distinct or not answer.startswith(distinct[-1]):
            distinct.append(answer)
    return distinct


def _harness_nq(question: Question) -> Example:
    return Example(question.id, f"Q: {question.text}?\nA:", tuple(f" {answer}" for answer in question.answers))


def _harness_trivia(question: Question) -> Example:
    answers = tuple(f" {answer}" for answer in question.answers)
    return Example(question.id, f"Question: {question.text}?\nAnswer:", answers)


def _harness_web(question: Question) -> Example:
    answers = tuple(f" {answer}" for answer in without_continuations(question.answers))
    return Example(
        question.id, f"Question: {question.text}\nAnswer:", answers, also_right=tuple(range(1, len(answers)))
    )


def _read_with(
    read: Callable[[DataFile], Questions], to_example: Callable[[Question], Example]
) -> Callable[[DataFile], list[Example]]:
    return lambda file: list(map(to_example, read(file)))


_in_paper = partial(Form, kind="complete", metrics=(written_answer(),))
_in_harness = partial(Form, kind="complete", stop=("\n", ".", ","), max_answer_tokens=256)
NQ_FORMS = {
    GPT3: _in_paper(read=_read_with(read_nq_open, paper_example)),
    HARNESS: _in_harness(
        read=_read_with(read_nq_open, _harness_nq),
        metrics=(harness_exact_match(without_articles=True),),
        description="Answer these questions:\n",  # the harness's own, whose second line break is the delimiter here
        delimiter="\n",
    ),
}
WEB_FORMS = {
    GPT3: _in_paper(read=_read_with(read_web_questions, paper_example)),
    HARNESS: _in_harness(
        read=_read_with(read_web_questions, _harness_web),
        kind="choose",
        metrics=(any_greedy(),),
        notes=(
            "in the harness an answer is right if greedy decoding would generate an accepted answer, token by token",
            "lm-eval 0.4.13 itself stops with an error if there are demonstrations; here they show the first answer",
        ),
    ),
}
TRIVIA_FORMS = {
    GPT3: _in_paper(read=_read_with(read_trivia_qa, paper_example)),
    HARNESS: _in_harness(
        read=_read_with(partial(read_trivia_qa, value_first=False), _harness_trivia),
        metrics=(harness_exact_match(without_articles=False),),
    ),
}
TRIVIA_PARTS = {GPT3: (), HARNESS: ("web", "wikipedia")}  # read together, where all of them are there


def make_nq_open(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return Natural Questions' open form, on its development file, as its test set was never released."""
    form, data = form_of("nq_open", NQ_FORMS, protocol), require_data("nq_open", data, "NQ-open.dev.jsonl")
    training = find_split(data, form.read, "NQ-open.train.jsonl")
    splits = Splits(require_split("nq_open", data, form.read, "NQ-open.dev.jsonl"), training, harness_excludes=True)
    return form.task("nq_open", protocol, splits, paper_name="NQs", default_shots=SHOTS)


def make_web_questions(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return WebQuestions, in its original two files, or in four of which three together are its training split."""
    test = ("webquestions.examples.test.json", "webquestions/test.json", "blobtest")
    form, data = form_of("web_questions", WEB_FORMS, protocol), require_data("web_questions", data, *test)
    training = find_split(data, form.read, "webquestions.examples.train.json", "blobtrain") or join_splits(
        [find_split(data, form.read, f"webquestions/{part}.json") for part in ("trainmodel", "val", "devtest")]
    )
    splits = Splits(require_split("web_questions", data, form.read, *test), training)
    return form.task("web_questions", protocol, splits, paper_name="WebQs", default_shots=SHOTS)


def make_trivia_qa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return TriviaQA on its development set, any alias accepted.

    That is Wikipedia's part in the paper, the web's and Wikipedia's together in the harness.
    """
    kinds = ("wikipedia", "unfiltered-web", "web")
    dev = (*(f"{kind}-dev.json" for kind in kinds), "triviaqa_small.jsonl")
    form, data = form_of("trivia_qa", TRIVIA_FORMS, protocol), require_data("trivia_qa", data, *dev)
    evaluated = require_split("trivia_qa", data, form.read, *dev)
    training = find_split(data, form.read, *(f"{kind}-train.json" for kind in kinds))
    parts = TRIVIA_PARTS[protocol]
    if parts and all(data.find(f"{part}-dev.json") for part in parts):
        evaluated = _join_parts(data, form.read, parts, "dev") or evaluated
        training = _join_parts(data, form.read, parts, "train")
    splits = Splits(evaluated, training, harness_excludes=True)
    return form.task("trivia_qa", protocol, splits, paper_name="TriviaQA", default_shots=SHOTS)


def _join_parts(data: Data, read: ReadExamples, parts: Sequence[str], split: str) -> Split | None:
    return join_splits([find_split(data, read, f"{part}-{split}.json") for part in parts])


TASKS = {"nq_open": make_nq_open, "web_questions": make_web_questions, "trivia_qa": make_trivia_qa}
