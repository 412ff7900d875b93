"""The names that tasks look for are those that the hub's table gives, one file for one task."""

from __future__ import annotations

from fewshot.evaluate.data.file_names import ARITHMETIC_FILES, DIRECTIONS, SCRAMBLE_FILES, file_pairs
from fewshot.evaluate.data.hub import FILES
from fewshot.evaluate.tasks import arithmetic, scramble, translation


def test_every_rule_has_a_released_file_of_its_own_that_the_hub_has() -> None:
    assert list(ARITHMETIC_FILES) == list(arithmetic.RULES)
    assert list(SCRAMBLE_FILES) == list(scramble.RULES)
    names = [*ARITHMETIC_FILES.values(), *SCRAMBLE_FILES.values()]
    assert len(set(names)) == len(names) == 15
    assert set(names) <= set(FILES)


def test_a_set_of_pairs_is_looked_for_in_both_directions_of_sgml_and_then_in_plain_lines() -> None:
    assert list(file_pairs("newstest2014", DIRECTIONS["wmt14_en_fr"])) == [
        ("newstest2014-enfr-src.en.sgm", "newstest2014-enfr-ref.fr.sgm"),
        ("newstest2014-enfr-ref.en.sgm", "newstest2014-enfr-src.fr.sgm"),
        ("newstest2014-fren-src.en.sgm", "newstest2014-fren-ref.fr.sgm"),
        ("newstest2014-fren-ref.en.sgm", "newstest2014-fren-src.fr.sgm"),
        ("newstest2014.en", "newstest2014.fr"),
    ]


def test_a_direction_and_its_reverse_have_the_same_sets_and_both_are_on_the_hub() -> None:
    assert list(DIRECTIONS) == list(translation.TASKS)
    for name, direction in DIRECTIONS.items():
        year, source, target = name.split("_")
        reverse = DIRECTIONS[f"{year}_{target}_{source}"]
        assert (direction.test, direction.dev, direction.foreign) == (reverse.test, reverse.dev, reverse.foreign)
        assert {file for stem in (direction.test, direction.dev) for file in next(file_pairs(stem, direction))} <= set(
            FILES
        )
