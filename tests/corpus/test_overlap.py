"""Collisions are exactly those that a set of word tuples finds, whatever the borders, hashes and alphabets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewshot.base.errors import BadValue
from fewshot.corpus import overlap
from fewshot.corpus.document import Document
from fewshot.corpus.overlap import Collision, which_collide, words
from fewshot.corpus.sources import read_documents

WORD = re.compile(r"[日本]|[^\W_日本]+")
TEXTS = st.text(alphabet="abAB éÉßΣς日本\u2019'-_.\n\u00a0\u2028🙂1", max_size=40)


def documents(*texts: str) -> list[Document]:
    return [Document(id=f"d{i}", text=text, source="test") for i, text in enumerate(texts)]


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    """By a regular expression and slices; each character is lowered by itself."""
    found = WORD.findall("".join(one.lower() for one in text))
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def naive(needles: dict[int, str], texts: list[str], n_of: dict[int, int]) -> dict[int, Collision]:
    found = {}
    for key, text in needles.items():
        own = grams(text, n_of[key])
        shared = [(f"d{i}", gram) for i, one in enumerate(texts) for gram in grams(one, n_of[key]) if gram in own]
        if shared:
            document, gram = shared[0]
            n_grams = sum(one in {gram for _, gram in shared} for one in own)
            found[key] = Collision(" ".join(gram), document, n_grams)
    return found


@settings(max_examples=300, deadline=None)
@given(
    needles=st.lists(TEXTS, max_size=5),
    texts=st.lists(TEXTS, max_size=5),
    sizes=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    batch_chars=st.sampled_from([1, 2, 7, 30, 1 << 18]),
    all_hashes_equal=st.booleans(),
)
@example(["a b"], ["a", "b"], [2] * 5, 99, False)  # no n-gram goes from one document into the next
@example(["b a", "b a"], ["a b a b a"], [2, 3, 1, 1, 1], 1, True)
def test_it_finds_what_sets_of_tuples_find(needles, texts, sizes, batch_chars, all_hashes_equal):
    by_key = dict(enumerate(needles))
    n_of = dict(zip(by_key, sizes, strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BATCH_CHARS", batch_chars)
        if all_hashes_equal:  # then all rests on the comparison of words
            patch.setattr(overlap, "_hashes", lambda values, starts, ends: np.zeros(len(starts), np.uint64))
        found = which_collide(by_key, documents(*texts), n_of)
    assert found == naive(by_key, texts, n_of)
    assert list(found) == sorted(found)


def test_words_are_those_of_the_13_grams_that_the_paper_published(shared_data: Path) -> None:
    text = (shared_data / "eval" / "gpt3" / "overlap_frequency.md").read_text(encoding="utf-8")
    published = re.findall(r"^(?:```)?\d+ +(.+)$", text, re.MULTILINE)
    assert len(published) == 121
    assert all(words(gram) == gram.split() and len(words(gram)) == 13 for gram in published)
    assert any(gram.startswith("i m ") for gram in published)  # "I'm" is two words there, and so are these
    assert any("16 bit one s " in gram for gram in published)
    assert " ".join(words("I'm at the 16-bit one's, so say THAT:")) == "i m at the 16 bit one s so say that"


def test_words_know_every_alphabet() -> None:
    assert words("ÇA va? zwölf_Äpfel, 世界。हिन्दी №5 x²") == [
        "ça",
        "va",
        "zwölf",
        "äpfel",
        "世",
        "界",
        "हिन्दी",
        "5",
        "x²",
    ]
    assert words("İI ΟΔΟΣ \ud83d") == ["ii", "οδοσ"]
    assert words(" ’–\n") == words("") == []


def test_a_gram_across_the_border_of_two_pieces_is_found() -> None:
    filling = "so long a text that it is read in pieces " * 20_000
    needle = "these eight words stand across a border somewhere"
    for at in range(overlap.BATCH_CHARS - 60, overlap.BATCH_CHARS + 20, 7):
        text = filling[:at] + " " + needle + " " + filling
        found = which_collide({"x": f"and {needle}"}, documents("", text), 8)
        assert found == {"x": Collision(needle, "d1", 1)}


def test_texts_shorter_than_n_and_empty_ones_collide_with_nothing() -> None:
    needles = {"empty": "", "short": "a b", "enough": "a b c"}
    assert set(which_collide(needles, documents("", "a b", "x a b c"), 3)) == {"enough"}
    assert which_collide(needles, documents("", "..."), 1) == {}
    assert which_collide(needles, [], 1) == {}


def test_documents_are_not_read_where_there_is_nothing_to_look_for() -> None:
    def unreadable() -> Iterator[Document]:
        raise AssertionError("read")
        yield

    assert which_collide({}, unreadable(), 13) == {}
    assert which_collide({"x": "too short"}, unreadable(), 13) == {}


def test_n_below_1_is_refused() -> None:
    with pytest.raises(BadValue, match="n is 0: at least 1 word"):
        which_collide({"a": "a", "b": "b"}, [], {"a": 2, "b": 0})


def test_needles_that_share_a_gram_are_all_found_with_their_own_counts() -> None:
    found = which_collide({1: "p q r", 2: "q r s q r", 3: "r q"}, documents("nothing", "Q, R! (q r) p q"), 2)
    assert found == {1: Collision("q r", "d1", 2), 2: Collision("q r", "d1", 2), 3: Collision("r q", "d1", 1)}


@pytest.mark.parametrize("corpus", ["novels", "books"])
def test_the_known_13_grams_of_lambada_and_multirc_are_found_and_no_others(shared_data: Path, corpus: str) -> None:
    fields = {
        "eval/lambada/lambada_test.jsonl": lambda row: row["text"],
        "eval/superglue/MultiRC/val.jsonl": lambda row: row["passage"]["text"],
    }
    needles = {
        (name, index): text_of(json.loads(line))
        for name, text_of in fields.items()
        for index, line in enumerate((shared_data / name).read_text(encoding="utf-8").split("\n"))
        if line
    }
    golden = json.loads((shared_data / "golden" / "contamination_13gram.json").read_text(encoding="utf-8"))["hits"]
    expected = {(hit["eval"], hit["index"]): hit["n"] for hit in golden if hit["corpus"] == f"text/{corpus}"}
    found = which_collide(needles, read_documents([shared_data / "text" / corpus]), 13)
    assert {key: collision.n_grams for key, collision in found.items()} == expected
    for key, collision in found.items():
        assert collision.gram in " ".join(words(needles[key]))
        assert collision.gram in " ".join(words(Path(collision.document).read_text(encoding="utf-8")))
