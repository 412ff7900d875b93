"""Scores of `--protocol lm-eval` against lm-evaluation-harness itself: tasks in which the model writes the answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fewshot.bench.harness import write_rows
from fewshot.evaluate.data.file_names import DIRECTIONS, file_pairs


def scramble(made, n, path):
    words = [made.choice([made.words(1, 1), "12 the dog"]) for _ in range(n)]
    rows = [{"context": f"\n{word[3:] + word[:3]} {i} =", "completion": f" {word}"} for i, word in enumerate(words)]
    write_rows(path, rows)
    return rows


def nq_open(made, n, path):
    rows = [
        {"question": made.words(3, 6), "answer": [made.words(1, 2) for _ in range(made.randint(1, 3))]}
        for _ in range(n)
    ]
    write_rows(path, rows)
    return rows


def trivia_qa(made, n, path):
    original, rows = [], []
    for i in range(n):
        aliases = [made.words(1, 2) for _ in range(made.randint(1, 4))]
        question = made.sentence()
        original.append(
            {
                "Question": f" {question} ",
                "QuestionId": f"q{i}",
                "Answer": {"Value": "V", "Aliases": aliases, "HumanAnswers": ["H"]},
            }
        )
        rows.append(
            {"question": question.strip(), "question_id": f"q{i}", "answer": {"aliases": aliases, "value": "V"}}
        )
    path.write_text(json.dumps({"Data": original}))
    return rows


def drop(made, n, path):
    passages, rows = {}, []
    for i in range(n // 2):
        passage, pairs = made.text(), []
        for j in range(2):
            answers = [drop_answer(made) for _ in range(made.randint(1, 3))]
            name, question = f"q{i}:{j}", made.sentence()
            pairs.append({"question": question, "query_id": name, "answer": answers[0],
                          "validated_answers": answers[1:]})  # fmt: skip
            validated = {key: [one[key] for one in answers[1:]] for key in answers[0]}
            rows.append({"section_id": str(i), "passage": passage, "question": question, "query_id": name,
                         "answer": answers[0], "validated_answers": validated})  # fmt: skip
        passages[f"nfl_{i}"] = {"passage": passage, "qa_pairs": pairs}
    path.write_text(json.dumps(passages))
    return rows


def drop_answer(made):
    """A number, one or two spans, or a date, in the data's own order of fields."""
    kind = made.randrange(3)
    date = {"day": "", "month": "", "year": ""} if kind else {"day": "7", "month": made.words(1, 1), "year": "12"}
    return {
        "number": made.choice(["7", "12", "3.5"]) if kind == 1 else "",
        "date": date,
        "spans": [made.words(1, 2) for _ in range(made.randint(1, 2))] if kind == 2 else [],
        "worker_id": "w",
        "hit_id": "h",
    }


def coqa(made, n, path):
    """Stories for training have no additional answers; see the task's notes."""
    stories, rows = [], []
    for i in range(n):
        n_turns = made.randint(1, 3)

        def answers(n_turns=n_turns):
            return [{"input_text": made.choice([made.words(1, 2), "Yes"]), "turn_id": t + 1} for t in range(n_turns)]

        story = {
            "id": f"s{i}",
            "source": "x",
            "story": made.text(),
            "questions": [{"input_text": made.sentence(), "turn_id": turn + 1} for turn in range(n_turns)],
            "answers": answers(),
        }
        others = {} if "train" in path.name else {"additional_answers": {str(k): answers() for k in range(3)}}
        stories.append({**story, **others})
        columns = {key: in_columns(story[key]) for key in ("questions", "answers")}
        others = {key: {k: in_columns(v) for k, v in value.items()} for key, value in others.items()}
        rows.append({**story, **columns, "additional_answers": others.get("additional_answers")})
    path.write_text(json.dumps({"data": stories}))
    return rows


