"""Scores of `--protocol lm-eval` against lm-evaluation-harness itself: tasks of choosing and of a likely last word."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import pytest

from fewshot.bench.harness import write_rows
from fewshot.evaluate.tasks.story_cloze import COLUMNS


def lambada(made, n, path):
    rows = [{"text": made.words(4, 30)} for _ in range(n)]
    write_rows(path, rows)
    return rows


def hellaswag(made, n, path):
    rows = [
        {
            "ind": i,
            "activity_label": made.words(2, 2).capitalize(),
            "ctx_a": f"{made.words(8, 8)} [title] {made.words(3, 3)}.",
            "ctx_b": made.words(3, 3),
            "ctx": "",
            "endings": [f"{made.words(1, 8)} [step] on." for _ in range(4)],
            "label": str(made.randrange(4)),
        }
        for i in range(n)
    ]
    write_rows(path, rows)
    return rows


def arithmetic(made, n, path):
    pairs = [(made.randrange(100), made.randrange(100)) for _ in range(n)]
    right = [made.choice([f" {a + b}", " 12"]) for a, b in pairs]
    rows = [
        {"context": f"\n\nQ: What is {a} plus {b}?\n\nA:", "completion": answer}
        for (a, b), answer in zip(pairs, right, strict=True)
    ]
    write_rows(path, rows)
    return rows


def story_cloze(made, n, path):
    stories = [[f"id{i}", *(made.sentence() for _ in range(6)), made.choice("12")] for i in range(n)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *stories])
    names = ("story_id", *(f"input_sentence_{i}" for i in (1, 2, 3, 4)), "sentence_quiz1", "sentence_quiz2")
    return [dict(zip((*names, "answer_right_ending"), (*story[:-1], int(story[-1])), strict=True)) for story in stories]


def winograd(made, n, path):
    collection, rows = ElementTree.Element("collection"), []
    for i in range(n):
        before = made.choice(["", made.sentence(), f"{made.sentence()} {made.words(2, 4)}", made.words(3, 6) + ","])
        before = " ".join(before.split())
        pronoun, after = made.choice(["he", "it", "his", "They", "Their"]), made.words(2, 5) + "."
        options = [f"{made.choice(['The', 'A', 'Bob', 'the'])} {made.words(1, 2)}" for _ in range(2)]
        label = made.randrange(2)
        schema = ElementTree.SubElement(collection, "schema")
        text = ElementTree.SubElement(schema, "text")
        for part, value in (("txt1", f"\n  {before}\n"), ("pron", pronoun), ("txt2", f" {after} ")):
            ElementTree.SubElement(text, part).text = value
        answers = ElementTree.SubElement(schema, "answers")
        for option in options:
            ElementTree.SubElement(answers, "answer").text = f"\n{option} "
        ElementTree.SubElement(schema, "correctAnswer").text = f" {'AB'[label]}. "
        start = f"{before} " if before else ""
        rows.append({"text": f"{start}{pronoun} {after}", "pronoun": pronoun, "pronoun_loc": len(start),
                     "options": options, "label": label, "source": str(i)})  # fmt: skip
    ElementTree.ElementTree(collection).write(path)
    return rows


def winogrande(made, n, path):
    rows = [
        {
            "sentence": f"{made.words(2, 6).capitalize()} _ {made.words(2, 5)}.",
            "option1": made.words(1, 2),
            "option2": made.words(1, 2),
            "answer": made.choice("12"),
        }
        for _ in range(n)
    ]
    write_rows(path, [{"qID": str(i), **row} for i, row in enumerate(rows, start=1)])  # the hub's copy has none
    return rows


def piqa(made, n, path):
    rows = [
        {
            "goal": made.choice([made.sentence(), f" {made.words(2, 6)} "]),
            "sol1": made.sentence(),
            "sol2": made.sentence() + " ",
            "label": made.randrange(2),
        }
        for _ in range(n)
    ]
    write_rows(path, [{key: row[key] for key in ("goal", "sol1", "sol2")} for row in rows])
    path.with_name(f"{path.stem}-labels.lst").write_text("".join(f"{row['label']}\n" for row in rows))
    return rows


def pupils(made, n, path):
    rows, original = [], []
    for i in range(n):
        labels = made.choice(["ABCD", "1234", "ABC"])
        texts, key, stem = [made.words(1, 5) for _ in labels], made.choice(labels), made.sentence()
        rows.append({"id": f"q{i}", "question": stem, "question_stem": stem, "answerKey": key,
                     "choices": {"text": texts, "label": list(labels)}})  # fmt: skip
        choices = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        original.append({"id": f"q{i}", "question": {"stem": stem, "choices": choices}, "answerKey": key})
    write_rows(path, original)
    return rows


def anli(made, n, path):
    rows = [
        {"uid": f"u{i}", "premise": made.text(2), "hypothesis": made.sentence(), "label": made.randrange(3)}
        for i in range(n)
    ]
    write_rows(
        path,
        [
            {
                "uid": row["uid"],
                "context": row["premise"],
                "hypothesis": row["hypothesis"],
                "label": "enc"[row["label"]],
            }
            for row in rows
        ],
    )
    return rows


def web_questions(made, n, path):
    rows = []
    for i in range(n):
        answers = [made.words(1, 1) for _ in range(made.randint(1, 3))]
        longer = f"{answers[0]} {made.words(1, 1)}"
        rows.append({"url": str(i), "question": made.sentence(), "answers": [*answers, longer]})
    listed = ["".join(f'(description "{answer}") ' for answer in row["answers"]) for row in rows]
    original = [
        {"url": row["url"], "utterance": row["question"], "targetValue": f"(list {answers.strip()})"}
        for row, answers in zip(rows, listed, strict=True)
    ]
    path.write_text(json.dumps(original))
    return rows


def race(made, n, path):
    path.mkdir()
    rows = []
    for i in range(n):
        questions = [made.choice([made.sentence(), f"{made.words(2, 4)}  _  ."]) for _ in range(made.randint(1, 3))]
        options = [[made.words(1, 4) for _ in range(4)] for _ in questions]
        answers = [made.choice("ABCD") for _ in questions]
        problems = [
            {"question": question, "answer": answer, "options": four}
            for question, answer, four in zip(questions, answers, options, strict=True)
        ]
        row = {"example_id": f"high{i}.txt", "article": made.text(4), "problems": str(problems)}
        original = {"id": row["example_id"], "article": row["article"], "questions": questions, "options": options}
        (path / f"{i:02}.txt").write_text(json.dumps({**original, "answers": answers}))
        rows.append(row)
    return rows


def arc(name):
    return {
        split: f"{name}-{part}.jsonl" for split, part in (("test", "Test"), ("train", "Train"), ("validation", "Dev"))
    }


def anli_round(number):
    return {f"{split}_r{number}": f"R{number}/{split}.jsonl" for split in ("test", "train", "dev")}


OPENBOOK = {"test": "Main/test.jsonl", "train": "Main/train.jsonl", "validation": "Main/dev.jsonl"}
HELLASWAG = {"validation": "hellaswag_val.jsonl", "train": "hellaswag_train.jsonl"}
STORIES = {
    split: f"cloze_test_{part}__spring2016 - cloze_test_ALL_{part}.csv"
    for split, part in (("test", "test"), ("validation", "val"))
}
WINOGRANDE = {"validation": "winogrande_1.1/dev.jsonl", "train": "winogrande_1.1/train_xl.jsonl"}
PIQA = {"validation": "physicaliqa-train-dev/dev.jsonl", "train": "physicaliqa-train-dev/train.jsonl"}
WEB = {"test": "webquestions.examples.test.json", "train": "webquestions.examples.train.json"}
CASES = {
    "hellaswag": ("hellaswag/hellaswag.yaml", HELLASWAG, hellaswag),
    "lambada": ("lambada/lambada_openai.yaml", {"test": "lambada_test.jsonl"}, lambada),
    "arithmetic_2d_add": ("arithmetic/arithmetic_2da.yaml", {"validation": "two_digit_addition.jsonl"}, arithmetic),
    "story_cloze": ("storycloze/storycloze_2016.yaml", STORIES, story_cloze),
    "winograd": ("wsc273/default.yaml", {"test": "WSCollection.xml"}, winograd),
    "winogrande": ("winogrande/default.yaml", WINOGRANDE, winogrande),
    "piqa": ("piqa/piqa.yaml", PIQA, piqa),
    "arc_easy": ("arc/arc_easy.yaml", arc("ARC-Easy"), pupils),
    "arc_challenge": ("arc/arc_challenge.yaml", arc("ARC-Challenge"), pupils),
    "openbookqa": ("openbookqa/openbookqa.yaml", OPENBOOK, pupils),
    "race_h": ("race/race.yaml", {"test": "RACE/test/high"}, race),
    "anli_r1": ("anli/anli_r1.yaml", anli_round(1), anli),
}


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_score_is_the_harnesss_own_for_any_batch_size(parity, name, shots):
    parity(name, *CASES[name], shots=shots)


@pytest.mark.parametrize("number", [2, 3])
def test_anlis_other_rounds_are_met_too(parity, number):
    parity(f"anli_r{number}", f"anli/anli_r{number}.yaml", anli_round(number), anli, shots=2)


def test_web_questions_are_met_without_demonstrations_with_which_the_harness_itself_fails(parity):
    case = ("webqs/webqs.yaml", WEB, web_questions)
    parity("web_questions", *case, shots=0)
    with pytest.raises(AssertionError, match="Answer is not a string"):
        parity("web_questions", *case, shots=1)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("story_cloze", "race_h")])
def test_the_hubs_rows_make_the_episodes_of_the_original_files(from_hub, name):
    from_hub(name, *CASES[name])


def test_the_harnesss_copy_of_race_makes_the_same_episodes(from_hub):
    from_hub("race_h", *CASES["race_h"], protocols=["lm-eval"])


@pytest.mark.parametrize("number", [2, 3])
def test_the_hubs_rows_of_anlis_other_rounds_make_the_same_episodes(from_hub, number):
    from_hub(f"anli_r{number}", f"anli/anli_r{number}.yaml", anli_round(number), anli)


def test_the_hubs_web_questions_make_the_same_episodes(from_hub):
    from_hub("web_questions", "webqs/webqs.yaml", WEB, web_questions)
