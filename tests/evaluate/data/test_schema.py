"""Values of another kind than a layout has: refused with the file, or without any effect."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.data.schema import Each, Many, Maybe, OneOf, check_schema
from fewshot.evaluate.example import Episode
from fewshot.evaluate.protocol import PROTOCOLS
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"
FILES = {
    "anli_r1": "R1/test.jsonl",
    "arc_easy": "ARC-Easy-Test.jsonl",
    "openbookqa": "Main/test.jsonl",
    "coqa": "coqa-dev-v1.0.json",
    "drop": "drop_dataset_dev.json",
    "hellaswag": "hellaswag_val.jsonl",
    "lambada": "lambada_test.jsonl",
    "nq_open": "NQ-open.dev.jsonl",
    "piqa": "physicaliqa-train-dev/dev.jsonl",
    "quac": "val_v0.2.json",
    "race_h": "RACE/test/high/2.txt",
    "squad_v2": "dev-v2.0.json",
    "trivia_qa": "wikipedia-dev.json",
    "web_questions": "webquestions.examples.test.json",
    "winogrande": "winogrande_1.1/dev.jsonl",
    "arithmetic_2d_add": "two_digit_addition.jsonl",
    "scramble_ri": "random_insertion_in_word.jsonl",
    "boolq": "BoolQ/val.jsonl",
    "cb": "CB/val.jsonl",
    "copa": "COPA/val.jsonl",
    "rte": "RTE/val.jsonl",
    "wic": "WiC/val.jsonl",
    "wsc": "WSC/val.jsonl",
    "multirc": "MultiRC/val.jsonl",
    "record": "ReCoRD/val.jsonl",
}
GOLD = {"label", "gold", "answerKey"}  # numbers whose range is known
WITH_IDS = {"anli_r1", "arc_easy", "openbookqa", "coqa", "drop", "hellaswag", "quac", "race_h", "squad_v2", "trivia_qa",
            "winogrande", "boolq", "cb", "copa", "rte", "wic", "wsc", "multirc", "record"}  # fmt: skip
MAY_BE_EMPTY = {"Aliases", "HumanAnswers", "validated_answers", "spans", "qas", "qa_pairs"}
MAY_BE_NULL = {"HumanAnswers", "validated_answers", "additional_answers", "date", "day", "month", "year", "idx"}


class Changed(DataFolder):
    """The samples, with another text in one file."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(SAMPLES)
        self.changed, self.text = name, text

    def text_of(self, name: str) -> str:
        return self.text if name == self.changed else super().text_of(name)


def others(key: str, value: Any) -> list[Any]:
    """Values of other kinds."""
    null = [] if key in MAY_BE_NULL else [None]
    if isinstance(value, bool):
        return [*null, "False", [value], {}]
    if isinstance(value, int):
        return [*null, 1.5, [value], {}, *(["x", -1, 99, ""] if key in GOLD else [])]
    if isinstance(value, str):
        return [*null, 1.5, [value], {}, True]
    if isinstance(value, list):
        return [*null, "abc", 7, {}, *([] if key in MAY_BE_EMPTY else [[]])]
    return [*null, "abc", 7, [value]]


