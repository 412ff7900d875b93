"""Passages: their questions, and whole passages as demonstrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.data.passages import Dialogue, Separate, Turn, in_folder, passage_splits, splits_of
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.table import make_task

DIALOGUE = Dialogue("A text.", (Turn("1", "Who?", ("Ann", "she")), Turn("2", "Why?", ("Because.",), ("reason",))))
PASSAGES = [
    Separate(tuple(Example(f"{passage}:{n}", f"Passage {passage}, question {n}", ("a",)) for n in range(3)))
    for passage in range(40)
]


def passages_of(examples: list[Example]) -> set[str]:
    return {example.id.partition(":")[0] for example in examples}


def test_every_turn_is_a_question_after_the_turns_before_it() -> None:
    first, second = DIALOGUE.questions
    assert (first.context, first.completions) == ("A text.\n\nQ: Who?\n\nA:", (" Ann", " she"))
    assert second.context == "A text.\n\nQ: Who?\n\nA: Ann\n\nQ: Why?\n\nA:"
    assert (second.id, second.completions, second.references) == ("2", (" Because.",), ("reason",))


def test_a_demonstration_is_the_whole_dialogue() -> None:
    (demonstration,) = DIALOGUE.demonstrations
    assert demonstration.demonstration == "A text.\n\nQ: Who?\n\nA: Ann\n\nQ: Why?\n\nA: Because."


def test_a_demonstration_of_coqa_has_all_turns_of_its_story(shared_data: Path) -> None:
    data = DataFolder(shared_data / "eval/format_samples/coqa__1.0.0.zip")
    (demonstration,) = make_task("coqa", data=data).episodes(1, 1, 0)[0].demonstrations
    assert demonstration.demonstration.count("Q: ") == 20  # the training file's story


def test_without_a_training_file_a_fifth_of_the_passages_is_for_demonstrations() -> None:
    splits = splits_of("t", "file", PASSAGES, None, GPT3)
    assert splits.demonstrations is not None
    evaluated = passages_of(list(splits.evaluated.examples))
    demonstrations = passages_of(list(splits.demonstrations.examples))
    assert not evaluated & demonstrations
    assert len(evaluated) + len(demonstrations) == 40
    assert 2 <= len(demonstrations) <= 16
    assert len(splits.evaluated.examples) == 3 * len(evaluated)  # a passage is never divided


def test_without_a_training_file_the_harness_evaluates_all_passages() -> None:
    splits = splits_of("t", "file", PASSAGES, None, HARNESS)
    assert (len(splits.evaluated.examples), splits.demonstrations) == (120, None)


def test_demonstrations_come_from_the_training_file(tmp_path: Path) -> None:
    for name in ("Set/val.jsonl", "Set/train.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def read(file: DataFile) -> list[Dialogue]:
        return [Dialogue(file.text(), DIALOGUE.turns)]

    files, training = ("Set/val.jsonl",), ("Set/train.jsonl",)
    splits = passage_splits("t", DataFolder(tmp_path), read, files=files, training=training, protocol=GPT3)
    assert splits.source(GPT3) == "Set/val.jsonl, demonstrations from Set/train.jsonl"
    assert [example.id for example in splits.evaluated.examples] == ["1", "2"]
    assert splits.demonstrations is not None
    (demonstration,) = splits.demonstrations.examples
    assert demonstration.context.startswith("Set/train.jsonl\n")
    with pytest.raises(BadFile, match=r"t: .* holds no absent\.jsonl"):
        passage_splits("t", DataFolder(tmp_path), read, files=("absent.jsonl",), training=training, protocol=GPT3)


def test_a_file_is_named_with_the_folder_of_its_set(tmp_path: Path) -> None:
    file = DataFile("downloads/BoolQ/val.jsonl.gz", DataFolder(tmp_path))
    assert in_folder(file, "BoolQ/val.jsonl") == "BoolQ/val.jsonl.gz"
    assert in_folder(file, "val.jsonl") == "val.jsonl.gz"
