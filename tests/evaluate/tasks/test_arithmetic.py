from __future__ import annotations

import re
from collections import Counter

import pytest

from fewshot.evaluate.data.files import DataFolder, read_released
from fewshot.evaluate.tasks.arithmetic import RULES, generate, make_arithmetic

FILES = {
    "arithmetic_2d_add": "two_digit_addition.jsonl",
    "arithmetic_3d_subtract": "three_digit_subtraction.jsonl",
    "arithmetic_1d_composite": "single_digit_three_ops.jsonl",
}
WORDS = {"plus": "+", "minus": "-", "times": "*"}
FORM = re.compile(r"\n\nQ: What is (.+)\?\n\nA:")


def expression(example) -> str:
    written = FORM.fullmatch(example.context)[1]
    return " ".join(WORDS.get(part, part) for part in written.split(" "))


def properties(name: str, examples) -> dict:
    """What the facts say of a file, measured."""
    expressions = [expression(one) for one in examples]
    numbers = [int(number) for one in expressions for number in re.findall(r"\d+", one)]
    answers = [int(one.completions[0]) for one in examples]
    return {
        "n": len(examples),
        "distinct": len(set(expressions)),
        "right": all(eval(text) == answer for text, answer in zip(expressions, answers, strict=True)),
        "written": all(one.completions == (f" {answer}",) for one, answer in zip(examples, answers, strict=True)),
        "parentheses first": all(one.startswith("(") and one[6] == ")" for one in expressions) and "1d" in name,
        "operators": set("".join(expressions)) - set("0123456789() "),
        "numbers": (min(numbers) == 1 if "1d" in name else min(numbers) < 5, max(numbers) + 1),
        "shorter": round(sum(len(str(one)) < len(str(max(numbers))) for one in numbers) / len(numbers), 1),
        "negative": round(sum(one < 0 for one in answers) / len(answers), 1),
    }


@pytest.mark.parametrize("name", FILES)
def test_generated_questions_have_every_property_of_the_released_file(eval_data, name):
    released = read_released(eval_data.find(FILES[name]))
    assert properties(name, generate(name, 2000, seed=3)) == properties(name, released)


@pytest.mark.parametrize("name", FILES)
def test_operators_and_numbers_are_as_frequent_as_in_the_released_file(eval_data, name):
    def counts(examples) -> Counter:
        signs = Counter(sign for one in examples for sign in re.findall(r" ([*+-]) ", expression(one)))
        leading = Counter(n[0] for one in examples for n in re.findall(r"\d+", expression(one)))
        return signs + leading

    released = counts(read_released(eval_data.find(FILES[name])))
    made = counts(generate(name, 2000, seed=3))
    for key in made | released:
        assert abs(made[key] - released[key]) < 5 * (made[key] + released[key]) ** 0.5, key


def test_all_ten_tasks_carry_the_papers_names_in_the_papers_order_of_digits():
    names = [rule.paper_name for rule in RULES.values()]
    assert sorted(names) == sorted(["2D+", "2D-", "3D+", "3D-", "4D+", "4D-", "5D+", "5D-", "2Dx", "1DC"])
    for name in RULES:
        assert len(expression(generate(name, 1, seed=0)[0]).split()) == (5 if "composite" in name else 3)


@pytest.mark.parametrize("name", RULES)
def test_answers_are_right_and_fit_the_answer_budget(name):
    task = make_arithmetic(name)
    for episode in task.episodes(400, 3, 0):
        for one in (episode.example, *episode.demonstrations):
            assert one.completions == (f" {eval(expression(one))}",)
            assert len(one.completions[0] + "\n") <= task.max_answer_tokens


def test_demonstrations_are_never_evaluated_and_the_released_file_is_evaluated_whole(eval_data):
    for task, n in (
        (make_arithmetic("arithmetic_2d_add"), 2000),
        (make_arithmetic("arithmetic_2d_add", data=eval_data), 2000),
    ):
        episodes = task.episodes(5000, 3, 0)
        asked = {one.example.context for one in episodes}
        shown = {one.context for episode in episodes for one in episode.demonstrations}
        assert len(asked) == n
        assert len(shown) > 1500
        assert not asked & shown
    assert asked == {one.context for one in read_released(eval_data.find(FILES["arithmetic_2d_add"]))}
    assert task.source == FILES["arithmetic_2d_add"]


def test_a_folder_without_the_file_says_that_the_rule_is_used(tmp_path, capsys):
    assert make_arithmetic("arithmetic_4d_add", data=DataFolder(tmp_path)).source == "made by rule"
    assert "holds no four_digit_addition.jsonl" in capsys.readouterr().err
