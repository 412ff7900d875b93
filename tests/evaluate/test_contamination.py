from __future__ import annotations

import json

import pytest

from fewshot.base.errors import BadValue
from fewshot.corpus.document import Document
from fewshot.corpus.sources import read_documents
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.contamination import (
    CleanDirtyScores,
    Contamination,
    Overlap,
    SubsetScore,
    compared_text,
    find_contamination,
    gram_length,
    split_results,
)
from fewshot.evaluate.data.files import DataFolder, read_released
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, accuracy, mean_of, perplexity, wilson_interval
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.hellaswag import make_hellaswag
from fewshot.evaluate.tasks.lambada import read_lambada
from fewshot.evaluate.tasks.table import make_task

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def documents(*texts: str) -> list[Document]:
    return [Document(id=f"d{i}", text=text, source="test") for i, text in enumerate(texts)]


def spelled(n: int, start: int = 0) -> str:
    """n one-letter words, the alphabet again and again."""
    return " ".join(ALPHABET[(start + i) % 26] for i in range(n))


def n_words(examples: list[Example], task: str) -> int:
    return find_contamination({task: examples}, [], synthetic=("scramble_cl", "scramble_ri"))[task].n_words


def test_the_text_of_an_example_is_its_question_with_the_right_answer():
    assert compared_text(Example("e", "Q: one?\nA:", (" no", " yes"), 1)) == "Q: one?\nA: yes"
    assert compared_text(Example("w", "", (" big.",) * 2, 1, contexts=("the trophy was", "it was"))) == "it was big."
    cloze = Example("l", "a friend ____. ->", (" Bob",), zero_shot=Example("l", "a friend", (" Bob",)))
    assert compared_text(cloze) == "a friend Bob"


def test_n_is_the_5th_percentile_from_8_to_13_and_lower_for_synthetic_tasks():
    lengths = [10] * 5 + [11] * 94 + [2]  # in order: the 5 that follow the first of 100 are 10
    assert gram_length(lengths, synthetic=False) == 10
    assert gram_length([2] * 6 + [11] * 94, synthetic=False) == 8
    assert gram_length([2] * 6 + [11] * 94, synthetic=True) == 2
    assert gram_length([2] * 4 + [11] * 96, synthetic=True) == 11
    assert gram_length([40] * 100, synthetic=True) == 13
    assert gram_length([0], synthetic=True) == 1


def test_n_agrees_with_the_papers_table_c1(shared_data):
    sets = shared_data / "eval"
    released = DataFolder(sets / "gpt3")
    for task, file, n in (
        ("scramble_cl", "cycle_letters_in_word.jsonl", 2),
        ("scramble_ri", "random_insertion_in_word.jsonl", 7),
    ):
        assert n_words(read_released(released.require(task, file)), task) == n
    assert n_words(read_lambada(DataFolder(sets / "lambada").require("lambada", "lambada_test.jsonl")), "lambada") == 13
    scenes = [one.example for one in make_hellaswag(data=DataFolder(sets / "hellaswag")).episodes(10**6, 0, 0)]
    assert n_words(scenes, "hellaswag") == 13
    questions = DataFolder(sets / "nq_open").require("nq", "NQ-open.dev.jsonl").rows("question", "answer")
    asked = [Example(row["question"], f"Q: {row['question']}\n\nA:", (f" {row['answer'][0]}",)) for row in questions]
    assert n_words(asked, "nq_open") == 11


def test_dirty_examples_are_those_with_any_n_words_of_any_document_in_one_pass_for_all_tasks():
    examples = {
        "long": [Example("a", spelled(14), (" x",)), Example("b", spelled(14, 3), (" x",)), Example("c", "p", (" q",))],
        "scramble_rw": [Example("d", "taefed =", (" defeat",)), Example("e", "nisac =", (" casino",))],
    }
    read = iter(documents("nothing", spelled(12), f"Y {spelled(8, 7).upper()}!", "nisac, casino"))
    split = find_contamination(examples, read, synthetic={"scramble_rw"})
    assert split["long"] == Contamination(
        task="long",
        n_words=8,  # not 2, as the third one has
        clean=("c",),
        dirty=(
            Overlap(id="a", gram=spelled(8), document="d1", n_grams=5),  # a-h to e-l
            Overlap(id="b", gram=spelled(8, 3), document="d1", n_grams=3),  # d-k and e-l there, h-o in the next
        ),
    )
    assert split["scramble_rw"].n_words == 2
    assert split["scramble_rw"].clean == ("d",)
    assert [(one.id, one.gram) for one in split["scramble_rw"].dirty] == [("e", "nisac casino")]


def test_an_example_with_fewer_words_than_n_is_looked_for_as_a_whole():
    short, none = Example("short", "to be or", (" not",)), Example("none", "?", (" !",))
    examples = {"quotes": [short, none, *(Example(f"e{i}", spelled(20, i), (" x",)) for i in range(40))]}
    assert find_contamination(examples, documents("He said: To be, or not."))["quotes"].dirty == (
        Overlap(id="short", gram="to be or not", document="d0", n_grams=1),
    )
    assert find_contamination(examples, documents("to be or to be not", "?", "!"))["quotes"].dirty == ()


