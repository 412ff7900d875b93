"""RACE, read from its folders of articles."""

from __future__ import annotations

import json
from pathlib import Path

from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.example import Example
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.race import read_article
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


def questions(task: Task) -> dict[str, Example]:
    """All evaluated examples by their ids, which must be unique."""
    examples = [episode.example for episode in task.episodes(99_999, 0, 0)]
    by_id = {example.id: example for example in examples}
    assert len(by_id) == len(examples)
    return by_id


def test_races_other_questions_are_answered_before_the_one_that_is_asked() -> None:
    task = make_task("race_h", data=DataFolder(SAMPLES / "race"))
    second = questions(task)["high1.txt:2"]
    article, *turns = second.context.split("\n\nQ: ")
    assert article.startswith("Article:\nA ferryman kept")
    assert [turn.partition("\n\nA:")[2] for turn in turns] == [" the wind", " He watched the weather.", ""]
    assert turns[-1] == "How long did he keep it?\n\nA:"
    assert (second.completions[second.gold], len(second.completions)) == (" Thirty years", 4)
    assert (task.answer_context, task.metrics[0].name) == ("A:", "accuracy")
    assert task.dev is not None
    assert [one.example.id for one in task.dev(99, 0, 0)] == ["high7.txt:1"]


def test_races_schools_do_not_mix(shared_data: Path) -> None:
    for task, school in (("race_h", "high"), ("race_m", "middle")):
        episodes = make_task(task, data=DataFolder(shared_data / "eval/format_samples/race__all__0.1.0.zip")).episodes(
            99, 2, 0
        )
        assert all(one.id.startswith(school) for e in episodes for one in (e.example, *e.demonstrations))


def test_without_the_training_and_development_sets_no_article_is_both_asked_and_shown(tmp_path: Path) -> None:
    folder = tmp_path / "RACE/test/middle"
    folder.mkdir(parents=True)
    for number in range(40):
        article = {
            "id": f"middle{number}.txt",
            "article": f"Text {number}.",
            "questions": ["Who?", "What?"],
            "options": [["a", "b", "c", "d"]] * 2,
            "answers": ["A", "D"],
        }
        (folder / f"{number}.txt").write_text(json.dumps(article), encoding="utf-8")
    task = make_task("race_m", data=DataFolder(tmp_path))
    assert task.dev is None
    episodes = task.episodes(99, 3, 0)
    heads = {one.example.id.partition(":")[0] for one in episodes}
    assert len(episodes) == 2 * len(heads)
    assert not heads & {shown.id.partition(":")[0] for one in episodes for shown in one.demonstrations}


def test_the_harness_fills_races_blanks_in(tmp_path: Path) -> None:
    article = {
        "id": "high1.txt",
        "article": "Text.",
        "questions": ["I have  _  .", "Who?", "What is  _  ?"],
        "options": [["a dog", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "j", "k", "l"]],
        "answers": ["A", "B", "C"],
    }
    (tmp_path / "1.txt").write_text(json.dumps(article), encoding="utf-8")
    file = DataFolder(tmp_path).find("1.txt")
    assert file is not None
    example = read_article(file).as_harness()
    assert example.context == "Article: Text.\n\nI have a dog\nQuestion: Who?\nAnswer: f\nWhat is  _  ?"
    assert (example.completions, example.gold) == ((" i", " j", " k", " l"), 2)
