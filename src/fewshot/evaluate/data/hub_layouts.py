"""Rows of the hub's repositories, written in the layout of the original files. In: rows. Out: a file's text.

What a repository has left out of an original file cannot be restored: Winogrande's qID (its rows are numbered instead),
TriviaQA's human answers, and the order of ReCoRD's answers. Knows no task and no library.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

HubRow = Mapping[str, Any]
Rows = Sequence[HubRow]
WriteRows = Callable[[Rows], str]


def json_lines(rows: Rows) -> str:
    """Return the rows as they are, as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def change_rows(change: Callable[[HubRow], HubRow]) -> WriteRows:
    """Return a function that writes JSON lines of what `change` makes of each row."""
    return lambda rows: json_lines([change(row) for row in rows])


def with_label_names(*labels: Any) -> WriteRows:
    """Return a function that writes the rows as JSON lines, each number of a label replaced by the label."""
    return change_rows(lambda row: {**row, "label": labels[row["label"]]})


def join_field(field: str) -> WriteRows:
    """Return a function that writes the texts of one field, each on lines of its own."""
    return lambda rows: "\n".join(row[field] for row in rows)


def label_lines(rows: Rows) -> str:
    """Return the labels, one a line, which PIQA keeps in a file beside the rows."""
    return "".join(f"{row['label']}\n" for row in rows)


def numbered(rows: Rows) -> str:
    """Return Winogrande's rows as JSON lines, with a number for the qID."""
    return json_lines([{"qID": str(number), **row} for number, row in enumerate(rows, start=1)])


def in_rows(value: Any) -> list[dict[str, Any]]:
    """Return the value as a list of objects; the library stores some as an object of lists."""
    if isinstance(value, Mapping):
        return [dict(zip(value, fields, strict=True)) for fields in zip(*value.values(), strict=True)]
    return [dict(item) for item in value]


def grouped(rows: Rows, key: Callable[[HubRow], Any]) -> Iterator[list[HubRow]]:
    """Yield the neighbouring rows that have the same key, together."""
    return (list(group) for _, group in groupby(rows, key))


def pupils(row: HubRow) -> HubRow:
    """Return the row of a question of ARC or OpenBookQA."""
    stem = row["question_stem"] if "question_stem" in row else row["question"]
    return {
        "id": row["id"],
        "question": {"stem": stem, "choices": in_rows({key: row["choices"][key] for key in ("text", "label")})},
        "answerKey": row["answerKey"],
    }


def anli(row: HubRow) -> HubRow:
    """Return the row of a pair of ANLI."""
    texts = {"context": row["premise"], "hypothesis": row["hypothesis"]}
    return {"uid": row["uid"], **texts, "label": "enc"[row["label"]]}


def wsc(row: HubRow) -> HubRow:
    """Return the row of a passage of SuperGLUE's WSC."""
    target = {key: row[key] for key in ("span1_index", "span1_text", "span2_index", "span2_text")}
    return {"text": row["text"], "idx": row["idx"], "label": bool(row["label"]), "target": target}


def multirc(rows: Rows) -> str:
    """Return MultiRC's passages, a row of the hub being one answer."""
    return json_lines([_multirc_passage(passage) for passage in grouped(rows, lambda row: row["idx"]["paragraph"])])


def _multirc_passage(rows: Rows) -> HubRow:
    questions = [
        {
            "question": answers[0]["question"],
            "idx": answers[0]["idx"]["question"],
            "answers": [{"text": row["answer"], "label": row["label"], "idx": row["idx"]["answer"]} for row in answers],
        }
        for answers in grouped(rows, lambda row: row["idx"]["question"])
    ]
    return {"idx": rows[0]["idx"]["paragraph"], "passage": {"text": rows[0]["paragraph"], "questions": questions}}


def record(rows: Rows) -> str:
    """Return ReCoRD's articles, a row of the hub being one query; an entity's end is the place of its last letter."""
    articles = []
    for queries in grouped(rows, lambda row: row["idx"]["passage"]):
        first = queries[0]
        qas = [
            {
                "idx": row["idx"]["query"],
                "query": row["query"],
                "answers": [{"text": answer} for answer in row["answers"]],
            }
            for row in queries
        ]
        passage = {"text": first["passage"], "entities": sorted(_mentions(first), key=lambda span: span["start"])}
        articles.append({"idx": first["idx"]["passage"], "passage": passage, "qas": qas})
    return json_lines(articles)


def _mentions(row: HubRow) -> list[dict[str, int]]:
    """Return the places of the entities; older copies have only their texts, of which the first places are taken."""
    if "entity_spans" in row:
        return [{"start": span["start"], "end": span["end"] - 1} for span in in_rows(row["entity_spans"])]
    starts = {entity: row["passage"].index(entity) for entity in row["entities"]}
    return [{"start": start, "end": start + len(entity) - 1} for entity, start in starts.items()]


def web_questions(rows: Rows) -> str:
    """Return WebQuestions in the layout of its later files, which need no quotation marks around answers."""
    return json.dumps([{"qText": row["question"], "answers": row["answers"]} for row in rows])


