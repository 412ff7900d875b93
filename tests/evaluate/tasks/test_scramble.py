from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from fewshot.evaluate.data.files import read_released
from fewshot.evaluate.prompt import build_prompt
from fewshot.evaluate.tasks.scramble import (
    RULES,
    cycle_letters,
    default_words,
    generate,
    insert_symbols,
    make_scramble,
    most_frequent_words,
    permute_inside,
    reverse_word,
)


def lines(examples) -> list[tuple[str, str]]:
    """(scrambled, word) of each example, which must have the released form."""
    pairs = []
    for one in examples:
        assert one.context.startswith("\n")
        assert one.context.endswith(" =")
        assert one.completions[0][0] == " "
        pairs.append((one.context[1:-2], one.completions[0][1:]))
    return pairs


def word_properties(words: list[str]) -> tuple:
    return len(words) == len(set(words)), all(one.isascii() and one.islower() and one.isalpha() for one in words)


def test_cycled_letters_have_every_property_of_the_released_file(eval_data):
    released = lines(read_released(eval_data.find("cycle_letters_in_word.jsonl")))
    words = [word for _, word in released]
    assert len(released) == 10_000
    made = lines(generate("scramble_cl", words, seed=0))
    for pairs in (released, made):
        shifts = Counter()
        for scrambled, word in pairs:
            assert scrambled != word
            assert scrambled in word + word
            assert len(scrambled) == len(word)
            if len(word) == 8:
                shifts[(word + word).index(scrambled)] += 1
        assert set(shifts) == set(range(1, 8))
        assert min(shifts.values()) > 0.7 * max(shifts.values())
        assert word_properties([word for _, word in pairs]) == (True, True)
        assert {len(word) for _, word in pairs} == set(range(6, 16))


def test_inserted_symbols_have_every_property_of_the_released_file(eval_data):
    released = lines(read_released(eval_data.find("random_insertion_in_word.jsonl")))
    made = lines(generate("scramble_ri", [word for _, word in released], seed=0))
    for pairs in (released, made):
        symbols = Counter()
        for scrambled, word in pairs:
            assert scrambled[::2] == word
            symbols.update(scrambled[1::2])
        assert set(symbols) == set(" ./!")
        assert min(symbols.values()) > 0.97 * max(symbols.values())


@pytest.mark.parametrize("n_fixed", [1, 2])
def test_anagrams_keep_their_ends_and_change_wherever_they_can(n_fixed):
    rng = Random(0)
    for word in [*default_words(), "balloon", "abccccde"]:
        scrambled = permute_inside(word, rng, n_fixed=n_fixed)
        assert sorted(scrambled) == sorted(word)
        assert scrambled[:n_fixed] == word[:n_fixed]
        assert scrambled[-n_fixed:] == word[-n_fixed:]
        assert (scrambled == word) == (len(set(word[n_fixed:-n_fixed])) == 1)


def test_rotation_never_gives_the_word_itself_even_where_it_repeats():
    rng = Random(0)
    assert {cycle_letters("tartar", rng) for _ in range(200)} == {"artart", "rtarta"}


def test_reversal_and_insertion_by_hand():
    assert reverse_word("defeat", Random(0)) == "taefed"
    assert insert_symbols("ab", Random(0)) in ("a b", "a.b", "a/b", "a!b")


def test_frequent_words_are_whole_lower_case_words_of_6_to_15_letters():
    documents = [
        "banana banana cherry, Orange short co-operate x_orange orange2 orange",
        "cherry banana abcdefghijklmnopq",
    ]
    assert most_frequent_words(documents) == ["banana", "cherry", "orange"]
    assert most_frequent_words(documents, 1) == ["banana"]


def test_the_default_word_list_is_there_and_large_enough_for_a_hundred_shots():
    words = default_words()
    assert len(words) > 1000
    assert word_properties(words) == (True, True)
    assert {len(one) for one in words} <= set(range(6, 16))


@pytest.mark.parametrize("name", RULES)
def test_demonstrations_are_other_words_than_the_evaluated(name):
    episodes = make_scramble(name).episodes(10_000, 100, 0)
    asked = {one.example.completions for one in episodes}
    assert all(len(one.demonstrations) == 100 for one in episodes)
    assert not asked & {one.completions for episode in episodes for one in episode.demonstrations}
    assert len(asked) > 800


def test_the_prompt_is_the_papers(small_tokenizer):
    task = make_scramble("scramble_rw", words=default_words()[:50])
    episode = task.episodes(1, 1, 0)[0]
    (shown,), asked = lines(episode.demonstrations), lines([episode.example])[0]
    prompt = build_prompt(small_tokenizer(), task, episode, shots=1, n_ctx=999)
    assert prompt.text == (
        "Please unscramble the letters into a word, and write that word:\n"
        f"{shown[1][::-1]} = {shown[1]}\n{asked[1][::-1]} ="
    )


def test_the_released_file_is_split_between_questions_and_demonstrations(eval_data):
    task = make_scramble("scramble_cl", data=eval_data)
    assert task.source == "cycle_letters_in_word.jsonl.gz"
    assert 7800 < len(task.episodes(10_000, 1, 0)) < 8200
