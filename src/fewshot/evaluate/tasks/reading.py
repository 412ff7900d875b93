"""QuAC, SQuAD 2.0 and CoQA: questions about a passage, one after the other. In: their files. Out: free-form tasks.

The paper's form shows the turns before a question with their answers. A demonstration is a whole passage of the
training set with all its turns. Source: Choi et al. 2018, Rajpurkar et al. 2018, Reddy et al. 2018; Brown et al. 2020,
section 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fewshot.evaluate.data.files import Data, Found, laid_out, needed
from fewshot.evaluate.data.passages import Dialogue, Separate, Turn, passage_splits
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe
from fewshot.evaluate.data.splits import refuse_harness
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, ratio
from fewshot.evaluate.metrics.question_answering import CANNOT_ANSWER, coqa, exact, quac, squad, token_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

UNANSWERABLE = "unanswerable"  # SQuAD 2.0's answer where the passage has none; the harness's word
HARNESS_TOKENS = 256  # the harness's default for a written answer

_QUESTION = {"id": ID, "question": str}
_QUAC_PARAGRAPH = {"context": str, "qas": [{**_QUESTION, "answers": [{"text": str}], "orig_answer": {"text": str}}]}
QUAC = {"data": [{"title": str, "section_title": str, "paragraphs": [_QUAC_PARAGRAPH]}]}
_SQUAD_PARAGRAPH = {"context": str, "qas": Many({**_QUESTION, "answers": Many({"text": str})})}
SQUAD = {"data": [{"title": str, "paragraphs": [_SQUAD_PARAGRAPH]}]}
_SAID = [{"input_text": str}]
COQA = {
    "data": [
        {
            "id": ID,
            "story": str,
            "questions": [{"input_text": str, "turn_id": ID}],
            "answers": _SAID,
            "additional_answers": Maybe(Each(_SAID)),
        }
    ]
}

WHOLE_PASSAGES = "a demonstration is a whole passage of the training set with all its questions answered"


def read_quac(file: Found) -> list[Dialogue]:
    """Return QuAC's dialogues, without the mark that stands at the end of every passage for questions without an
    answer.
    """
    with laid_out(file, "QuAC's val_v0.2.json"):
        return [
            Dialogue(
                f"TITLE: {article['title']} - {article['section_title']}\n"
                f"PARAGRAPH: {paragraph['context'].removesuffix(CANNOT_ANSWER).strip()}",
                tuple(_quac_turn(row) for row in paragraph["qas"]),
            )
            for article in file.json(QUAC)["data"]
            for paragraph in article["paragraphs"]
        ]


def _quac_turn(row: dict[str, Any]) -> Turn:
    references = tuple(answer["text"] for answer in row["answers"])
    answers = dict.fromkeys((row["orig_answer"]["text"], *references))
    return Turn(str(row["id"]), row["question"].strip(), tuple(answers), references)


def read_squad(file: Found) -> list[Dialogue]:
    """Return SQuAD 2.0's paragraphs, their questions one after the other."""
    with laid_out(file, "SQuAD's dev-v2.0.json"):
        return [
            Dialogue(
                f"Title: {article['title']}\n\nBackground: {paragraph['context'].strip()}",
                tuple(_squad_turn(row) for row in paragraph["qas"]),
            )
            for article in file.json(SQUAD)["data"]
            for paragraph in article["paragraphs"]
        ]


def _squad_turn(row: dict[str, Any]) -> Turn:
    accepted = tuple(dict.fromkeys(answer["text"] for answer in row["answers"]))
    return Turn(str(row["id"]), row["question"].strip(), accepted or (UNANSWERABLE,), accepted)


def read_squad_as_harness(file: Found) -> list[Separate]:
    """Return SQuAD 2.0's questions by themselves, as the harness asks them, with two spaces before a shown answer."""

    def example(title: str, context: str, row: dict[str, Any]) -> Example:
        turn = _squad_turn(row)
        text = f"Title: {title}\n\nBackground: {context}\n\nQuestion: {row['question']}\n\nAnswer:"
        return Example(turn.id, text, tuple(f"  {answer}" for answer in turn.answers), references=turn.references)

    with laid_out(file, "SQuAD's dev-v2.0.json"):
        return [
            Separate(tuple(example(article["title"], paragraph["context"], row) for row in paragraph["qas"]))
            for article in file.json(SQUAD)["data"]
            for paragraph in article["paragraphs"]
        ]


def read_coqa(file: Found) -> list[Dialogue]:
    """Return CoQA's stories with their turns; the development file has four people's answers to each."""
    with laid_out(file, "CoQA's coqa-dev-v1.0.json"):
        return [Dialogue(story["story"].strip(), _coqa_turns(story)) for story in file.json(COQA)["data"]]


def _coqa_turns(story: dict[str, Any]) -> tuple[Turn, ...]:
    people = [story["answers"], *(story.get("additional_answers") or {}).values()]
    turns = []
    for number, question in enumerate(story["questions"]):
        answers = tuple(person[number]["input_text"].strip() for person in people)
        name = f"{story['id']}:{question['turn_id']}"
        turns.append(Turn(name, question["input_text"].strip(), tuple(dict.fromkeys(answers)), answers))
    return tuple(turns)


