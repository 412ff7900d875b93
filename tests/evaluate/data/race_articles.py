"""RACE's articles in the layout of the original files and of the hub."""

from __future__ import annotations


def race_article(school, number):
    problems = [("Who?", ["a", "b", "c", "d"], "B"), ("What  _  .", ["e", "f", "g", "h"], "D")]
    questions, options, answers = map(list, zip(*problems, strict=True))
    name, text = f"{school}{number}.txt", f"Text {number}."
    rows = [{"example_id": name, "article": text, "question": question, "options": four, "answer": letter}
            for question, four, letter in problems]  # fmt: skip
    return {"id": name, "article": text, "questions": questions, "options": options, "answers": answers}, rows
