"""SuperGLUE's WSC, read from its original layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.tasks.wsc import marked_pronoun, noun_in_text, same_noun


def full(task: str, shared_data: Path, protocol: EvalProtocol = GPT3) -> Task:
    return make_task(task, data=DataFolder(shared_data / "eval/superglue"), protocol=protocol)


def test_the_pronoun_is_marked_where_the_row_points_even_within_a_word(shared_data: Path) -> None:
    rows = DataFolder(shared_data / "eval/superglue").require("wsc", "WSC/val.jsonl").rows("text")
    assert all(marked_pronoun(row).count("*") == 2 for row in rows)
    assert "use *it* ," in marked_pronoun(rows[42])  # the row points at "use", a word too early
    text = 'Rosa smiled. "Not by them," Kim added.'
    assert marked_pronoun({"text": text, "target": {"span2_index": 4, "span2_text": "them"}}) == (
        'Rosa smiled. "Not by *them*," Kim added.'
    )


def test_a_noun_takes_the_texts_own_case() -> None:
    row = {"text": "The road to the mill is closed.", "target": {"span1_text": "The mill", "span1_index": 3}}
    assert noun_in_text(row) == "the mill"
    assert noun_in_text({**row, "target": {"span1_text": "the road.", "span1_index": 0}}) == "The road"


@pytest.mark.parametrize(
    ("written", "noun", "same"),
    [
        ("mr. moncrieff", "Mr. Moncrieff", True),
        ("The fuzzy bunny.", "bunny", True),
        ("bunny", "a fuzzy bunny", True),
        ("Bob's hat", "Bob", False),
        ("Edward", "Mr. Moncrieff", False),
        ("the", "the lake", False),
        ("", "the lake", False),
    ],
)
def test_nouns_are_the_same_where_one_holds_the_others_words(written: str, noun: str, same: bool) -> None:
    assert same_noun(written, noun) is same


def test_a_written_noun_is_right_if_it_is_the_rows_own_exactly_where_that_is_right(shared_data: Path) -> None:
    task = full("wsc", shared_data)
    examples = [one.example for one in task.episodes(104, 0, 0)]
    n_right = sum(bool(one.references) for one in examples)
    assert n_right == 38
    named = [Answer(example=one, text=one.completions[0]) for one in examples]
    assert task.metrics[0].of(named) == pytest.approx(38 / 104)
    silent = [Answer(example=one) for one in examples]
    assert task.metrics[0].of(silent) == pytest.approx(66 / 104)


def test_only_right_nouns_are_shown(shared_data: Path, tmp_path: Path) -> None:
    # without a training file a fifth of the validation file's 104 rows, of which 38 are right, is kept
    (tmp_path / "WSC").mkdir()
    (tmp_path / "WSC/val.jsonl").write_bytes((shared_data / "eval/superglue/WSC/val.jsonl").read_bytes())
    task = make_task("wsc", data=DataFolder(tmp_path))
    shown = task.episodes(1, 99, 0)[0].demonstrations
    assert 0 < len(shown) < 15
    assert all(one.references for one in shown)
