"""PIQA, ARC, OpenBookQA: what is physically sensible, and what pupils learn. In: their files. Out: tasks of choosing.

Source: Bisk et al. 2019, Clark et al. 2018, Mihaylov et al. 2018; Brown et al. 2020, section 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fewshot.base.errors import BadFile, check
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.data.schema import ID, check_kind
from fewshot.evaluate.data.splits import Splits, find_split, need_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

PIQA_FILES = ("physicaliqa-train-dev/dev.jsonl", "piqa/valid.jsonl")
PIQA_TRAINING = ("physicaliqa-train-dev/train.jsonl", "piqa/train.jsonl")
PIQA_LABELS = {"dev": "dev-labels.lst", "valid": "valid-labels.lst", "train": "train-labels.lst"}
ARC_FILES = {
    "arc_easy": ("ARC (Easy)", "ARC-Easy", "arc_easy.jsonl"),
    "arc_challenge": ("ARC (Challenge)", "ARC-Challenge", "arc_challenge.jsonl"),
}
PUPIL = {"id": ID, "question": {"stem": str, "choices": [{"text": str, "label": str}]}, "answerKey": str}
ANSWER_CONTEXT = "Answer:"  # P(choice | question) is divided by P(choice | this)


def read_piqa(file: Found, data: Data, protocol: EvalProtocol) -> list[Example]:
    """Return lines of {"goal", "sol1", "sol2"} with the right solutions, 0 or 1, in a file of labels beside them."""
    rows = file.rows(goal=str, sol1=str, sol2=str)
    folder, _, name = file.name.rpartition("/")
    labels_file = data.need("piqa", "/".join(filter(None, (folder, PIQA_LABELS[name.partition(".")[0]]))))
    labels = labels_file.text().split()
    if len(labels) != len(rows) or not set(labels) <= {"0", "1"}:
        raise BadFile(f"{labels_file} must hold {len(rows):,} labels, each 0 or 1, as {file.name} has so many goals")
    return [_goal(f"{name}:{n}", row, int(labels[n - 1]), protocol) for n, row in enumerate(rows, start=1)]


def _goal(name: str, row: dict[str, Any], gold: int, protocol: EvalProtocol) -> Example:
    if protocol is HARNESS:
        return Example(name, f"Question: {row['goal']}\nAnswer:", (f" {row['sol1']}", f" {row['sol2']}"), gold)
    return Example(name, row["goal"].strip(), (f" {row['sol1'].strip()}", f" {row['sol2'].strip()}"), gold)


def read_pupils(file: Found, *, question: bool) -> list[Example]:
    """Return questions of ARC or OpenBookQA, in their original layout or as lines of {"query", "choices", "gold"}.

    With `question` the context is `Question: ...` and `Answer:`; else it is the bare stem, which often runs on into
    the choice.
    """
    return file.each(
        lambda n, row: _pupil_original(row, question) if "answerKey" in row else _pupil_rendered(file, n, row, question)
    )


def _pupil_original(row: dict[str, Any], question: bool) -> Example:
    check_kind(row, PUPIL)
    choices = row["question"]["choices"]
    letters, key = [choice["label"] for choice in choices], row["answerKey"].strip()
    check(key in letters, f"answerKey is {key!r}, {row['id']} has the choices {', '.join(letters)}")
    texts = [choice["text"] for choice in choices]
    return _pupil(str(row["id"]), row["question"]["stem"], texts, letters.index(key), question)


def _pupil_rendered(file: Found, number: int, row: dict[str, Any], question: bool) -> Example:
    check_kind(row, {"query": str, "choices": [str], "gold": int})
    stem = row["query"].removeprefix("Question: ")
    return _pupil(f"{file.short}:{number}", stem, row["choices"], row["gold"], question)


def _pupil(name: str, stem: str, choices: Sequence[str], gold: int, question: bool) -> Example:
    context = f"Question: {stem}\nAnswer:" if question else stem
    return Example(name, context, tuple(f" {choice}" for choice in choices), gold)


def _task(
    name: str,
    paper_name: str,
    splits: Splits,
    protocol: EvalProtocol,
    *,
    answer_context: str | None = None,
    shots: int,
) -> Task:
    metrics: tuple[Metric, ...] = (accuracy("unconditional" if answer_context else "token"),)
    if protocol is HARNESS:
        metrics, answer_context = (accuracy("sum", name="acc"), accuracy("character", name="acc_norm")), None
    examples = splits.evaluated.examples
    return Task(
        name=name,
        paper_name=paper_name,
        protocol=protocol,
        kind="choose",
        metrics=metrics,
        episodes=splits.episodes(name, protocol),
        dev=splits.dev_episodes(name) if protocol is GPT3 else None,
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=shots,
        answer_context=answer_context,
        chance=sum(1 / len(example.completions) for example in examples) / len(examples),
    )


def make_piqa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return PIQA's development set: the labels of its test set are not public."""
    data = needed("piqa", data, *PIQA_FILES)
    read = partial(read_piqa, data=data, protocol=protocol)
    training = find_split(data, read, *PIQA_TRAINING)
    splits = Splits(need_split("piqa", data, read, *PIQA_FILES), training, harness_excludes=True)
    return _task("piqa", "PIQA", splits, protocol, shots=50)


def make_arc(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return ARC's test set of that name."""
    paper_name, original, rendered = ARC_FILES[name]
    data = needed(name, data, f"{original}-Test.jsonl")
    splits = _pupils(name, data, (f"{original}-Test.jsonl", rendered), original, question=True)
    return _task(name, paper_name, splits, protocol, answer_context=ANSWER_CONTEXT, shots=50)


def make_openbookqa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return OpenBookQA's test set, without the book's facts."""
    data = needed("openbookqa", data, "Main/test.jsonl")
    splits = _pupils("openbookqa", data, ("Main/test.jsonl", "openbook_qa.jsonl"), "Main/", question=False)
    return _task("openbookqa", "OpenBookQA", splits, protocol, answer_context=ANSWER_CONTEXT, shots=100)


def _pupils(name: str, data: Data, test: Sequence[str], start: str, *, question: bool) -> Splits:
    read = partial(read_pupils, question=question)
    parts = ("train.jsonl", "dev.jsonl") if start.endswith("/") else ("-Train.jsonl", "-Dev.jsonl")
    training, dev = (find_split(data, read, start + part) for part in parts)
    return Splits(need_split(name, data, read, *test), training, dev)


TASKS: dict[str, Callable[..., Task]] = {
    "piqa": make_piqa,
    "arc_easy": partial(make_arc, "arc_easy"),
    "arc_challenge": partial(make_arc, "arc_challenge"),
    "openbookqa": make_openbookqa,
}
