"""Groups are held out whole, and the loss after a context is that of the same bytes."""

from __future__ import annotations

import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadFile, BadValue
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.languages import Config, Experiment, Text, _shuffled, read_texts, split

TINY = ContextModelConfig(n_layers=1, d_model=8, n_heads=1)


def words(seed: int) -> str:
    drawn = random.Random(seed)
    lexicon = ["".join(drawn.choices("abcdefghij\u00e9", k=drawn.randint(2, 6))) for _ in range(30)]
    return " \n ".join(drawn.choices(lexicon, k=250))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "texts"
    path.mkdir()
    for name in ("aaa", "aaa_1", "bbb", "ccc", "ddd"):
        (path / f"{name}.txt").write_text(words(ord(name[0])), encoding="utf-8")
    (path / "greek.txt").write_text("\u03b1\u03b2\u03b3 " * 500, encoding="utf-8")
    (path / "short.txt").write_text("abc", encoding="utf-8")
    return path


def config(path: Path, **changed: object) -> Config:
    settings = Config(
        path=str(path), min_chars=700, max_chars=900, sizes=(TINY, replace(TINY, n_layers=2)), n_rows=2, test_rows=2,
        held_out=("aaa", "ccc"), outer=OuterConfig(n_iterations=2, report_every=1),
    )  # fmt: skip
    return replace(settings, **changed)  # type: ignore[arg-type]


def test_texts_are_of_the_script_and_long_enough_with_single_spaces(folder: Path) -> None:
    texts = read_texts(config(folder))
    assert [(text.name, text.group) for text in texts] == [
        ("aaa", "aaa"), ("aaa_1", "aaa"), ("bbb", "bbb"), ("ccc", "ccc"), ("ddd", "ddd")
    ]  # fmt: skip
    assert all(b"  " not in text.data and b"\n" not in text.data for text in texts)
    assert {len(text.data.decode()) for text in texts} <= set(range(700, 901))
    assert "greek" in {text.name for text in read_texts(config(folder, script=""))}


def test_a_zip_gives_the_same_texts_as_its_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inside/{file.name}")
    assert read_texts(config(tmp_path / "texts.zip")) == read_texts(config(folder))


def test_groups_are_held_out_whole(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.txt").write_text("# a comment\naaa one_family\nbbb one_family\n")
    texts = read_texts(config(folder, groups=str(tmp_path / "groups.txt")))
    training, unseen = split(texts, config(folder, held_out=("one_family",)))
    assert ({t.name for t in training}, {t.name for t in unseen}) == ({"ccc", "ddd"}, {"aaa", "aaa_1", "bbb"})
    many = [Text(f"{i}", f"group {i // 2}", b"x") for i in range(400)]
    training, unseen = split(many, config(folder, held_out=(), share=0.25))
    assert not {t.group for t in training} & {t.group for t in unseen}
    assert 60 < len(unseen) < 140
    assert split(many[::-1], config(folder, held_out=(), share=0.25))[1] == unseen[::-1]  # whatever the order


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"length": 510}, "length is 510, must be at least 511"),
        ({"min_chars": 600}, "min_chars is 600, must be at least length"),
        ({"share": 1.0}, "share is 1.0"),
        ({"sizes": ()}, "sizes is empty"),
        ({"sizes": (TINY, TINY)}, "each may be given once"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(folder: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        config(folder, **changed)


def test_paths_that_hold_no_texts_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="path is not given"):
        read_texts(Config())
    with pytest.raises(BadFile, match="neither a folder nor a zip"):
        read_texts(config(tmp_path / "nowhere"))
    with pytest.raises(BadValue, match="holds 0 texts of script 'CYRILLIC'"):
        read_texts(config(folder, script="CYRILLIC"))
    with pytest.raises(BadValue, match="held_out has 'zzz', which is no group"):
        Experiment(config(folder, held_out=("zzz",)))
    with pytest.raises(BadValue, match="0 held out"):
        Experiment(config(folder, held_out=(), share=1e-9))
    (tmp_path / "groups.txt").write_text("aaa\n")
    with pytest.raises(BadValue, match="'aaa' must be a name and its group"):
        read_texts(config(folder, groups=str(tmp_path / "groups.txt")))


def test_shuffled_words_are_the_same_words() -> None:
    row = torch.tensor(list(b"an ill wind blows no one any good at all today "))
    shuffled = _shuffled(row)
    assert sorted(bytes(shuffled.tolist()).split(b" ")) == sorted(bytes(row.tolist()).split(b" "))
    assert not torch.equal(shuffled, row)
    assert torch.equal(_shuffled(row), shuffled)


def test_curves_hold_each_context_and_differences_are_paired(folder: Path) -> None:
    experiment = Experiment(config(folder, seeds=2))
    assert list(experiment.loops) == ["1x8_0", "1x8_1", "2x8_0", "2x8_1"]
    assert {t.group for t in experiment.unseen} == {"aaa", "ccc"}
    for loop in experiment.loops.values():
        list(loop.run())
    curves = {(curve.learner, curve.tasks): curve.points for curve in experiment.measure().curves}
    by_position = curves["1x8", "held-out texts"]
    assert [point.n_examples for point in by_position] == [0, 8, 16, 32, 64, 128, 256]
    assert {point.n for point in by_position} == {3}
    (own,), (nothing,) = curves["1x8", "last 127 bytes after own text"], curves["1x8", "last 127 bytes after nothing"]
    (gain,), (other,) = (curves[size, "gain from own text over nothing"] for size in ("1x8", "2x8"))
    assert gain.mean == pytest.approx(nothing.mean - own.mean, abs=1e-6)
    (paired,) = curves["2x8 over 1x8", "gain from own text, paired"]
    assert paired.mean == pytest.approx(other.mean - gain.mean, abs=1e-6)
