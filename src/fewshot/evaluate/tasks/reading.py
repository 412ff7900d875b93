"""QuAC, SQuAD 2.0 and CoQA: questions about a passage, one after the other. In: their files. Out: free-form tasks.

The paper's form shows the turns before a question with their answers. A demonstration is a whole passage of the
training set with all its turns. Source: Choi et al. 2018, Rajpurkar et al. 2018, Reddy et al. 2018; Brown et al. 2020,
section 3.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fewshot.evaluate.data.files import Data, DataFile, Row, in_layout, require_data
from fewshot.evaluate.data.passages import Dialogue, Separate, Turn, passage_splits
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, ratio
from fewshot.evaluate.metrics.question_answering import CANNOT_ANSWER, coqa, exact, quac, squad, token_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

UNANSWERABLE = "unanswerable"  # SQuAD 2.0's answer where the passage has none; the harness's word
HARNESS_TOKENS = 256  # the harness's default for a written answer

_QUESTION = {"id": ID, "question": str}
_QUAC_PARAGRAPH = {"context": str, "qas": [{**_QUESTION, "answers": [{"text": str}], "orig_answer": {"text": str}}]}
QUAC = {"data": [{"title": str, "section_title": str, "paragraphs": [_QUAC_PARAGRAPH]}]}
_SQUAD_PARAGRAPH = {"context": str, "qas": Many({**_QUESTION, "answers": Many({"text": str})})}
SQUAD = {"data": [{"title": str, "paragraphs": [_SQUAD_PARAGRAPH]}]}
_ANSWERS = [{"input_text": str}]
COQA = {
    "data": [
        {
            "id": ID,
            "story": str,
            "questions": [{"input_text": str, "turn_id": ID}],
            "answers": _ANSWERS,
            "additional_answers": Maybe(Each(_ANSWERS)),
        }
    ]
}

WHOLE_PASSAGES = "a demonstration is a whole passage of the training set with all its questions answered"


def read_quac(file: DataFile) -> list[Dialogue]:
    """Return QuAC's dialogues, without the mark for "no answer" that every passage ends with."""
    with in_layout(file, "QuAC's val_v0.2.json"):
        return [
            Dialogue(
                f"TITLE: {article['title']} - {article['section_title']}\n"
                f"PARAGRAPH: {paragraph['context'].removesuffix(CANNOT_ANSWER).strip()}",
                tuple(_quac_turn(row) for row in paragraph["qas"]),
            )
            for article in file.json(QUAC)["data"]
            for paragraph in article["paragraphs"]
        ]


def _quac_turn(row: Row) -> Turn:
    references = tuple(answer["text"] for answer in row["answers"])
    answers = dict.fromkeys((row["orig_answer"]["text"], *references))
    return Turn(str(row["id"]), row["question"].strip(), tuple(answers), references)


def read_squad(file: DataFile) -> list[Dialogue]:
    """Return SQuAD 2.0's paragraphs, their questions one after the other."""
    with in_layout(file, "SQuAD's dev-v2.0.json"):
        return [
            Dialogue(
                f"Title: {article['title']}\n\nBackground: {paragraph['context'].strip()}",
                tuple(_squad_turn(row) for row in paragraph["qas"]),
            )
            for article in file.json(SQUAD)["data"]
            for paragraph in article["paragraphs"]
        ]


def _squad_turn(row: Row) -> Turn:
    accepted = tuple(dict.fromkeys(answer["text"] for answer in row["answers"]))
    return Turn(str(row["id"]), row["question"].strip(), accepted or (UNANSWERABLE,), accepted)


def read_squad_as_harness(file: DataFile) -> list[Separate]:
    """Return SQuAD 2.0's questions by themselves, as the harness has them, with two spaces before an answer."""

    def example(title: str, context: str, row: Row) -> Example:
        turn = _squad_turn(row)
        text = f"Title: {title}\n\nBackground: {context}\n\nQuestion: {row['question']}\n\nAnswer:"
        return Example(turn.id, text, tuple(f"  {answer}" for answer in turn.answers), references=turn.references)

    with in_layout(file, "SQuAD's dev-v2.0.json"):
        return [
            Separate(tuple(example(article["title"], paragraph["context"], row) for row in paragraph["qas"]))
            for article in file.json(SQUAD)["data"]
            for paragraph in article["paragraphs"]
        ]


def read_coqa(file: DataFile) -> list[Dialogue]:
    """Return CoQA's stories with their turns; the development file has four people's answers to each."""
    with in_layout(file, "CoQA's coqa-dev-v1.0.json"):
        return [Dialogue(story["story"].strip(), _coqa_turns(story)) for story in file.json(COQA)["data"]]


def _coqa_turns(story: Row) -> tuple[Turn, ...]:
    people = [story["answers"], *(story.get("additional_answers") or {}).values()]
    turns = []
    for number, question in enumerate(story["questions"]):
        answers = tuple(person[number]["input_text"].strip() for person in people)
        name = f"{story['id']}:{question['turn_id']}"
        turns.append(Turn(name, question["input_text"].strip(), tuple(dict.fromkeys(answers)), answers))
    return tuple(turns)


