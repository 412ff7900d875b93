"""The hub's rows, written in the original layouts."""

from __future__ import annotations

import json

from race_articles import race_article

from fewshot.evaluate.data.hub_layouts import coqa, race_as_harness, record


def test_the_harnesss_copy_of_race_keeps_its_order():
    original, (first, second) = race_article("high", 2)
    problems = [{key: row[key] for key in ("question", "options", "answer")} for row in (first, second)]
    row = {"example_id": "high2.txt", "article": "Text 2.", "problems": str(problems)}
    articles = race_as_harness([row, {**row, "example_id": "high1.txt"}])
    assert [json.loads(text)["id"] for text in articles.values()] == ["high2.txt", "high1.txt"]
    assert json.loads(articles["00001.txt"]) == original


def test_coqas_placeholders_are_no_answers():
    turns = {"input_text": ["Who?", "Why?"], "turn_id": [1, 2]}
    nobody = {"input_text": [""], "turn_id": [-1]}
    row = {"id": "a", "story": "S", "questions": turns, "answers": turns}
    (story,) = json.loads(coqa([{**row, "additional_answers": {"0": nobody, "1": turns}}]))["data"]
    assert story["additional_answers"] == {
        "1": [{"input_text": "Who?", "turn_id": 1}, {"input_text": "Why?", "turn_id": 2}]
    }


def test_entities_without_spans_stand_where_the_article_first_names_them():
    row = {"passage": "Bob met Ann. Ann left.", "query": "@placeholder left", "entities": ["Ann", "Bob"],
           "answers": ["Ann"], "idx": {"passage": 0, "query": 0}}  # fmt: skip
    assert json.loads(record([row]))["passage"]["entities"] == [{"start": 0, "end": 2}, {"start": 8, "end": 10}]
