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
from fewshot.evaluate.data.files import Data, Found, laid_out, needed
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe, check_kind
from fewshot.evaluate.data.splits import Split, Splits, find_split, joined, need_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, judged, mean_of
from fewshot.evaluate.metrics.normalise import matches_any
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task, TaskKind

HARNESS_STOP = ("\n", ".", ",")
HARNESS_TOKENS = 256
HARNESS_NOTE = "the harness takes an accepted answer as right if the model would write it greedily, token by token"

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
    """A question with the answers that are accepted, the one to be shown first."""

    id: str
    text: str
    answers: tuple[str, ...]


Questions = list[Question]


def read_nq_open(file: Found) -> Questions:
    """Return lines of {"question": ..., "answer": [...]}."""
    return file.each(
        lambda n, row: Question(f"{file.short}:{n}", row["question"], _accepted(file, n, row["answer"])),
        question=str,
        answer=[str],
    )


def read_web_questions(file: Found) -> Questions:
    """Return a list of {"utterance", "targetValue": "(list (description ...))"}, or of {"qText", "answers": [...]}."""
    with laid_out(file, "WebQuestions' list"):
        return [_web_question(file, n, row) for n, row in _from_1(file.json([Each(object)]))]


def _web_question(file: Found, number: int, row: dict[str, Any]) -> Question:
    later = "qText" in row
    check_kind(
        row, {"qText": str, "answers": [str]} if later else {"utterance": str, "targetValue": str}, f"[{number - 1}]"
    )
    if later:
        answers, text = row["answers"], row["qText"]
    else:
        answers = [quoted or plain for quoted, plain in _DESCRIBED.findall(row["targetValue"])]
        text = row["utterance"]
    return Question(f"{file.short}:{number}", text, _accepted(file, number, answers))


def read_trivia_qa(file: Found, *, value_first: bool = True) -> Questions:
    """Return {"Data": [{"Question": ..., "Answer": {"Value": ..., "Aliases": [...]}}]}, or lines of question and
    aliases.

    The answer to be shown is the value, or else (as the harness has it) the first alias.
    """
    if file.kind == ".jsonl":
        return file.each(
            lambda n, row: _plain_trivia(file, n, row, value_first), context=str, answer=str, aliases=Many(str)
        )
    with laid_out(file, "TriviaQA's wikipedia-dev.json"):
        return [
            Question(
                f"{file.short}:{row['QuestionId']}",
                row["Question"].strip(),
                _aliases(file, n, row["Answer"], value_first),
            )
            for n, row in _from_1(file.json(TRIVIA)["Data"])
        ]


def _plain_trivia(file: Found, number: int, row: dict[str, Any], value_first: bool) -> Question:
    text = row["context"].removeprefix("Question: ").removesuffix("\nAnswer:")
    answer = {"Value": row["answer"], "Aliases": row["aliases"]}
    return Question(f"{file.short}:{number}", text, _aliases(file, number, answer, value_first))


def _aliases(file: Found, number: int, answer: dict[str, Any], value_first: bool) -> tuple[str, ...]:
    aliases = [*answer["Aliases"], *(answer.get("HumanAnswers") or [])] if value_first else answer["Aliases"]
    return _accepted(file, number, [*([answer["Value"]] if value_first else []), *aliases])


def _accepted(file: Found, number: int, answers: Sequence[str]) -> tuple[str, ...]:
    """Return the answers without empty ones and repetitions."""
    kept = tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not kept:
        raise BadFile(f"{file} question {number} has no answer")
    return kept


