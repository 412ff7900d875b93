"""QuAC, SQuAD 2.0, CoQA, DROP and RACE, read from their original layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.drop import spans_of
from fewshot.evaluate.tasks.race import read_article
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"
ARCHIVES = {
    "quac": "quac__plain_text__1.1.0.zip",
    "squad_v2": "squad_v2__squad_v2__2.0.0.zip",
    "coqa": "coqa__1.0.0.zip",
    "drop": "drop__0.1.0.zip",
    "race_h": "race__all__0.1.0.zip",
    "race_m": "race__all__0.1.0.zip",
}


def sample(task: str, shared_data: Path) -> Task:
    return make_task(task, data=DataFolder(shared_data / "eval/format_samples" / ARCHIVES[task]))


def made_up(task: str, protocol: EvalProtocol = GPT3) -> Task:
    return make_task(task, data=DataFolder(SAMPLES / task.removesuffix("_h")), protocol=protocol)


def asked(task: Task) -> dict[str, Example]:
    """All evaluated examples by their ids, which must be unique."""
    examples = [episode.example for episode in task.episodes(99_999, 0, 0)]
    assert len({one.id for one in examples}) == len(examples)
    return {one.id: one for one in examples}


@pytest.mark.parametrize(
    ("task", "n"), [("quac", 41), ("squad_v2", 2), ("coqa", 12), ("drop", 2), ("race_h", 8), ("race_m", 14)]
)
def test_every_question_of_a_sample_is_evaluated(task: str, n: int, shared_data: Path) -> None:
    assert len(asked(sample(task, shared_data))) == n


def test_a_turn_stands_after_those_before_it_with_their_answers() -> None:
    turns = asked(made_up("quac"))
    first, second = turns["Agnes_Brown_q#0"], turns["Agnes_Brown_q#1"]
    assert first.context.startswith("TITLE: Agnes Brown - 1878-1918: At the lamp\nPARAGRAPH: Agnes Brown lit")
    assert first.context.endswith("every night.\n\nQ: When did she light it?\n\nA:")  # without the data's mark
    assert second.context == first.context + first.completions[0] + "\n\nQ: Did she marry?\n\nA:"
    assert first.completions[0] == " in 1878"  # the teacher's own
    assert len(first.references) == 3  # with repetitions, as people are left out one by one


def test_coqa_has_four_peoples_answers_and_the_harness_asks_the_last_turn_alone() -> None:
    turns = asked(made_up("coqa"))
    assert turns["madeup1:1"].references == ("Kit", "Kit the cat", "Kit", "a cat")
    last = asked(made_up("coqa", HARNESS))
    assert list(last) == ["madeup1:3", "madeup2:2"]
    assert last["madeup1:3"].context.endswith("A: no\n\nQ: What did the mouse do?\n\nA:")
    assert last["madeup1:3"].references == ("sang", "It sang.", "it sang so well")  # of "sang" and "Sang" the first


def test_half_of_squads_development_set_is_read_and_no_paragraph_is_both_asked_and_shown(shared_data: Path) -> None:
    data = DataFolder(shared_data / "eval/squad2")
    whole = asked(make_task("squad_v2", data=data, protocol=HARNESS))
    assert len(whole) == 6078  # the file holds 16 of 35 articles; the paper's set has 11,873 questions
    file = data.require("squad_v2", "dev-v2.0.json")
    assert sum(not one.references for one in whole.values()) == file.text().count('"is_impossible":true') == 3168

    task = make_task("squad_v2", data=data)
    episodes = task.episodes(99_999, 3, 0)
    assert 0.75 < len(episodes) / len(whole) < 0.85
    heads = {one.example.context.split("\n\nQ: ")[0] for one in episodes}
    assert not heads & {shown.context.split("\n\nQ: ")[0] for one in episodes for shown in one.demonstrations}


def test_squads_unanswerable_questions_are_answered_so_and_scored_so(shared_data: Path) -> None:
    task = make_task("squad_v2", data=DataFolder(shared_data / "eval/squad2"))
    example = next(one for one in asked(task).values() if not one.references)
    assert example.completions == (" unanswerable",)
    assert [metric.of([Answer(example=example, text=" unanswerable")]) for metric in task.metrics] == [1.0, 1.0]
    harness = make_task("squad_v2", data=DataFolder(shared_data / "eval/squad2"), protocol=HARNESS)
    assert harness.metrics[0].of([Answer(example=example, text=" unanswerable")]) == 0.0


def answer(
    number: str = "", spans: tuple[str, ...] = (), day: str = "", month: str = "", year: str = ""
) -> dict[str, Any]:
    return {"number": number, "spans": list(spans), "date": {"day": day, "month": month, "year": year}}


def test_drops_answers_are_numbers_spans_or_dates() -> None:
    assert spans_of(answer(number="3", spans=("x",))) == ("3",)
    assert spans_of(answer(spans=("Jones", "Smith"))) == ("Jones", "Smith")
    assert spans_of(answer(day="7", month="May", year="1945")) == ("7 May 1945",)
    assert spans_of(answer(month="May")) == ("May",)


def test_drop_shows_several_spans_with_commas_and_takes_them_back(tmp_path: Path) -> None:
    row = {"question": " Who scored? ", "query_id": "q", "answer": answer(spans=("Jones", "Smith"))}
    passage = {"p": {"passage": " A game. ", "qa_pairs": [{**row, "validated_answers": [answer(spans=("Jones",))]}]}}
    for split in ("dev", "train"):
        (tmp_path / f"drop_dataset_{split}.json").write_text(json.dumps(passage), encoding="utf-8")
    task = make_task("drop", data=DataFolder(tmp_path))
    (example,) = asked(task).values()
    assert example.context == "Passage: A game.\nQuestion: Who scored?\nAnswer:"
    assert example.completions == (" Jones, Smith", " Jones")
    assert task.metrics[1].of([Answer(example=example, text=" Smith, Jones")]) == 1.0
    (harness,) = asked(make_task("drop", data=DataFolder(tmp_path), protocol=HARNESS)).values()
    assert (harness.context, harness.completions[0]) == (" A game.   Who scored? ", "Jones,Smith")


def test_races_other_questions_are_answered_before_the_one_that_is_asked() -> None:
    task = made_up("race_h")
    second = asked(task)["high1.txt:2"]
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
        episodes = sample(task, shared_data).episodes(99, 2, 0)
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


@pytest.mark.parametrize(("task", "folder"), [("quac", "quac"), ("race_m", "race")])
def test_what_the_harness_has_not_is_refused(task: str, folder: str) -> None:
    with pytest.raises(BadValue, match=f"{task} is no task of lm-evaluation-harness"):
        make_task(task, data=DataFolder(SAMPLES / folder), protocol=HARNESS)


@pytest.mark.parametrize("task", ["quac", "squad_v2", "coqa", "drop", "race_h"])
def test_a_file_in_another_layout_is_named(task: str, tmp_path: Path) -> None:
    names = {
        "quac": "val_v0.2.json",
        "squad_v2": "dev-v2.0.json",
        "coqa": "coqa-dev-v1.0.json",
        "drop": "drop_dataset_dev.json",
        "race_h": "RACE/test/high/1.txt",
    }
    file = tmp_path / names[task]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"data": [{"title": "x", "story": "y"}]}', encoding="utf-8")
    with pytest.raises(BadFile, match=f"{file.name} is not laid out as"):
        make_task(task, data=DataFolder(tmp_path))


def test_a_demonstration_is_a_passage_whole(shared_data: Path) -> None:
    episode = sample("coqa", shared_data).episodes(1, 1, 0)[0]
    (shown,) = episode.demonstrations
    assert shown.demonstration.count("Q: ") == 20  # all turns of the training file's story