def test_the_known_passages_of_lambada_are_dirty_among_the_books(shared_data):
    golden = json.loads((shared_data / "golden" / "contamination_13gram.json").read_text(encoding="utf-8"))["hits"]
    file = DataFolder(shared_data / "eval" / "lambada").require("lambada", "lambada_test.jsonl")
    books = read_documents([shared_data / "text" / "books"])
    split = find_contamination({"lambada": read_lambada(file)}, books)["lambada"]
    known = {
        f"lambada_test.jsonl:{hit['index'] + 1}": hit["n"]
        for hit in golden
        if (hit["corpus"], "lambada" in hit["eval"]) == ("text/books", True)
    }
    assert {one.id: one.n_grams for one in split.dirty} == known
    assert len(split.clean) == 5153 - len(known)


SPLIT = Contamination(
    task="t",
    n_words=8,
    clean=("a", "b", "c"),
    dirty=(Overlap(id="d", gram="x", document="y", n_grams=1), Overlap(id="e", gram="x", document="y", n_grams=1)),
)


def answer(name: str, right: bool, group: str = "") -> Answer:
    example = Example(name, "question", (" yes", " no"), group=group)
    return Answer(example=example, logprobs=(-1.0, -2.0) if right else (-2.0, -1.0), n_tokens=(1, 1))


def test_every_metric_is_given_over_all_clean_and_dirty_questions():
    answers = [answer(name, right) for name, right in zip("abcde", (True, False, False, True, True), strict=True)]
    row, nats = split_results(SPLIT, answers, [accuracy(), perplexity("completion")], shots=5, seed=1)
    assert (row.task, row.metric, row.share, row.shots, row.n_words) == ("t", "accuracy", True, 5, 8)
    assert row.all == SubsetScore(n=5, value=3 / 5, low=wilson_interval(3, 5)[0], high=wilson_interval(3, 5)[1])
    assert row.clean == SubsetScore(n=3, value=1 / 3, low=wilson_interval(1, 3)[0], high=wilson_interval(1, 3)[1])
    assert row.dirty == SubsetScore(n=2, value=1.0, low=wilson_interval(2, 2)[0], high=1.0)
    assert row.clean_share == 3 / 5
    assert row.relative_difference == pytest.approx(1 / 3 / (3 / 5) - 1)  # - 44%
    assert nats.all.value == pytest.approx(2.718281828 ** (7 / 5))
    assert nats.clean.value == pytest.approx(2.718281828 ** (5 / 3))
    assert nats.all.low < nats.all.value < nats.all.high


def test_a_group_is_dirty_if_any_of_it_is_and_counts_as_one_question():
    answers = [answer("a", True, "g"), answer("d", True, "g"), answer("b", True, "h"), answer("c", False, "h")]
    all_right = Metric(
        "all right",
        lambda group: (min(float(one.logprobs[0] > one.logprobs[1]) for one in group), 1.0),
        lambda sums: sums[0] / sums[1],
        True,
    )
    (row,) = split_results(SPLIT, answers, [all_right], shots=0, seed=0)
    assert [(score.n, score.value) for score in (row.all, row.clean, row.dirty)] == [(2, 0.5), (1, 0.0), (1, 1.0)]
    assert row.relative_difference == -1.0


def test_a_part_without_questions_has_no_score():
    (row,) = split_results(SPLIT, [answer("d", True)], [accuracy()], shots=0, seed=0)
    assert row.clean == SubsetScore(n=0, value=None, low=None, high=None)
    assert (row.dirty.n, row.clean_share, row.relative_difference) == (1, 0.0, None)
    (row,) = split_results(SPLIT, [answer("a", False), answer("d", False)], [accuracy()], shots=0, seed=0)
    assert (row.clean.value, row.all.value, row.relative_difference) == (0.0, 0.0, None)  # 0 of 0 is no difference
    (row,) = split_results(SPLIT, [answer("a", True)], [mean_of("m", lambda one: float("nan"))], shots=0, seed=0)
    assert row.all == SubsetScore(n=1, value=None, low=None, high=None)


def test_an_answer_to_an_example_that_was_not_compared_is_refused():
    with pytest.raises(BadValue, match="t: example 'other' was not compared with the training text"):
        split_results(SPLIT, [answer("other", True)], [accuracy()], shots=0, seed=0)
    with pytest.raises(BadValue, match="empty has no examples"):
        find_contamination({"empty": []}, [])


def test_splits_and_scores_come_back_from_json():
    rows = split_results(SPLIT, [answer("a", True), answer("d", False)], [accuracy()], shots=1, seed=0)
    rows += split_results(SPLIT, [answer("d", False)], [accuracy()], shots=1, seed=0)
    for row in rows:
        assert CleanDirtyScores.from_json(json.loads(json.dumps(row.to_json())), where="test") == row
    assert Contamination.from_json(json.loads(json.dumps(SPLIT.to_json())), where="test") == SPLIT


def test_tasks_whose_questions_are_made_by_a_rule_say_that_they_are_synthetic():
    for name in ("scramble_ri", "novel_symbols", "arithmetic_2d_add"):
        assert make_task(name).synthetic, name
    assert make_task("arithmetic_2d_add", protocol=HARNESS).synthetic
    assert not Task(name="t", kind="choose", metrics=(accuracy(),), episodes=lambda n, k, seed: [], source="").synthetic
