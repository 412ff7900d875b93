from __future__ import annotations

import json
import threading

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.prompt import Prompt
from fewshot.evaluate.store.answers import AnswerFile
from fewshot.evaluate.task import Task

TASK = Task(name="t", kind="choose", episodes=lambda n, k, seed: [], metrics=(accuracy(),), source="by hand")


def answer(number: int, *, name: str = "") -> tuple[Prompt, Answer]:
    example = Example(name or f"q{number}", f"question {number}", (" a", " b"))
    return Prompt("text", (number,), (), 0, example), Answer(example=example, logprobs=(-float(number), -1.0))


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_one_process_added_is_known_to_the_next_add_of_another(tmp_path):
    path = tmp_path / "a.jsonl"
    one, two = AnswerFile(path, "w"), AnswerFile(path, "w")
    one.add(TASK, [answer(1), answer(2)])
    two.add(TASK, [answer(2), answer(3)])
    one.add(TASK, [answer(4)])
    assert [row.get("id") for row in lines(path)] == [None, "q1", "q2", "q3", "q4"]
    assert one.get(TASK, answer(3)[0]) == answer(3)[1]
    assert two.get(TASK, answer(4)[0]) is None  # until it adds again


def test_many_writers_at_once_lose_no_line(tmp_path):
    path = tmp_path / "a.jsonl"

    def write(first: int) -> None:
        file = AnswerFile(path, "w")
        for number in range(first, first + 10):
            file.add(TASK, [answer(number)])

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 5, 10, 15)]  # they overlap
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(row["id"] for row in lines(path)[1:]) == sorted(f"q{number}" for number in range(25))


@pytest.mark.parametrize("end", ['{"asked": "cut', "\0" * 40, "no json", '{"asked": "é'.encode()[:-1], b"\xff\xfe"])
def test_a_last_line_that_was_cut_off_is_dropped_and_what_is_added_stands_whole(tmp_path, end):
    path = tmp_path / "a.jsonl"
    AnswerFile(path, "w").add(TASK, [answer(1)])
    with path.open("ab") as file:
        file.write(end if isinstance(end, bytes) else end.encode())
    AnswerFile(path, "w").add(TASK, [answer(2)])
    assert [row.get("id") for row in lines(path)] == [None, "q1", "q2"]


@pytest.mark.parametrize("line", ["no json", "5", "{}", '{"asked": "x"}', "[" * 100_000, "9" * 5000, "[]"])
def test_a_damaged_line_is_named_and_nothing_is_written(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"weights": "w"}}\n{line}\n')
    before = path.read_bytes()
    with pytest.raises(BadFile, match=r"a\.jsonl is damaged \(line 2: .*\): delete it, or that line"):
        AnswerFile(path, "w")
    assert path.read_bytes() == before


def test_answers_of_other_weights_are_neither_taken_nor_touched(tmp_path):
    path = tmp_path / "a.jsonl"
    AnswerFile(path, "w").add(TASK, [answer(1)])
    before = path.read_bytes()
    with pytest.raises(BadFile, match="answers of other weights"):
        AnswerFile(path, "others")
    assert path.read_bytes() == before


@pytest.mark.parametrize("start", ["", '{"wei', "\0" * 9])
def test_a_first_line_that_was_cut_off_is_written_again(tmp_path, start):
    path = tmp_path / "a.jsonl"
    path.write_text(start)
    AnswerFile(path, "w").add(TASK, [answer(1)])
    assert [row.get("id") for row in lines(path)] == [None, "q1"]


@pytest.mark.parametrize("content", ["mine", "x" * 9000, '{"weights": "others"'])
def test_a_file_of_others_without_a_line_break_stays(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(BadFile, match=r"a\.jsonl is damaged \(line 1"):
        AnswerFile(path, "w")
    assert path.read_text() == content


def test_a_file_that_was_deleted_meanwhile_is_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    file = AnswerFile(path, "w")
    file.add(TASK, [answer(1)])
    path.unlink()
    file.add(TASK, [answer(2)])
    assert [row.get("id") for row in lines(path)] == [None, "q2"]


def test_a_name_that_is_not_utf8_is_stored_as_valid_json(tmp_path):
    path = tmp_path / "a.jsonl"
    AnswerFile(path, "w").add(TASK, [answer(1, name="\ud83d")])
    assert lines(path)[1]["id"] == "\ud83d"
    assert AnswerFile(path, "w").known
