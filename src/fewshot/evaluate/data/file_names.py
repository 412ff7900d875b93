"""Names of original files that both a task and the hub's table need. In: a task's name. Out: its files' names.

A task finds a file in a folder or an archive by this name; `hub.py` says which repository holds the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Files of questions that were released with the paper, by task
ARITHMETIC_FILES = {
    "arithmetic_2d_add": "two_digit_addition.jsonl",
    "arithmetic_2d_subtract": "two_digit_subtraction.jsonl",
    "arithmetic_3d_add": "three_digit_addition.jsonl",
    "arithmetic_3d_subtract": "three_digit_subtraction.jsonl",
    "arithmetic_4d_add": "four_digit_addition.jsonl",
    "arithmetic_4d_subtract": "four_digit_subtraction.jsonl",
    "arithmetic_5d_add": "five_digit_addition.jsonl",
    "arithmetic_5d_subtract": "five_digit_subtraction.jsonl",
    "arithmetic_2d_multiply": "two_digit_multiplication.jsonl",
    "arithmetic_1d_composite": "single_digit_three_ops.jsonl",
}
SCRAMBLE_FILES = {
    "scramble_cl": "cycle_letters_in_word.jsonl",
    "scramble_a1": "mid_word_1_anagrams.jsonl",
    "scramble_a2": "mid_word_2_anagrams.jsonl",
    "scramble_ri": "random_insertion_in_word.jsonl",
    "scramble_rw": "reversed_words.jsonl",
}


@dataclass(frozen=True)
class Direction:
    """One row of the paper: from a language to another, on the test set of a year."""

    paper_name: str
    test: str
    dev: str
    source: str
    target: str

    @property
    def foreign(self) -> str:
        """The language that is not English."""
        return self.source if self.target == "en" else self.target


def _both(year: str, foreign: str, name: str, test: str, dev: str) -> dict[str, Direction]:
    short, number = name, year[-2:]
    return {
        f"{year}_{foreign}_en": Direction(f"{short}->En {number}", test, dev, foreign, "en"),
        f"{year}_en_{foreign}": Direction(f"En->{short} {number}", test, dev, "en", foreign),
    }


DIRECTIONS = {
    **_both("wmt14", "fr", "Fr", "newstest2014", "newstest2013"),
    **_both("wmt16", "de", "De", "newstest2016", "newstest2015"),
    **_both("wmt16", "ro", "Ro", "newstest2016", "newsdev2016"),
}


def file_pairs(stem: str, direction: Direction) -> Iterator[tuple[str, str]]:
    """Yield names that the source and the target of a set may have: SGML in either direction, or plain lines."""
    source, target = direction.source, direction.target
    for pair in (source + target, target + source):
        for ours, theirs in (("src", "ref"), ("ref", "src")):
            yield f"{stem}-{pair}-{ours}.{source}.sgm", f"{stem}-{pair}-{theirs}.{target}.sgm"
    yield f"{stem}.{source}", f"{stem}.{target}"