def _from_1(rows: Sequence[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(rows, start=1))


def paper_example(question: Question) -> Example:
    """Return `Q: ...`, a blank line, `A:` and the answer. Source: Brown et al. 2020, appendix G."""
    answers = tuple(f" {one}" for one in question.answers)
    return Example(question.id, f"Q: {question.text}\n\nA:", answers, bare=f"{question.text}{answers[0]}")


def written_answer(name: str = "accuracy") -> Metric:
    """Return share of questions whose written answer is, normalised, one of the accepted ones."""
    return judged(name, lambda text, example: matches_any(text, example.completions), share=True)


def harness_exact_match(*, without_articles: bool) -> Metric:
    """Return share of answers that equal an accepted one in lower case and without punctuation."""

    def plain(text: str) -> str:
        text = _ARTICLES.sub("", text.strip()) if without_articles else text.strip()
        return text.lower().translate(_PUNCTUATION)

    def judge(text: str, example: Example) -> float:
        return float(plain(text) in {plain(one) for one in example.completions})

    return judged("exact_match", judge, share=True)


def any_greedy(name: str = "exact_match") -> Metric:
    """Return share of questions of which some completion is, token by token, the model's first choice."""
    return mean_of(name, lambda answer: float(any(answer.greedy)), share=True)


def without_continuations(answers: Sequence[str]) -> list[str]:
    """Return the answers in order of their characters, save those that continue the one kept before."""
    kept: list[str] = []
    for answer in sorted(answers):
        if not kept or not answer.startswith(kept[-1]):
            kept.append(answer)
    return kept


def _harness_nq(question: Question) -> Example:
    return Example(question.id, f"Q: {question.text}?\nA:", tuple(f" {one}" for one in question.answers))


def _harness_trivia(question: Question) -> Example:
    return Example(question.id, f"Question: {question.text}?\nAnswer:", tuple(f" {one}" for one in question.answers))


def _harness_web(question: Question) -> Example:
    answers = tuple(f" {one}" for one in without_continuations(question.answers))
    return Example(
        question.id, f"Question: {question.text}\nAnswer:", answers, also_right=tuple(range(1, len(answers)))
    )


def _task(
    name: str, paper_name: str, splits: Splits, protocol: EvalProtocol, *, kind: TaskKind = "complete", **harness: Any
) -> Task:
    """Return the task in the paper's form, or in the harness's with what is particular to it there."""
    form: dict[str, Any] = {"metrics": (written_answer(),), "delimiter": "\n\n"}
    if protocol is HARNESS:
        form = {"delimiter": "\n\n", "stop": HARNESS_STOP, "max_answer_tokens": HARNESS_TOKENS, **harness}
    return Task(
        name=name,
        paper_name=paper_name,
        protocol=protocol,
        kind=kind if protocol is HARNESS else "complete",
        episodes=splits.episodes(name, protocol),
        source=splits.source(protocol),
        default_shots=64,
        **form,
    )


def _read_with(
    read: Callable[[Found], Questions], to_example: Callable[[Question], Example]
) -> Callable[[Found], list[Example]]:
    return lambda file: [to_example(question) for question in read(file)]


def make_nq_open(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return natural Questions' open form: its development file is what is evaluated, as its test set was never
    released.
    """
    ends = "NQ-open.dev.jsonl"
    read = _read_with(read_nq_open, _harness_nq if protocol is HARNESS else paper_example)
    data = needed("nq_open", data, ends)
    training = find_split(data, read, "NQ-open.train.jsonl")
    splits = Splits(need_split("nq_open", data, read, ends), training, harness_excludes=True)
    return _task(
        "nq_open",
        "NQs",
        splits,
        protocol,
        description="Answer these questions:\n",  # the harness's own, whose second line break is the delimiter here
        delimiter="\n",
        metrics=(harness_exact_match(without_articles=True),),
    )


def make_web_questions(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return WebQuestions in its original two files, or in four, of which all but the test file are its training
    split.
    """
    test = ("webquestions.examples.test.json", "webquestions/test.json", "blobtest")
    training = ("webquestions.examples.train.json", "blobtrain")
    parts = ("trainmodel", "val", "devtest")
    read = _read_with(read_web_questions, _harness_web if protocol is HARNESS else paper_example)
    data = needed("web_questions", data, *test)
    shown = find_split(data, read, *training) or joined(
        [find_split(data, read, f"webquestions/{part}.json") for part in parts]
    )
    return _task(
        "web_questions",
        "WebQs",
        Splits(need_split("web_questions", data, read, *test), shown),
        protocol,
        kind="choose",
        metrics=(any_greedy(),),
        notes=(HARNESS_NOTE, "lm-eval 0.4.13 itself fails with demonstrations; here they show the first answer"),
    )


def make_trivia_qa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return TriviaQA's development set, any alias accepted: Wikipedia's part in the paper, with the web's in the
    harness.
    """
    read = _read_with(
        partial(read_trivia_qa, value_first=protocol is GPT3),
        _harness_trivia if protocol is HARNESS else paper_example,
    )
    kinds = ("wikipedia", "unfiltered-web", "web")
    dev = (*(f"{kind}-dev.json" for kind in kinds), "triviaqa_small.jsonl")
    data = needed("trivia_qa", data, *dev)
    evaluated: Split = need_split("trivia_qa", data, read, *dev)
    shown = find_split(data, read, *(f"{kind}-train.json" for kind in kinds))
    if protocol is HARNESS and data.find("web-dev.json") and data.find("wikipedia-dev.json"):
        both = [
            [find_split(data, read, f"{kind}-{part}.json") for kind in ("web", "wikipedia")]
            for part in ("dev", "train")
        ]
        evaluated, shown = joined(both[0]) or evaluated, joined(both[1])
    return _task(
        "trivia_qa",
        "TriviaQA",
        Splits(evaluated, shown, harness_excludes=True),
        protocol,
        metrics=(harness_exact_match(without_articles=False),),
    )


TASKS = {"nq_open": make_nq_open, "web_questions": make_web_questions, "trivia_qa": make_trivia_qa}
