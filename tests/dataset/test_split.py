from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.corpus.document import Document
from fewshot.dataset.split import VERSIONS, By, Content, Part, content_digest, divide, n_training_chars, rule_name


def split(whole: Iterable[Document], *, part: Part, **options: Any) -> Iterator[Document]:
    return (document for owner, document in divide(whole, **options) if owner == part)


def documents(n: int, length: int) -> list[Document]:
    return [Document(id=f"d{i}", text=chr(97 + i % 26) * (length - 1) + "!", source="test") for i in range(n)]


@pytest.mark.parametrize("length", [1, 7, 10, 1003])
def test_tail_of_one_file_is_the_last_tenth_of_its_characters(length: int) -> None:
    (whole,) = documents(1, length)
    train = [d.text for d in split([whole], part="train", val_fraction=0.1, by="tail")]
    val = [d.text for d in split([whole], part="val", val_fraction=0.1, by="tail")]
    cut = int(length * 0.9)
    assert train == ([whole.text[:cut]] if cut else [])
    assert val == [whole.text[cut:]]


def test_tail_cuts_every_document_and_keeps_its_id_and_source() -> None:
    val = list(split(documents(3, 8), part="val", val_fraction=0.25, by="tail"))
    assert [(d.id, d.text, d.source) for d in val] == [
        ("d0", "a!", "test"),
        ("d1", "b!", "test"),
        ("d2", "c!", "test"),
    ]


def test_by_document_gives_each_whole_document_to_exactly_one_part() -> None:
    whole = documents(2000, 5)
    train = list(split(whole, part="train", val_fraction=0.2, by="document"))
    val = list(split(whole, part="val", val_fraction=0.2, by="document"))
    assert sorted(d.id for d in train + val) == sorted(d.id for d in whole)
    assert all(d.text == whole[int(d.id[1:])].text for d in train + val)
    assert 330 < len(val) < 470  # 400 +- 4 standard deviations of 17.9


def test_by_document_a_document_keeps_its_part_when_others_go() -> None:
    def val(of: list[Document]) -> set[str]:
        return {d.id for d in split(of, part="val", val_fraction=0.3, by="document")}

    whole = documents(100, 5)
    assert val(whole[::3]) == val(whole) & {d.id for d in whole[::3]}


def held_out(whole: list[Document]) -> list[str]:
    return [d.text for d in split(whole, part="val", val_fraction=0.3, by="document")]


def test_by_document_the_part_depends_on_key_and_text_alone() -> None:
    texts = [f"text {i}" for i in range(100)]

    def made(folder: str, *, key: str = "{}.txt") -> list[Document]:
        return [
            Document(id=f"{folder}/{i}.txt", text=text, source=folder, key=key.format(i))
            for i, text in enumerate(texts)
        ]

    there = held_out(made("a"))
    assert 15 < len(there) < 45
    assert held_out(made("./a")) == held_out(made("/moved/elsewhere")) == there
    assert sorted(held_out(made("a")[::-1])) == sorted(there)
    assert held_out(made("a", key="other/{}.txt")) != there
    changed = [dataclasses.replace(d, text=d.text + "!") for d in made("a")]
    assert [text.rstrip("!") for text in held_out(changed)] != there


def test_equal_names_in_two_folders_do_not_share_their_draw() -> None:
    one, other = (
        [Document(id=f"{of}/{i}", text=f"{of} {i}", source=of, key=str(i)) for i in range(200)] for of in ("a", "b")
    )
    first, second = ({text[2:] for text in held_out(of)} for of in (one, other))
    assert 5 < len(first & second) < 40  # 18 +- 4 standard deviations of 4 where they are independent


def test_the_rule_by_document_draws_what_it_drew_when_its_version_was_given() -> None:
    whole = [Document(id="any", text=f"text {i}", source="test", key=f"{i}.txt") for i in range(30)]
    assert rule_name("document") == "document 2"
    assert rule_name("tail") == "tail 1"
    assert held_out(whole) == [f"text {i}" for i in (5, 6, 7, 10, 11, 12, 14, 18, 24, 26, 28)]


def content(text: str) -> Content:
    digest = content_digest()
    digest.update(text.encode())
    return Content(len(text), digest.hexdigest())


def test_the_number_of_training_characters_is_what_is_given_to_training() -> None:
    for by in VERSIONS:
        for document in documents(50, 7):
            n_given = sum(len(d.text) for d in split([document], part="train", val_fraction=0.3, by=by))
            assert n_training_chars(document, content(document.text), val_fraction=0.3, by=by) == n_given


def in_stretches(text: str, n_chars: int, **fields: str) -> list[Document]:
    starts = range(0, len(text), n_chars)
    return [
        Document(text=text[i : i + n_chars], more=i + n_chars < len(text), **{"id": "long", "source": "test", **fields})
        for i in starts
    ]


@pytest.mark.parametrize("by", ["tail", "document"])
@pytest.mark.parametrize("n_chars", [1, 3, 5, 9, 10])  # a cut inside of a stretch, between two, and after the last
@pytest.mark.parametrize("val_fraction", [0, 0.3, 0.5])
def test_stretches_are_divided_like_the_whole_text(by: By, n_chars: int, val_fraction: float) -> None:
    for number in range(12):
        text, key = f"{number:02} äöü {number:03}", f"{number}.txt"
        options: dict[str, Any] = {"val_fraction": val_fraction, "by": by}
        (whole,) = in_stretches(text, 100, key=key)
        stretches = in_stretches(text, n_chars, key=key)
        for part in ("train", "val"):
            wanted = [d.text for d in split([whole], part=part, **options)]
            given = list(split(stretches, part=part, **options, long={"long": content(text)}))
            assert ["".join(d.text for d in given)] == (wanted or [""])
            assert [d.more for d in given] == [True] * (len(given) - 1) + [False] * bool(given)


@pytest.mark.parametrize("by", ["tail", "document"])
@pytest.mark.parametrize("now", ["0123456789", "01234567", "012345", ""])
def test_a_long_text_that_changed_since_it_was_measured_is_refused(by: By, now: str) -> None:
    before = {"long": content("012345678")} if now else {}
    with pytest.raises(BadFile, match="long changed while it was read: start again when nothing writes to it"):
        list(divide(in_stretches(now or "0123456", 3), val_fraction=0.3, by=by, long=before))


@pytest.mark.parametrize("by", ["tail", "document"])
def test_fraction_zero_gives_everything_to_training(by: str) -> None:
    whole = documents(9, 4)
    assert list(split(whole, part="train", val_fraction=0.0, by=by)) == whole
    assert list(split(whole, part="val", val_fraction=0.0, by=by)) == []


def test_split_is_streaming() -> None:
    def endless():
        while True:
            yield from documents(1, 10)

    assert next(split(endless(), part="val", val_fraction=0.5, by="tail")).text == "aaaa!"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"by": "head"}, "unknown way to split 'head'"),
    ],
)
def test_wrong_values_are_named_at_the_call(wrong: dict, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        divide([], **({"val_fraction": 0.1, "by": "tail"} | wrong))