def read_coqa_as_harness(file: Found) -> list[Separate]:
    """Return CoQA's stories as the harness asks them: of each the last turn alone, its answers without repetitions."""
    with laid_out(file, "CoQA's coqa-dev-v1.0.json"):
        return [Separate((_coqa_last(story),)) for story in file.json(COQA)["data"]]


def _coqa_last(story: dict[str, Any]) -> Example:
    given = [answer["input_text"] for answer in story["answers"]]
    text = story["story"] + "\n\n"
    for number, question in enumerate(story["questions"]):
        answer = f"A: {given[number]}\n\n" if number < len(given) - 1 else "A:"
        text += f"Q: {question['input_text']}\n\n{answer}"
    accepted = [given[-1]]
    for person in (story.get("additional_answers") or {}).values():
        other = person[len(given) - 1]["input_text"]
        if other.lower() not in [one.lower() for one in accepted]:
            accepted.append(other)
    name = f"{story['id']}:{story['questions'][-1]['turn_id']}"  # as in the paper's form
    return Example(name, text, tuple(f" {one}" for one in accepted), references=tuple(accepted))


def make_quac(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return QuAC's validation set; the harness has no such task."""
    refuse_harness("quac", protocol)
    files = ("val_v0.2.json",)
    splits = passage_splits(
        "quac",
        needed("quac", data, *files),
        read_quac,
        files=files,
        training=("train_v0.2.json",),
        protocol=protocol,
    )
    return Task(
        name="quac",
        paper_name="QuAC",
        kind="complete",
        metrics=(quac(), quac("unfiltered_f1", filtered=False)),
        episodes=splits.episodes("quac", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=5,
        max_answer_tokens=64,  # people chose spans of at most 30 words
        notes=(
            WHOLE_PASSAGES,
            f"where the passage has no answer, turns and demonstrations show the data's own word, {CANNOT_ANSWER}",
        ),
    )


def make_squad_v2(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return SQuAD 2.0's development set."""
    files = ("dev-v2.0.json",)
    splits = passage_splits(
        "squad_v2",
        needed("squad_v2", data, *files),
        read_squad_as_harness if protocol is HARNESS else read_squad,
        files=files,
        training=("train-v2.0.json",),
        protocol=protocol,
    )
    return Task(
        name="squad_v2",
        paper_name="SQuADv2",
        protocol=protocol,
        kind="complete",
        metrics=_harness_squad_measures()
        if protocol is HARNESS
        else (
            squad("f1", token_f1, no_answer=UNANSWERABLE),
            squad("em", exact, no_answer=UNANSWERABLE),
        ),
        episodes=splits.episodes("squad_v2", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=16,
        max_answer_tokens=HARNESS_TOKENS if protocol is HARNESS else 48,
        notes=(
            "the harness's best_exact and best_f1, which need the probability of no answer, are not taken",
            f"as in the harness a written {UNANSWERABLE!r} is not taken for no answer: only an empty one is",
            "lm-eval 0.4.13 itself fails with demonstrations; here they show the first answer, as it would",
        )
        if protocol is HARNESS
        else (
            WHOLE_PASSAGES,
            f"where the passage has no answer it is {UNANSWERABLE!r}, as the paper does not say what it showed",
        ),
    )


def _harness_squad_measures() -> tuple[Metric, ...]:
    kinds = (("", None), ("HasAns_", True), ("NoAns_", False))
    scores = (("exact", exact), ("f1", token_f1))
    shares = [squad(kind + name, score, answerable=only) for kind, only in kinds for name, score in scores]
    return tuple(replace(one, value=_per_cent, share=False) for one in shares)


def _per_cent(sums: Sequence[float]) -> float:
    """Return the first sum over the second, 0 to 100 as in the official script; 0 where nothing counts."""
    return 100 * ratio(sums) if sums[1] else 0.0


def make_coqa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return CoQA's development set: every turn in the paper's form, the last of each story in the harness's."""
    files = ("coqa-dev-v1.0.json",)
    splits = passage_splits(
        "coqa",
        needed("coqa", data, *files),
        read_coqa_as_harness if protocol is HARNESS else read_coqa,
        files=files,
        training=("coqa-train-v1.0.json",),
        protocol=protocol,
    )
    em, f1 = coqa("em", exact), coqa("f1", token_f1)
    return Task(
        name="coqa",
        paper_name="CoQA",
        protocol=protocol,
        kind="complete",
        metrics=(em, f1) if protocol is HARNESS else (f1, em),
        episodes=splits.episodes("coqa", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=5,
        stop=("\nQ:",) if protocol is HARNESS else ("\n",),
        max_answer_tokens=HARNESS_TOKENS if protocol is HARNESS else 48,
        notes=(
            "the harness asks the last question of each story alone",
            "with demonstrations lm-eval 0.4.13 itself fails on its own copy of the training stories, which have no "
            "additional answers; here they show the first answer, as it would",
        )
        if protocol is HARNESS
        else (WHOLE_PASSAGES,),
    )


TASKS = {"quac": make_quac, "squad_v2": make_squad_v2, "coqa": make_coqa}
