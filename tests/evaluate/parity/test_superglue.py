"""Scores of `--protocol lm-eval` against lm-evaluation-harness itself: SuperGLUE, in its own folders of JSON lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewshot.bench.harness import write_rows


def boolq(made, n, path):
    rows = [
        {"passage": made.text(), "question": made.words(3, 6), "label": made.randrange(2), "idx": i} for i in range(n)
    ]
    write_rows(path, [{**row, "label": bool(row["label"])} for row in rows])
    return rows


def cb(made, n, path):
    return entailment(made, n, path, ("entailment", "contradiction", "neutral"), "")


def rte(made, n, path):
    return entailment(made, n, path, ("entailment", "not_entailment"), ".")


def entailment(made, n, path, labels, end):
    rows = [
        {
            "premise": made.text(2),
            "hypothesis": made.words(2, 5) + end,
            "label": made.randrange(len(labels)),
            "idx": i,
        }
        for i in range(n)
    ]
    write_rows(path, [{**row, "label": labels[row["label"]]} for row in rows])
    return rows


def copa(made, n, path):
    rows = [
        {
            "premise": made.sentence() + made.choice(["", " "]),
            "choice1": made.choice([made.sentence(2, 4), "The dog."]),
            "choice2": made.choice([made.sentence(2, 4), "The dog."]),
            "question": made.choice(["cause", "effect"]),
            "label": made.randrange(2),
            "idx": i,
        }
        for i in range(n)
    ]
    write_rows(path, rows)
    return rows


def wic(made, n, path):
    rows = []
    for i in range(n):
        starts, sentences = [], []
        for form in ("run", "runs"):
            before = made.words(1, 4).capitalize() + " "
            starts.append((len(before), len(before) + len(form)))
            sentences.append(f"{before}{form} {made.words(1, 3)}.")
        (start1, end1), (start2, end2) = starts
        rows.append({"word": "run", "sentence1": sentences[0], "sentence2": sentences[1], "start1": start1,
                     "start2": start2, "end1": end1, "end2": end2, "label": made.randrange(2), "idx": i})  # fmt: skip
    write_rows(path, [{**row, "label": bool(row["label"])} for row in rows])
    return rows


def wsc(made, n, path):
    """Texts with the file's spaces before marks, quotations and parentheses."""
    rows = []
    for i in range(n):
        first = [made.choice(["Bob", "the dog", "Edward 's cat"]), "did n't", "see ( or hear ) it ,", made.words(1, 4)]
        pronoun = made.choice(["he", "it", "their"])
        before = " ".join(first).split()
        text = " ".join([*before, pronoun, made.choice(['said " no " .', "ran .", made.words(1, 3) + "."])])
        target = {
            "span1_index": 0,
            "span1_text": first[0],
            "span2_index": len(before),
            "span2_text": pronoun,
        }
        rows.append({"text": text, "label": made.randrange(2), "idx": i, **target})
    spans = ("span1_index", "span1_text", "span2_index", "span2_text")
    write_rows(
        path,
        [
            {
                "text": row["text"],
                "idx": row["idx"],
                "label": bool(row["label"]),
                "target": {key: row[key] for key in spans},
            }
            for row in rows
        ],
    )
    return rows


def multirc(made, n, path):
    passages, rows = [], []
    for i in range(n // 3):
        text = made.text()
        questions = [
            {
                "question": made.sentence(),
                "idx": j,
                "answers": [{"text": made.words(1, 3), "label": made.randrange(2), "idx": k} for k in range(3)],
            }
            for j in range(2)
        ]
        passages.append({"idx": i, "passage": {"text": text, "questions": questions}})
        rows += [
            {
                "paragraph": text,
                "question": question["question"],
                "answer": answer["text"],
                "label": answer["label"],
                "idx": {"paragraph": i, "question": question["idx"], "answer": answer["idx"]},
            }
            for question in questions
            for answer in question["answers"]
        ]
    write_rows(path, passages)
    return rows


def record(made, n, path):
    articles, rows = [], []
    for i in range(n // 2):
        text = made.text() + "".join(f"\n@highlight\n{made.words(3, 6)}" for _ in range(2))
        words = sorted({made.choice(text.split()) for _ in range(4)})
        named = [*words, words[0]]
        entities = [{"start": text.index(word), "end": text.index(word) + len(word) - 1} for word in named]
        spans = {"text": named, "start": [text.index(word) for word in named],
                 "end": [text.index(word) + len(word) for word in named]}  # fmt: skip
        made.shuffle(entities)
        qas = []
        for j in range(2):
            answers = [made.choice(named) for _ in range(2)]
            query = f"{made.words(2, 4)} @placeholder {made.words(1, 3)}"
            qas.append({"idx": j, "query": query, "answers": [{"text": one} for one in answers]})
            rows.append({"passage": text, "query": query, "entities": words, "entity_spans": spans,
                         "answers": sorted(set(answers)), "idx": {"passage": i, "query": j}})  # fmt: skip
        articles.append({"idx": i, "passage": {"text": text, "entities": entities}, "qas": qas})
    write_rows(path, articles)
    return rows


FOLDERS = {"boolq": "BoolQ", "cb": "CB", "copa": "COPA", "rte": "RTE", "wic": "WiC", "wsc": "WSC",
           "multirc": "MultiRC", "record": "ReCoRD"}  # fmt: skip
MAKERS = {one.__name__: one for one in (boolq, cb, copa, rte, wic, wsc, multirc, record)}


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", FOLDERS)
def test_every_score_is_the_harnesss_own_for_any_batch_size(parity, name, shots):
    splits = {"validation": f"{FOLDERS[name]}/val.jsonl", "train": f"{FOLDERS[name]}/train.jsonl"}
    parity(name, f"super_glue/{name}/default.yaml", splits, MAKERS[name], shots=shots)


def right_ones(example):
    """ReCoRD's choices, the right ones first: the hub orders entities otherwise, and answers, one of which is shown."""
    if len(example.completions) == 1:
        return replace(example, completions=("a right one",))
    right = {example.completions[one] for one in (example.gold, *example.also_right)}
    choices = sorted(example.completions, key=lambda one: (one not in right, one))
    return replace(example, completions=choices, gold=0, also_right=range(1, len(right)), references=None)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_hubs_rows_make_the_episodes_of_the_original_files(from_hub, name):
    splits = {"validation": f"{FOLDERS[name]}/val.jsonl", "train": f"{FOLDERS[name]}/train.jsonl"}
    same = right_ones if name == "record" else lambda example: example
    from_hub(name, f"super_glue/{name}/default.yaml", splits, MAKERS[name], same=same)
