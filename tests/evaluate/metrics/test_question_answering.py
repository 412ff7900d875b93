"""Measures of question answering, against values worked by hand from the official scripts' definitions."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.question_answering import (
    CANNOT_ANSWER,
    all_right,
    chosen_text,
    class_f1,
    coqa,
    drop,
    drop_scores,
    drop_words,
    exact,
    human_f1,
    leave_one_out,
    quac,
    quac_references,
    squad,
    token_f1,
)


def written(text: str, references: object) -> Answer:
    return Answer(example=Example("1", "Q:", (" A",), references=references), text=text)


def chosen(choice: int, gold: int, *, n: int = 2, group: str = "", **fields: object) -> Answer:
    logprobs = tuple(-1.0 if index == choice else -2.0 for index in range(n))
    example = Example("1", "Q:", tuple(f" {index}" for index in range(n)), gold, group=group, **fields)  # type: ignore[arg-type]
    return Answer(example=example, logprobs=logprobs, n_tokens=(1,) * n)


# ---- words


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the third row", "third row", 1.0),  # articles do not count
        ("third", "third and fourth rows", 2 * 1 * 0.25 / 1.25),
        ("in the third and fourth rows", "third and fourth rows", 2 * 0.8 * 1 / 1.8),
        ("fish fish", "fish", 2 * 0.5 * 1 / 1.5),  # a bag: the second is one too many
        ("Rollo", "France", 0.0),
        ("", "France", 0.0),
        ("the", "", 1.0),  # nothing is left of either
    ],
)
def test_token_f1_is_the_harmonic_mean_over_bags_of_words(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)


def test_an_answer_that_is_one_of_the_references_is_wrong_when_that_one_is_left_out() -> None:
    assert leave_one_out(exact, "x", ["x", "y", "z"]) == pytest.approx(2 / 3)  # out: x 0, y 1, z 1
    assert leave_one_out(exact, "x", ["x", "x", "z"]) == 1.0
    assert leave_one_out(exact, "x", ["x"]) == 1.0


# ---- SQuAD 2.0

SQUAD = [
    written(" The Normans.", ("Normans", "the Norman people")),  # exact 1, F1 1
    written(" third row", ("third and fourth rows", "third")),  # exact 0, F1 max(1/3, 2/3)
    written(" unanswerable", ()),  # right
    written(" Rollo", ()),  # wrong
    written(" Unanswerable", ("Rollo",)),  # wrong
]


def test_squad_takes_the_best_reference_and_no_answer_for_unanswerable_questions() -> None:
    assert squad("em", exact, no_answer="unanswerable").of(SQUAD) == pytest.approx(2 / 5)
    assert squad("f1", token_f1, no_answer="unanswerable").of(SQUAD) == pytest.approx((1 + 2 / 3 + 1) / 5)


def test_squad_as_the_harness_has_it_takes_only_an_empty_answer_for_none() -> None:
    assert squad("exact", exact).of(SQUAD) == pytest.approx(1 / 5)
    assert squad("exact", exact).of([written("\n", ()), written(" The", ())]) == 1.0
    assert squad("HasAns_f1", token_f1, answerable=True).of(SQUAD) == pytest.approx((1 + 2 / 3) / 3)
    assert squad("NoAns_exact", exact, answerable=False).of([*SQUAD, written("", ())]) == pytest.approx(1 / 3)


# ---- CoQA and QuAC


def test_coqa_leaves_each_of_four_peoples_answers_out() -> None:
    answer = written(" the farmer\nQ: more", ("the farmer", "the farmer's", "the old farmer's", "the farmer's"))
    # "farmer" against farmer, farmers, old farmers, farmers: only the first agrees, and it is left out once in four
    assert coqa("em", exact).of([answer]) == pytest.approx(3 / 4)
    assert coqa("f1", token_f1).of([answer]) == pytest.approx(3 / 4)
    partial = written(" the old barn", ("a barn", "in a barn", "in the barn", "a red barn"))
    # F1 of {old, barn} against {barn} 2/3, {in, barn} 1/2, {in, barn} 1/2, {red, barn} 1/2
    assert coqa("f1", token_f1).of([partial]) == pytest.approx((0.5 + 3 * 2 / 3) / 4)


def test_quac_cannot_answer_counts_alone_where_at_least_half_say_so() -> None:
    assert quac_references([CANNOT_ANSWER, "x", CANNOT_ANSWER, "y"]) == [CANNOT_ANSWER]
    assert quac_references([CANNOT_ANSWER, "x", "z", "y"]) == ["x", "z", "y"]


def test_quac_leaves_out_questions_on_which_people_disagree() -> None:
    agree = ("in May 1983", "May 1983", "she married in May 1983")
    # people: {in,may,1983}/{may,1983}/{she,married,in,may,1983}: best of the others 0.8, 0.8, 0.75
    assert human_f1(agree) == pytest.approx((0.8 + 0.8 + 0.75) / 3)
    disagree = ("Athens", "a composer of songs", "nobody knows")
    assert human_f1(disagree) == 0.0
    answers = [written(" May 1983", agree), written(" Athens", disagree), written(" May", (CANNOT_ANSWER,) * 3)]
    # the first: leaving out each, best of the rest: 1, 0.8, 1; the second is not counted; the third is wrong
    assert quac().of(answers) == pytest.approx((2.8 / 3 + 0) / 2)
    # unfiltered, the second: leaving out itself 0, else 1
    assert quac("unfiltered_f1", filtered=False).of(answers) == pytest.approx((2.8 / 3 + 2 / 3 + 0) / 3)
    assert quac().of([written(f" {CANNOT_ANSWER}", (CANNOT_ANSWER,) * 4)]) == 1.0


# ---- DROP


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The 28-yard goal", "28.0 yard goal"),
        ("1,200 points.", "1200.0 points"),
        ("3.5", "3.5"),
        ("U.S. of A", "us of"),
        ("an answer,  again", "answer again"),
    ],
)
def test_drop_words_are_numbers_as_floats_and_parts_of_hyphenated_words(text: str, words: str) -> None:
    assert drop_words(text) == words


@pytest.mark.parametrize(
    ("said", "right", "em", "f1"),
    [
        (["3"], ["3.0"], 1.0, 1.0),
        (["3 yards"], ["4 yards"], 0.0, 0.0),  # the number is wrong, so the word does not count
        (["4 long yards"], ["4 yards"], 0.0, 0.8),
        (["Chaz Schilens"], ["Schilens"], 0.0, 0.67),  # 2/3, rounded as the script does
        (["Smith", "Jones"], ["Jones", "Smith"], 1.0, 1.0),  # in any order
        (["Smith"], ["Jones", "Smith"], 0.0, 0.5),
        (["Smith", "Brown", "Jones"], ["Jones", "Smith"], 0.0, 0.67),  # one too many
        # greedy pairing would take (x y, x y) 1 + (x, z) 0; the best is (x y, x y) 1 + nothing, (x, x) is not there
        (["x y", "x"], ["x", "x y z"], 0.0, 0.9),  # (x, x) 1 + (x y, x y z) 0.8
        (["Smith Jones"], ["Jones", "Smith"], 0.0, 0.33),  # one span of both: 2/3 against one of two
        ([""], ["Smith"], 0.0, 0.0),
    ],
)
def test_drop_aligns_spans_one_to_one(said: Sequence[str], right: Sequence[str], em: float, f1: float) -> None:
    assert drop_scores(said, right) == (em, pytest.approx(f1))


def test_drop_takes_the_best_of_the_accepted_answers_and_reads_lists() -> None:
    answer = written(" Jones, Smith", (("Smith", "Jones"), ("Brown",)))
    assert drop("em", f1=False, listed=True).of([answer]) == 1.0
    assert drop("em", f1=False).of([answer]) == 0.0
    assert drop("f1", f1=True).of([answer]) == pytest.approx(0.33)
    assert drop("f1", f1=True).of([written("3", (("",),))]) == 0.0  # an empty answer is none


# ---- sets of choosing


def test_macro_f1_is_the_mean_of_each_classs_f1() -> None:
    gold = [0, 0, 0, 1, 1, 2]
    said = [0, 0, 1, 1, 0, 0]
    answers = [chosen(one, other, n=3) for one, other in zip(said, gold, strict=True)]
    # class 0: 2 right of 4 said and 3 gold, 4/7; class 1: 1 of 2 and 2, 1/2; class 2: none
    assert class_f1("f1", (0, 1, 2)).of(answers) == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)


def test_f1a_counts_answers_and_accuracy_whole_questions() -> None:
    answers = [
        chosen(0, 0, group="a"),
        chosen(1, 1, group="a"),
        chosen(0, 0, group="b"),
        chosen(0, 1, group="b"),
        chosen(1, 0, group="b"),
    ]
    assert all_right().of(answers) == pytest.approx(1 / 2)
    assert class_f1("f1a", (0,)).of(answers) == pytest.approx(2 * 2 / (3 + 3))  # 2 right of 3 said true and 3 true


def test_a_chosen_entity_is_compared_with_every_right_one() -> None:
    texts = ("Simon Bolivar", "Bolivar", "Hugo Chavez", "the Bolivar!")
    answers = [chosen(one, 1, n=4, references=texts) for one in (0, 1, 2, 3)]
    assert chosen_text("em", exact).of(answers) == pytest.approx(2 / 4)  # "the Bolivar!" is the same, normalised
    assert chosen_text("f1", token_f1).of(answers) == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)
    both = chosen(0, 1, n=4, also_right=(0,), references=texts)
    assert chosen_text("em", exact).of([both]) == 1.0


# ---- peers


def test_drop_agrees_with_the_harness() -> None:
    pytest.importorskip("scipy")
    peer = pytest.importorskip("lm_eval.tasks.drop.utils")
    rng = Random(0)
    words = ["the", "3", "4.0", "1,000", "28-yard", "Smith", "Jones", "a", "U.S.", "x y", "goal!", "5%", "", "3."]

    def spans() -> list[str]:
        return [" ".join(rng.choices(words, k=rng.randint(0, 4))) for _ in range(rng.randint(1, 4))]

    for said, right in [(spans(), spans()) for _ in range(2000)]:
        assert drop_scores(said, right) == pytest.approx(peer.get_metrics(said, right))


def test_coqa_agrees_with_the_harness() -> None:
    peer = pytest.importorskip("lm_eval.tasks.coqa.utils")
    rng = Random(0)
    words = ["the", "Cotton", "orange.", "white", "and", "a", "5", ""]
    for _ in range(2000):
        said, *right = (" ".join(rng.choices(words, k=rng.randint(0, 3))) for _ in range(rng.randint(2, 5)))
        scores = {"em": leave_one_out(exact, said, right), "f1": leave_one_out(token_f1, said, right)}
        assert scores == pytest.approx(peer.compute_scores(right, said))


# Computed by lm_eval 0.4.13's tasks/drop/utils.py, get_metrics, with SciPy 1.17 (as above: 40,000 random pairs agreed).
@pytest.mark.parametrize(
    ("said", "right", "em", "f1"),
    [
        (["1,000 Jones", "1,000 28-yard 1,000"], ["Smith", "1,000 twenty-five 28-yard"], 0.0, 0.37),
        (["Jones the a", "$7 1,000 1,000", "x y Smith", "  .5"], ["Smith", "$7 5% .5 3"], 0.0, 0.22),
        (["Smith", "5%", "1,000 -"], ["nan Jones the 5%", "goal!", ""], 0.0, 0.17),
        (["10 May 1983", "5 points-a-game"], ["10 May", "5 points"], 0.0, 0.8),
    ],
)
def test_drop_rounds_as_the_harness_does(said: list[str], right: list[str], em: float, f1: float) -> None:
    assert drop_scores(said, right) == (em, f1)