def in_columns(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


def squad_v2(made, n, path):
    articles, rows = [], []
    for i in range(n // 2):
        title, context, qas = made.words(1, 2), made.text(), []
        for j in range(2):
            accepted = [{"text": made.words(1, 3), "answer_start": 0} for _ in range(made.choice([0, 1, 3]))]
            qas.append({"id": f"{i}:{j}", "question": made.sentence(), "answers": accepted,
                        "is_impossible": not accepted})  # fmt: skip
            answers = {key: [one[key] for one in accepted] for key in ("text", "answer_start")}
            row = {key: qas[-1][key] for key in ("id", "question")}
            rows.append({**row, "title": title, "context": context, "answers": answers})
        articles.append({"title": title, "paragraphs": [{"context": context, "qas": qas}]})
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return rows


def translation(name, made, n, path, *, plain="dev"):
    """Pairs of a test or development set, as SGML or, of newsdev, as plain lines."""
    direction = DIRECTIONS[name]
    rows = [{"translation": {one: made.sentence().rstrip() for one in ("en", direction.foreign)}} for _ in range(n)]
    for language in ("en", direction.foreign):
        texts = [row["translation"][language] for row in rows]
        if plain in path.name:
            path.with_name(f"{path.name}.{language}").write_text("".join(f"{text}\n" for text in texts))
            continue
        kind = "src" if language == direction.source else "ref"
        file = f"{path.name}-{direction.source}{direction.target}-{kind}.{language}.sgm"
        segments = "\n".join(f'<seg id="{i}">{text}</seg>' for i, text in enumerate(texts))
        path.with_name(file).write_text(f'<refset setid="x">\n<doc docid="1">\n<p>\n{segments}\n</p></doc></refset>')
    return rows


CASES = {
    "nq_open": ("nq_open/nq_open.yaml", {"validation": "NQ-open.dev.jsonl", "train": "NQ-open.train.jsonl"}, nq_open),
    "trivia_qa": (
        "triviaqa/default.yaml",
        {"validation": "wikipedia-dev.json", "train": "wikipedia-train.json"},
        trivia_qa,
    ),
    "drop": ("drop/default.yaml", {"validation": "drop_dataset_dev.json", "train": "drop_dataset_train.json"}, drop),
    "coqa": ("coqa/default.yaml", {"validation": "coqa-dev-v1.0.json", "train": "coqa-train-v1.0.json"}, coqa),
    "scramble_cl": ("unscramble/cycle_letters.yaml", {"validation": "cycle_letters_in_word.jsonl"}, scramble),
}


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_score_is_the_harnesss_own_for_any_batch_size(parity, name, shots):
    parity(name, *CASES[name], shots=shots)


@pytest.mark.parametrize(("name", "shots"), [("wmt14_fr_en", 0), *((name, 2) for name in DIRECTIONS)])
def test_every_score_of_a_translation_is_the_harnesss_own(parity, name, shots):
    direction = DIRECTIONS[name]
    splits = {"test": direction.test, "validation": direction.dev}
    yaml = f"translation/{name[:5]}_{direction.source}-{direction.target}.yaml"
    parity(name, yaml, splits, lambda *made: translation(name, *made), shots=shots)


def squad_score(references, prediction, judge):
    """The best over the accepted answers; without any, nothing should be said. Source: SQuAD 2.0's official script."""
    return max(judge(right, prediction) for right in references["text"] or [""])


@pytest.fixture
def squad_class(monkeypatch, squad_metrics):
    """The harness's class with what it lacks here: local data, forms of demonstrations, the hub's measure."""
    datasets = pytest.importorskip("datasets")
    task = pytest.importorskip("lm_eval.tasks.squadv2.task")

    def metric(predictions, references):
        pairs = [(p["prediction_text"], r["answers"]) for p, r in zip(predictions, references, strict=True)]
        found = {}
        for kind, chosen in (
            ("", pairs),
            ("HasAns_", [one for one in pairs if one[1]["text"]]),
            ("NoAns_", [one for one in pairs if not one[1]["text"]]),
        ):
            for name, judge in (("exact", squad_metrics.compute_exact), ("f1", squad_metrics.compute_f1)):
                found[kind + name] = 100 * sum(squad_score(r, p, judge) for p, r in chosen) / len(chosen)
        return found

    class Local(task.SQuAD2):
        def __init__(self, config):
            self.files = config["dataset_kwargs"]
            super().__init__()

        def download(self, dataset_kwargs=None):
            self.dataset = datasets.load_dataset("json", **self.files)

        def doc_to_text(self, doc, form=None):
            return super().doc_to_text(doc)

        def doc_to_target(self, doc, form=None):
            return super().doc_to_target(doc)

    monkeypatch.setattr(task, "_squad_metric", metric)
    return Local


@pytest.mark.parametrize("shots", [0, 3])
def test_every_score_of_squad_is_the_harnesss_own_save_those_by_a_threshold(parity, squad_class, shots):
    splits = {"validation": "dev-v2.0.json", "train": "train-v2.0.json"}
    parity("squad_v2", "squadv2/squadv2.yaml", splits, squad_v2, shots=shots, without=("best_exact", "best_f1"),
           **{"class": squad_class})  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name != "trivia_qa"])
def test_the_hubs_rows_make_the_episodes_of_the_original_files(from_hub, name):
    from_hub(name, *CASES[name])


def test_the_hubs_trivia_makes_the_same_episodes_save_for_human_answers(from_hub):
    def same(example):
        return replace(example, completions=tuple(one for one in example.completions if one != " H"))

    wikipedia = CASES["trivia_qa"][1]
    web = {"web/validation": "web-dev.json", "web/train": "web-train.json"}
    from_hub("trivia_qa", None, wikipedia | web, trivia_qa, same=same)


def test_the_hubs_squad_makes_the_same_episodes(from_hub):
    from_hub("squad_v2", None, {"validation": "dev-v2.0.json", "train": "train-v2.0.json"}, squad_v2)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_hubs_sentence_pairs_make_the_same_episodes(from_hub, name):
    direction = DIRECTIONS[name]
    splits = {"test": direction.test, "validation": direction.dev}
    yaml = f"translation/{name[:5]}_{direction.source}-{direction.target}.yaml"
    hub_files = {split: next(file_pairs(stem, direction))[0] for split, stem in splits.items()}
    from_hub(name, yaml, splits, lambda *made: translation(name, *made, plain="none"), hub_files=hub_files)