def changes(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(what was changed, the whole value with one value in it of another kind); of lists the first part alone."""
    inside = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for place, part in inside:
        name = place if isinstance(place, str) else key
        for other in others(name, part):
            changed = copy.copy(value)
            changed[place] = other
            yield f"{place} = {other!r}", changed
        for said, other in changes(part, name):
            changed = copy.copy(value)
            changed[place] = other
            yield f"{place}.{said}", changed


def episodes(task: str, data: DataFolder, protocol: str) -> list[Episode]:
    return list(make_task(task, data=data, protocol=PROTOCOLS[protocol]).episodes(99, 0, 0))


def refusal(task: str, data: DataFolder, protocol: str) -> str | None:
    try:
        episodes(task, data, protocol)
    except BadFile as error:
        return str(error)
    return None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", FILES)
def test_a_value_of_another_kind_is_refused_with_its_file_or_has_no_effect(task: str, protocol: str) -> None:
    if (task, protocol) == ("quac", "lm-eval"):
        return  # the harness has no such task
    data = DataFolder(SAMPLES)
    file = data.require(task, FILES[task])
    lines = [line for line in file.text().split("\n") if line.strip()]
    by_lines = file.suffix == ".jsonl"
    expected, n = episodes(task, data, protocol), 0
    for said, changed in changes(json.loads(lines[0] if by_lines else file.text())):
        text = json.dumps(changed)
        made = Changed(file.name, "\n".join([text, *lines[1:]]) if by_lines else text)
        if task == "squad_v2" and said.endswith("answers = []"):
            continue  # a question without an answer
        refused = refusal(task, made, protocol)
        if refused is None:
            assert episodes(task, made, protocol) == expected, said
        else:
            n += 1
            assert (f"{file.short} line 1" if by_lines else file.short) in refused, said
            assert "\n" not in refused, said
    assert n >= 4


IDS = {"id", "uid", "qID", "query_id", "turn_id", "QuestionId", "ind", "idx"}


def with_ids(value: Any, make: Any) -> tuple[Any, int]:
    """The value with another thing for each id, and how many there are."""
    if isinstance(value, list):
        made = [with_ids(item, make) for item in value]
        return [one for one, _ in made], sum(n for _, n in made)
    if not isinstance(value, dict):
        return value, 0
    changed, n = {}, 0
    for key, item in value.items():
        is_id = key in IDS and not isinstance(item, dict)
        changed[key], here = (make(), 1) if is_id else with_ids(item, make)
        n += here
    return changed, n


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", FILES)
def test_ids_may_be_whole_numbers_or_text(task: str, protocol: str) -> None:
    if (task, protocol) == ("quac", "lm-eval"):
        return  # the harness has no such task
    file = DataFolder(SAMPLES).require(task, FILES[task])
    by_lines = file.suffix == ".jsonl"
    lines = [line for line in file.text().split("\n") if line.strip()] if by_lines else [file.text()]
    found = []
    for kind in (int, str):
        numbers = itertools.count(70)
        rows = [with_ids(json.loads(line), lambda kind=kind, numbers=numbers: kind(next(numbers))) for line in lines]
        made = Changed(file.name, "\n".join(json.dumps(row) for row, _ in rows))
        found.append(episodes(task, made, protocol))
    assert found[0] == found[1]
    assert all(isinstance(one.example.id, str) for one in found[0])
    assert task not in WITH_IDS or sum(n for _, n in rows) > 0


REFUSED = {
    "a text for a list of answers": (
        "nq_open",
        {"question": "who?", "answer": "Madrid"},
        "answer is 'Madrid', must be a list of texts that is not empty",
    ),
    "numbers in a list of answers": ("nq_open", {"question": "who?", "answer": [7]}, "answer[0] is 7, must be text"),
    "nothing in a list of answers": (
        "nq_open",
        {"question": "who?", "answer": []},
        "answer is [], must be a list of texts that is not empty",
    ),
    "a list in a list": ("nq_open", {"question": "who?", "answer": [["a"]]}, "answer[0] is ['a'], must be text"),
    "null for a list": ("nq_open", {"question": "who?", "answer": None}, "answer is None, must be a list of texts"),
    "a text for endings": (
        "hellaswag",
        {"endings": "abcd"},
        "endings is 'abcd', must be a list of texts that is not empty",
    ),
    "a label below the endings": ("hellaswag", {"label": -1}, "(-1,) name no completion"),
    "a label beyond the endings": ("hellaswag", {"label": 4}, "(4,) name no completion"),
    "a label that is no number": ("hellaswag", {"label": "two"}, "'two'"),
    "a label that was left out": ("hellaswag", {"label": ""}, "ValueError"),
    "a label that is true": ("hellaswag", {"label": True}, "label is True, must be a whole number or text"),
    "null in endings": ("hellaswag", {"endings": ["a", None, "c", "d"]}, "endings[1] is None, must be text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_value_is_and_what_is_needed_is_said(case: str) -> None:
    task, fields, message = REFUSED[case]
    file = DataFolder(SAMPLES).require(task, FILES[task])
    row = {**json.loads(file.text().split("\n")[0]), **fields}
    with pytest.raises(BadFile) as caught:
        episodes(task, Changed(file.name, "\n" + json.dumps(row)), "gpt3")
    assert message in str(caught.value)
    assert f"{file.short} line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "message"),
    [
        (str, "", 1, "it is 1, must be text"),
        (int, 0, True, "it is True, must be a whole number"),
        (int, -3, 1.0, "it is 1.0, must be a whole number"),
        (bool, False, 0, "it is 0, must be true or false"),
        ((str, int), 5, None, "it is None, must be text or a whole number"),
        ([str], ["a"], [], "it is [], must be a list of texts that is not empty"),
        (Many(int), [], (), "it is (), must be a list of whole numbers"),
        (Each([int]), {"a": [1]}, {"a": [1], "b": []}, "b is [], must be a list of whole numbers that is not empty"),
        ({"a": {"b": [str]}}, {"a": {"b": ["x"]}}, {"a": {"b": ["x", 1]}}, "a.b[1] is 1, must be text"),
        ({"a": str}, {"a": "", "z": 9}, {"z": 9}, "it lacks 'a', text"),
        ([{"a": str}], [{"a": ""}], [{"a": ""}, {}], "[1] lacks 'a', text"),
        ({"a": Maybe(str)}, {}, {"a": 0}, "a is 0, must be text"),
        (Many((int, str)), [1, "a"], 2, "it is 2, must be a list of whole numbers or texts"),
        (Many([str]), [], 2, "it is 2, must be a list of lists"),
        (Many({"a": str}), [], 2, "it is 2, must be a list of objects"),
        (Many(bool), [], 2, "it is 2, must be a list of true or false"),
        ([OneOf((1, 2))], [1], 2, "it is 2, must be a list of 1, 2 that is not empty"),
        ({"a": [str]}, {"a": ["b"]}, {}, "it lacks 'a', a list of texts that is not empty"),
        (OneOf(("e", "n")), "n", "x", "it is 'x', must be one of 'e', 'n'"),
        (str, "a", ["x" * 99], f"it is ['{'x' * 38}..., must be text"),
    ],
)
def test_a_kind_takes_what_it_says(kind: Any, right: Any, wrong: Any, message: str) -> None:
    check_schema(right, kind)
    with pytest.raises(BadValue) as caught:
        check_schema(wrong, kind)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ['{"text": "a \\ud83d b"}', '{"text": "a \\ude00 b"}'])
def test_a_lone_surrogate_is_the_sign_of_what_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "lambada_test.jsonl").write_text(text + "\n" + '{"text": "a \\ud83d\\ude00 b"}')
    examples = [one.example for one in episodes("lambada", DataFolder(tmp_path), "lm-eval")]
    assert [one.context for one in examples] == ["a \ufffd", "a \U0001f600"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"text": ' + "9" * 6000 + "}", '{"text": ' + "[" * 600 + "]" * 600 + "}"]
)
def test_json_that_grows_without_end_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "lambada_test.jsonl").write_text('{"text": "a b"}\n' + text)
    with pytest.raises(BadFile, match=r"lambada_test\.jsonl line 2 is not"):
        episodes("lambada", DataFolder(tmp_path), "gpt3")
