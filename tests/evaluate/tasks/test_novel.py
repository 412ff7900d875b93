from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.prompt import build_prompt
from fewshot.evaluate.tasks.novel import FAMILIES, Letter, Letters, Offset, SmallOffset, Symbols, make_novel


def rule_of(family, lines: list[tuple[str, str]]):
    """Every rule of a small family that agrees with the lines."""
    return [rule for rule in family.rules if all(family.answer(rule, q) == a for q, a in lines)]


def parse(family, text: str) -> list[tuple[str, str]]:
    return [tuple(line.split(f" {family.sign} " if family.sign else " ")) for line in text.split("\n")]


def brute_force(family, n_shots: int, n_trials: int, rng: Random) -> float:
    """How often the commonest answer of all rules that agree with the demonstrations is right, ties by chance."""
    right = 0
    for _ in range(n_trials):
        rule, query = family.draw_rule(rng), family.draw_question(rng)
        shown: dict[str, str] = {}
        while len(shown) < n_shots:
            question = family.draw_question(rng)
            shown[question] = family.answer(rule, question)
        rules = family.rules if hasattr(family, "rules") else all_bijections(family.symbols)
        answers = Counter(
            family.answer(one, query) for one in rules if all(family.answer(one, q) == a for q, a in shown.items())
        )
        most = max(answers.values())
        right += rng.choice([answer for answer, count in answers.items() if count == most]) == family.answer(
            rule, query
        )
    return right / n_trials


def all_bijections(symbols: str) -> list[str]:
    from itertools import permutations

    return ["".join(one) for one in permutations(symbols)]


def mean_ideal(family, n_shots: int, n: int = 1500) -> float:
    return sum(one.ideal[n_shots] for one in family.episodes(n, n_shots, 5)) / n


@pytest.mark.parametrize("n_shots", [0, 1, 2, 4, 8, 15, 16])
def test_ideal_accuracy_on_symbols_is_what_counting_gives(n_shots):
    """The query was shown with probability K/16; else one of the 16 - K other answers: together (K+1)/16."""
    assert mean_ideal(Symbols(), n_shots) == pytest.approx(min(1.0, (n_shots + 1) / 16), abs=0.05)


@pytest.mark.parametrize("n_shots", [0, 1, 3, 4])
def test_ideal_accuracy_on_five_symbols_agrees_with_brute_force(n_shots):
    family = Symbols("abcde")
    assert mean_ideal(family, n_shots) == pytest.approx(brute_force(family, n_shots, 1500, Random(0)), abs=0.06)


@pytest.mark.parametrize("family", [Letters(), Offset(), SmallOffset(), Letter()])
def test_ideal_accuracy_of_countable_families_agrees_with_brute_force(family):
    n = 300 if len(family.rules) > 10 else 2000
    for n_shots in (0, 1):
        assert mean_ideal(family, n_shots, n) == pytest.approx(brute_force(family, n_shots, n, Random(0)), abs=0.05)


def test_zero_shot_is_chance_whatever_the_query():
    rng = Random(0)
    for name in FAMILIES:
        task, family = make_novel(name), FAMILIES[name]()
        assert task.chance < (0.07 if family.holds_out else 0.3)
        for _ in range(20):
            assert family.ideal({}, family.draw_question(rng)) == pytest.approx(task.chance)
        assert all(one.ideal[0] == pytest.approx(task.chance) for one in task.episodes(5, 0, 0))


def test_demonstrations_and_query_come_from_one_rule_and_rules_differ_between_prompts():
    for family in (Letters(), Offset()):
        rules = set()
        for episode in family.episodes(60, 4, 0):
            examples = (episode.example, *episode.demonstrations)
            found = rule_of(family, parse(family, "\n".join(one.demonstration for one in examples)))
            assert len(found) == 1
            rules.update(found)
        assert len(rules) > 4
    family = Symbols()
    answers = set()
    for episode in family.episodes(40, 16, 0):
        mapping = dict(parse(family, "\n".join(one.demonstration for one in episode.demonstrations)))
        assert len(mapping) == len(set(mapping.values())) == 16
        query = episode.example
        assert query.completions[query.gold] == " " + mapping[query.context]
        answers.add(tuple(sorted(mapping.items())))
    assert len(answers) == 40


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name]().holds_out])
def test_no_evaluated_rule_is_ever_in_a_training_document(name, monkeypatch):
    family = FAMILIES[name]()
    rng = Random(0)
    drawn = [family.draw_rule(rng) for _ in range(4000)]
    assert 0.03 < sum(map(family.held_out, drawn)) / 4000 < 0.25
    used = []
    draw = family.rule
    monkeypatch.setattr(family, "rule", lambda rng, **which: used.append(draw(rng, **which)) or used[-1])
    assert sum(1 for _ in family.training_documents(200, 0)) == len(used) == 200
    trained = set(used)
    used.clear()
    assert len(family.episodes(200, 1, 0)) == len(used) == 200
    assert not any(map(family.held_out, trained))
    assert all(map(family.held_out, used))
    assert trained.isdisjoint(used)


def test_symbol_documents_have_short_dictionaries_that_come_again():
    documents = [parse(Symbols(), text) for text in Symbols().training_documents(400, 0)]
    sizes = Counter(len({question for question, _ in lines}) for lines in documents)
    assert set(sizes) == {2, 3, 4, 5, 6, 8, 10, 12, 16}
    assert 0.1 < sizes[16] / 400 < 0.3
    for lines in documents:
        assert 24 <= len(lines) <= 40
        assert len(set(lines)) == len({question for question, _ in lines}) == len({answer for _, answer in lines})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_reads_like_the_beginning_of_a_training_document(small_tokenizer, name):
    family, task = FAMILIES[name](), make_novel(name)
    prompt = build_prompt(small_tokenizer(), task, task.episodes(1, 3, 0)[0], shots=3, n_ctx=999)
    whole = f"{prompt.text}{prompt.example.completions[prompt.example.gold]}"
    (document,) = family.training_documents(1, 0, n_lines=4)
    assert [len(one) for one in parse(family, whole)] == [len(one) for one in parse(family, document)] == [2] * 4
    assert whole.count("\n") == document.count("\n") == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_more_shots_keep_the_former_and_seeds_give_other_tasks(name):
    task = make_novel(name)
    few, many, other = (task.episodes(6, k, seed) for k, seed in ((2, 0), (9, 0), (9, 1)))
    for short, long in zip(few, many, strict=True):
        assert long.example == short.example
        assert long.demonstrations[:2] == short.demonstrations
        assert long.ideal[:3] == short.ideal
        assert len({one.context for one in long.demonstrations}) == len(long.demonstrations) == 9
    assert many != other


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_fit_the_answer_budget_and_documents_repeat_themselves(name):
    family = FAMILIES[name]()
    for episode in family.episodes(200, 0, 0):
        assert len(episode.example.demonstration) - len(episode.example.context) < family.max_answer_tokens
    assert list(family.training_documents(3, 1)) == list(family.training_documents(3, 1))
    assert list(family.training_documents(3, 1)) != list(family.training_documents(3, 2))


def test_operations_on_letters_that_do_the_same_are_one_rule():
    family = Letters()
    question = "a b c d e"
    answers = [family.answer(rule, question) for rule in family.rules]
    assert len(answers) == len(set(answers)) > 40
    for expected in ("e d c b a", "b c d e a", "e b c d a", "a", "e", "a a b b c c d d e e", question):
        assert expected in answers


def test_symbols_must_be_distinct():
    with pytest.raises(BadValue, match="two or more distinct"):
        Symbols("aab")