def read_coqa_as_harness(file: DataFile) -> list[Separate]:
    """Return CoQA's stories as the harness has them: the last turn of each alone, its answers without repetitions."""
    with in_layout(file, "CoQA's coqa-dev-v1.0.json"):
        return [Separate((_coqa_last(story),)) for story in file.json(COQA)["data"]]


def _coqa_last(story: Row) -> Example:
    given = [answer["input_text"] for answer in story["answers"]]
    text = story["story"] + "\n\n"
    for number, question in enumerate(story["questions"]):
        answer = f"A: {given[number]}\n\n" if number < len(given) - 1 else "A:"
        text += f"Q: {question['input_text']}\n\n{answer}"
    accepted = [given[-1]]
    for person in (story.get("additional_answers") or {}).values():
        other = person[len(given) - 1]["input_text"]
        if other.lower() not in map(str.lower, accepted):
            accepted.append(other)
    name = f"{story['id']}:{story['questions'][-1]['turn_id']}"  # as in the paper's form
    return Example(name, text, tuple(f" {answer}" for answer in accepted), references=tuple(accepted))


def _harness_squad_metrics() -> tuple[Metric, ...]:
    kinds = (("", None), ("HasAns_", True), ("NoAns_", False))
    scores = (("exact", exact), ("f1", token_f1))
    shares = [squad(kind + name, score, answerable=only) for kind, only in kinds for name, score in scores]
    return tuple(replace(share, value=_per_cent, share=False) for share in shares)


def _per_cent(sums: Sequence[float]) -> float:
    """Return the first sum over the second, 0 to 100 as in the official script; 0 where nothing counts."""
    return 100 * ratio(sums) if sums[1] else 0.0


QUAC_FORMS = {
    GPT3: Form(
        read=read_quac,
        kind="complete",
        metrics=(quac(), quac("unfiltered_f1", filtered=False)),
        max_answer_tokens=64,  # people chose spans of at most 30 words
        notes=(
            WHOLE_PASSAGES,
            f"if the passage has no answer, the answer shown is the data's own word, {CANNOT_ANSWER}",
        ),
    )
}
SQUAD_FORMS = {
    GPT3: Form(
        read=read_squad,
        kind="complete",
        metrics=(squad("f1", token_f1, no_answer=UNANSWERABLE), squad("em", exact, no_answer=UNANSWERABLE)),
        max_answer_tokens=48,
        notes=(
            WHOLE_PASSAGES,
            f"if the passage has no answer, the right answer is {UNANSWERABLE!r}: the paper does not say which it used",
        ),
    ),
    HARNESS: Form(
        read=read_squad_as_harness,
        kind="complete",
        metrics=_harness_squad_metrics(),
        max_answer_tokens=HARNESS_TOKENS,
        notes=(
            "the harness's best_exact and best_f1, which need the probability of no answer, are not computed",
            f"as in the harness only an empty answer counts as no answer, {UNANSWERABLE!r} does not",
            "lm-eval 0.4.13 itself stops with an error if there are demonstrations; here they show the first answer",
        ),
    ),
}
COQA_FORMS = {
    GPT3: Form(
        read=read_coqa,
        kind="complete",
        metrics=(coqa("f1", token_f1), coqa("em", exact)),
        max_answer_tokens=48,
        notes=(WHOLE_PASSAGES,),
    ),
    HARNESS: Form(
        read=read_coqa_as_harness,
        kind="complete",
        metrics=(coqa("em", exact), coqa("f1", token_f1)),
        stop=("\nQ:",),
        max_answer_tokens=HARNESS_TOKENS,
        notes=(
            "as in the harness only the last question of each story is asked",
            "with demonstrations lm-eval 0.4.13 itself stops with an error, as its training stories have no additional "
            "answers; here demonstrations show the first answer",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReadingSet:
    """A set of passages with questions: its files and its forms."""

    paper_name: str
    file: str
    training_file: str
    default_shots: int
    forms: Mapping[EvalProtocol, Form]


SETS = {
    "quac": ReadingSet(
        paper_name="QuAC",
        file="val_v0.2.json",
        training_file="train_v0.2.json",
        default_shots=5,
        forms=QUAC_FORMS,
    ),
    "squad_v2": ReadingSet(
        paper_name="SQuADv2",
        file="dev-v2.0.json",
        training_file="train-v2.0.json",
        default_shots=16,
        forms=SQUAD_FORMS,
    ),
    "coqa": ReadingSet(
        paper_name="CoQA",
        file="coqa-dev-v1.0.json",
        training_file="coqa-train-v1.0.json",
        default_shots=5,
        forms=COQA_FORMS,
    ),
}


def make_reading(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name, on the set's development or validation file."""
    of_set = SETS[name]
    form, data = form_of(name, of_set.forms, protocol), require_data(name, data, of_set.file)
    splits = passage_splits(
        name, data, form.read, files=(of_set.file,), training=(of_set.training_file,), protocol=protocol
    )
    return form.task(name, protocol, splits, paper_name=of_set.paper_name, default_shots=of_set.default_shots)


TASKS = {name: partial(make_reading, name) for name in SETS}
