"""What a BPE is trained on: all training text that fits, or a part of bounded size that is spread over all of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fewshot.dataset.sample import TextSample
from fewshot.dataset.split import By

SetInModule = Callable[[object, str, object], None]


@pytest.fixture(autouse=True)
def small_pieces(set_in_module: SetInModule) -> None:
    set_in_module(TextSample, "PIECE_CHARS", 60)
    from fewshot.tokenizer.pieces import pieces

    set_in_module(pieces, "PIECE_CHARS", 60)


def training(tail: int, document: int) -> dict[By, int]:
    return {"tail": tail, "document": document}


def filled(max_bytes: int, n: int = 1000) -> TextSample:
    sample = TextSample(max_bytes)
    for number in range(n):
        text = f"text {number:04} äöü "
        sample.add(text, training(len(text), len(text)), source=0)
    return sample


def test_of_text_that_fits_all_training_text_is_kept_by_each_way_to_split() -> None:
    sample = TextSample(10_000)
    sample.add("0123456789", training(9, 0), source=0)
    sample.add("abcdefghij", training(8, 10), source=0)
    sample.add("no training text", training(0, 0), source=1)
    sample.add("of the second", training(6, 13), source=1)
    assert "".join(sample.training_texts(["tail", "tail"])) == "012345678" + "abcdefgh" + "of the"
    assert "".join(sample.training_texts(["document", "document"])) == "abcdefghij" + "of the second"
    assert "".join(sample.training_texts(["document", "tail"])) == "abcdefghij" + "of the"
    assert sample.is_whole


@pytest.mark.parametrize("n_training", [0, 1, 250, 251, 479, 480])
def test_of_a_long_text_the_beginning_is_training_text(n_training: int) -> None:
    text = "seven c " * 60
    sample = TextSample(10_000)
    sample.add("before", training(6, 6), source=0)
    for start in range(0, 480, 120):
        sample.add_stretch(text[start : start + 120], start, source=0)
    sample.end_long(training(n_training, 480))
    sample.add(" behind", training(7, 0), source=0)
    assert "".join(sample.training_texts(["tail"])) == "before" + text[:n_training] + " behind"
    assert "".join(sample.training_texts(["document"])) == "before" + text


def test_of_more_text_a_part_is_kept_that_is_spread_over_all_of_it() -> None:
    sample = filled(max_bytes=6000)
    texts = list(sample.training_texts(["tail"]))
    assert not sample.is_whole
    assert 3000 < sum(len(text.encode()) for text in texts) <= sample.n_bytes <= 6000
    numbers = [int(text.split()[1]) for text in texts]
    assert numbers == sorted(numbers)
    quarters = [sum(250 * quarter <= number < 250 * (quarter + 1) for number in numbers) for quarter in range(4)]
    assert min(quarters) > len(numbers) / 8


def test_a_long_text_that_is_left_out_in_part_keeps_its_split() -> None:
    text = "".join(f"word {number:04} " for number in range(1000))
    sample = TextSample(2000)
    for start in range(0, 10_000, 500):
        sample.add_stretch(text[start : start + 500], start, source=0)
    sample.end_long(training(5000, 0))
    kept = "".join(sample.training_texts(["tail"]))
    assert 100 < len(kept) <= 2000
    assert max(int(word) for word in kept.split() if word.isdigit() and len(word) == 4) < 500
    assert list(sample.training_texts(["document"])) == []


def test_the_same_text_gives_the_same_sample() -> None:
    assert list(filled(6000).training_texts(["tail"])) == list(filled(6000).training_texts(["tail"]))


def test_what_has_too_many_different_words_is_made_smaller(set_in_module: SetInModule) -> None:
    set_in_module(TextSample, "WORD_CHARS", 500)
    sample = filled(max_bytes=10**6)
    assert sample.is_whole
    sample.limit_words(["tail"])
    words = {word for text in sample.training_texts(["tail"]) for word in text.split()}
    assert not sample.is_whole
    assert 200 < sum(map(len, words)) <= 500
    few = TextSample(10**6)
    for _ in range(1000):
        few.add("the same words again ", training(21, 21), source=0)
    few.limit_words(["tail"])
    assert few.is_whole


def test_a_cleared_sample_holds_nothing() -> None:
    sample = filled(6000)
    sample.clear()
    assert (sample.n_bytes, list(sample.training_texts(["tail"]))) == (0, [])