def trivia_qa(rows: Rows) -> str:
    """Return TriviaQA's questions, without documents."""
    data = [
        {
            "Question": row["question"],
            "QuestionId": row["question_id"],
            "Answer": {"Value": row["answer"]["value"], "Aliases": row["answer"]["aliases"]},
        }
        for row in rows
    ]
    return json.dumps({"Data": data})


def squad(rows: Rows) -> str:
    """Return SQuAD's articles, a row of the hub being one question."""
    articles = [
        {
            "title": article[0]["title"],
            "paragraphs": [
                {"context": questions[0]["context"], "qas": [_squad_question(row) for row in questions]}
                for questions in grouped(article, lambda row: row["context"])
            ],
        }
        for article in grouped(rows, lambda row: row["title"])
    ]
    return json.dumps({"version": "v2.0", "data": articles})


def _squad_question(row: HubRow) -> HubRow:
    answers = in_rows(row["answers"])
    return {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": not answers}


def coqa(rows: Rows) -> str:
    """Return CoQA's stories; for other people's answers those for training have a -1, or nothing."""
    stories = []
    for row in rows:
        people = {name: in_rows(given) for name, given in (row.get("additional_answers") or {}).items()}
        others = {name: given for name, given in people.items() if all(turn["turn_id"] != -1 for turn in given)}
        turns = {key: in_rows(row[key]) for key in ("questions", "answers")}
        stories.append({"id": row["id"], "story": row["story"], **turns, "additional_answers": others})
    return json.dumps({"data": stories})


def quac(rows: Rows) -> str:
    """Return QuAC's dialogues."""
    return json.dumps({"data": [_quac_dialogue(row) for row in rows]})


def _quac_dialogue(row: HubRow) -> HubRow:
    given, first = row["answers"]["texts"], row["orig_answers"]["texts"]
    turns = zip(row["turn_ids"], row["questions"], given, first, strict=True)
    qas = [
        {
            "id": name,
            "question": question,
            "answers": [{"text": text} for text in answers],
            "orig_answer": {"text": own},
        }
        for name, question, answers, own in turns
    ]
    titles = {"title": row["wikipedia_page_title"], "section_title": row["section_title"]}
    return {**titles, "paragraphs": [{"id": row["dialogue_id"], "context": row["context"], "qas": qas}]}


def drop(rows: Rows) -> str:
    """Return DROP's passages, a row of the hub being one question."""
    passages = {}
    for questions in grouped(rows, lambda row: row["section_id"]):
        pairs = [
            {
                "question": row["question"],
                "query_id": row["query_id"],
                "answer": row["answer"],
                "validated_answers": in_rows(row["validated_answers"]),
            }
            for row in questions
        ]
        passages[questions[0]["section_id"]] = {"passage": questions[0]["passage"], "qa_pairs": pairs}
    return json.dumps(passages)


def segments(language: str) -> WriteRows:
    """Return a function that writes one side of WMT's pairs as SGML, whose entities the hub leaves as they are."""
    return lambda rows: "\n".join(
        f'<seg id="{number}">{row["translation"][language]}</seg>' for number, row in enumerate(rows, start=1)
    )


def winograd(rows: Rows) -> str:
    """Return the collection of Winograd schemas as XML."""
    collection = ElementTree.Element("collection")
    for row in rows:
        schema = ElementTree.SubElement(collection, "schema")
        text, after = row["text"], row["pronoun_loc"] + len(row["pronoun"])
        parts = {"txt1": text[: row["pronoun_loc"]], "pron": row["pronoun"], "txt2": text[after:]}
        _add(ElementTree.SubElement(schema, "text"), *parts.items())
        _add(ElementTree.SubElement(schema, "answers"), *(("answer", option) for option in row["options"]))
        _add(schema, ("correctAnswer", "AB"[row["label"]]))
    return ElementTree.tostring(collection, encoding="unicode")


def _add(element: ElementTree.Element, *parts: tuple[str, str]) -> None:
    for name, text in parts:
        ElementTree.SubElement(element, name).text = text


def race(rows: Rows) -> dict[str, str]:
    """Return RACE's articles by the names of their files, in their order; a row of the hub is one question."""
    articles = {}
    for problems in grouped(rows, lambda row: row["example_id"]):
        name, article = problems[0]["example_id"], problems[0]["article"]
        articles[name] = _race_article(name, article, problems)
    return dict(sorted(articles.items()))


def race_as_harness(rows: Rows) -> dict[str, str]:
    """Return RACE's articles in the order of the harness's own copy, whose problems are written as Python."""
    return {
        f"{number:05}.txt": _race_article(
            row.get("example_id", f"{number}"), row["article"], ast.literal_eval(row["problems"])
        )
        for number, row in enumerate(rows, start=1)
    }


def _race_article(name: str, article: str, problems: Rows) -> str:
    columns = {
        "questions": [problem["question"] for problem in problems],
        "options": [problem["options"] for problem in problems],
        "answers": [problem["answer"] for problem in problems],
    }
    return json.dumps({"id": name, "article": article, **columns})
