"""From paths to tokens: what is held out, however a path is spelled; text is streamed; shards know their rule."""

from __future__ import annotations

import json
import math
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.cli.main import main
from fewshot.corpus.sources import read_documents
from fewshot.corpus.stretches import stretches_of
from fewshot.dataset.encode import encoded
from fewshot.dataset.prepare import DataConfig, SourceConfig, build_tokens, load_tokens, make_tokenizer, measure_text
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.pieces import pieces

SetInModule = Callable[[object, str, object], None]
SHAPE = [
    *("--model.n_layers", "1", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "16"),
    *("--data.tokenizer", "chars", "--schedule.batch_tokens", "32", "--loop.compile", "never", "--n_tokens", "64"),
]


def quiet(line: str) -> None:
    pass


def config(*text: Path | str, **options: Any) -> DataConfig:
    return DataConfig(sources=(SourceConfig(name="text", text=tuple(map(str, text))),), **options)


def held_out(data: DataConfig, folder: Path) -> bytes:
    """The held-out tokens, all bytes of them."""
    build_tokens(data, measure_text(data, say=quiet), Bytes(), folder, say=quiet)
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*-val-*.bin")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with 120 documents in the folder `books`."""
    here = tmp_path / "here"
    (here / "books/deep").mkdir(parents=True)
    for number in range(60):
        (here / f"books/{number:02}.txt").write_text(f"book {number}")
    lines = "".join(json.dumps({"text": f"tale {number}"}) + "\n" for number in range(60))
    (here / "books/deep/tales.jsonl").write_text(lines)
    (here / "link").symlink_to("books")
    shutil.copytree(here / "books", here / "moved/to/elsewhere")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.chdir(here)
    return here


SPELLINGS = [
    *("./books", "books/", "books//", "books/.", "books/deep/..", "../here/books", "{here}/books", "~/books"),
    *("link", "link/", "{here}/link", "moved/to/elsewhere"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_held_out_does_not_depend_on_how_the_path_is_spelled(here: Path, spelling: str) -> None:
    wanted = held_out(config("books"), here / "wanted")
    assert 5 <= wanted.count((256).to_bytes(2, "little")) <= 25  # documents, 12 +- 3.3 standard deviations of 3.3
    assert held_out(config(spelling.format(here=here)), here / "found") == wanted


@pytest.mark.parametrize("cwd", ["books", "books/deep", "/"])
def test_what_is_held_out_does_not_depend_on_the_current_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, cwd: str
) -> None:
    wanted = held_out(config("books"), here / "wanted")
    monkeypatch.chdir(here / cwd)
    assert held_out(config(os.path.relpath(here / "books")), here / "found") == wanted


def test_what_is_held_out_does_not_depend_on_the_order_of_files(here: Path) -> None:
    files = [f"books/{number:02}.txt" for number in range(60)]
    eot = (256).to_bytes(2, "little")
    first, second = (
        held_out(config(*order, val_by="document"), here / name).split(eot)
        for name, order in (("first", files), ("second", [f"{here}/{file}" for file in reversed(files)]))
    )
    assert first != second
    assert sorted(first) == sorted(second)


def test_two_spellings_of_one_path_give_train_the_same_tokens(here: Path) -> None:
    for run, path in (("a", "books"), ("b", f"{here}/moved/../link/")):
        assert main(["train", "--text", path, "--out", run, *SHAPE]) == 0
    for name in ("text-train-00000.bin", "text-val-00000.bin", "text-train.json", "text-val.json"):
        assert Path("a/data", name).read_bytes() == Path("b/data", name).read_bytes()
    assert json.loads(Path("a/data/text-val.json").read_text())["shards"][0]["rule"] == "document 2"


@pytest.mark.parametrize(
    ("n_documents", "val_fraction", "val_by", "expected"),
    [
        (99, 0.1, None, "tail"),
        (100, 0.1, None, "document"),
        (199, 0.05, None, "tail"),
        (200, 0.05, None, "document"),
        (200, 0.1, "tail", "tail"),
        (99, 0.1, "document", "document"),
    ],
)
def test_whole_documents_are_held_out_where_ten_are_expected(
    tmp_path: Path, n_documents: int, val_fraction: float, val_by: str | None, expected: str
) -> None:
    text = tmp_path / "a.jsonl"
    text.write_text("".join(json.dumps({"text": f"{number:03} of the tale"}) + "\n" for number in range(n_documents)))
    data = config(text, val_fraction=val_fraction, val_by=val_by)
    measured = measure_text(data, say=quiet)
    (size,) = measured.sizes
    assert (size.n_documents, size.n_bytes, size.held_out_by) == (n_documents, 15 * n_documents, expected)
    said: list[str] = []
    tokens = build_tokens(data, measured, Bytes(), tmp_path / "data", say=said.append)
    (training,), (validation,) = tokens.training[0], tokens.validation
    if expected == "tail":
        assert (training.n_documents, validation.n_documents) == (n_documents, n_documents)
        assert said[0].endswith("held out for validation: the end of every document")
    else:
        assert training.n_documents + validation.n_documents == n_documents
        assert said[0].endswith("held out for validation: whole documents")
    assert training.n_bytes + validation.n_bytes == 15 * n_documents
    assert size.n_training_chars == training.n_bytes


def test_bits_per_byte_are_the_loss_over_the_bytes_of_the_held_out_text(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("aé☃ " * 250, encoding="utf-8")  # 1,000 characters of 1 + 2 + 3 + 1 bytes
    assert main(["train", "--text", str(text), "--out", str(tmp_path / "run"), *SHAPE]) == 0
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    n_tokens, n_bytes = 100 + 1, 25 * 7  # the last tenth: 100 characters and the end of the text
    assert last["val_bits_per_byte"] == pytest.approx(last["val_loss"] / math.log(2) * n_tokens / n_bytes, rel=1e-12)


def test_skipped_files_are_told_once(here: Path) -> None:
    Path("books/empty.txt").touch()
    said: list[str] = []
    data = config("books", tokenizer="bpe", n_vocab=260)
    measured = measure_text(data, say=said.append)
    tokenizer = make_tokenizer(data, measured, n_vocab=None, say=said.append)
    build_tokens(data, measured, tokenizer, here / "data", say=said.append)
    assert [line for line in said if "empty.txt" in line] == ["skipped: books/empty.txt is empty"]


@pytest.mark.parametrize("tokenizer", ["bytes", "chars", "bpe"])
@pytest.mark.parametrize("val_by", ["tail", "document"])
def test_documents_are_never_all_held(
    tmp_path: Path, set_in_module: Callable[[object, str, object], None], tokenizer: str, val_by: str
) -> None:
    n_documents, n_chars = 40, 200_000
    set_in_module(measure_text, "SAMPLE_BYTES", n_chars)
    set_in_module(encoded, "n_cores", lambda: 2)  # some pieces are held for each
    for number in range(n_documents):
        (tmp_path / f"{number}.txt").write_text("It was a dark night, said he. "[: 30 - number % 7] * (n_chars // 25))
    data = config(tmp_path, tokenizer=tokenizer, n_vocab=260 if tokenizer == "bpe" else None, val_by=val_by)
    measure_text(data, say=quiet)  # what is loaded once is no matter
    tracemalloc.start()
    try:
        measured = measure_text(data, say=quiet)
        made = make_tokenizer(data, measured, n_vocab=None, say=quiet)
        build_tokens(data, measured, made, tmp_path / "data", say=quiet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * n_chars  # all documents together are 36 n_chars


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
@pytest.mark.parametrize("val_by", ["tail", "document"])
def test_a_long_text_is_never_held_and_has_the_tokens_of_the_whole(
    tmp_path: Path, set_in_module: SetInModule, tokenizer: str, val_by: str
) -> None:
    n_chars = 50_000
    set_in_module(measure_text, "SAMPLE_BYTES", n_chars)
    set_in_module(encoded, "n_cores", lambda: 2)  # some pieces are held for each
    for of in (pieces, encoded):
        set_in_module(of, "PIECE_CHARS", 4000)
    for number in range(4):  # some are held out by document, some are not
        text = f"It was a dark night number {number}, said he, and so on. "
        (tmp_path / f"{number}.txt").write_text(text * (n_chars * 30 // len(text)))
    data = config(
        tmp_path, tokenizer=tokenizer, n_vocab=260 if tokenizer == "bpe" else None, val_by=val_by, val_fraction=0.5
    )

    def made(folder: str) -> tuple[dict[str, bytes], int]:
        tracemalloc.start()
        try:
            measured = measure_text(data, say=quiet)
            trained = make_tokenizer(data, measured, n_vocab=None, say=quiet)
            build_tokens(data, measured, trained, tmp_path / folder, say=quiet)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.bin")}, peak

    whole, peak = made("whole")
    assert peak > 25 * n_chars  # 30 n_chars are in a text
    set_in_module(read_documents, "LONG_BYTES", n_chars)
    set_in_module(stretches_of, "STRETCH_CHARS", n_chars)
    stretches, peak = made("stretches")
    assert peak < 20 * n_chars
    if tokenizer == "bytes":  # a BPE is trained on another part of the text
        assert stretches == whole


def test_tokens_whose_making_was_stopped_are_gone_on_with(
    here: Path, set_in_module: SetInModule, capsys: pytest.CaptureFixture[str]
) -> None:
    set_in_module(encoded, "PIECE_CHARS", 100)
    data = config("books", tokenizer="bpe", n_vocab=260)

    class Bar:
        def __init__(self, name: str, *, n_bytes: int | None = None) -> None:
            self.is_last = name.startswith("tokenising")

        def __enter__(self) -> Callable[[int], None]:
            return self.done

        def done(self, n_bytes: int) -> None:
            if self.is_last and n_bytes > 500:
                raise KeyboardInterrupt

        def __exit__(self, *error: object) -> None:
            return None

    def made(folder: str) -> dict[str, bytes]:
        measured = measure_text(data, say=quiet)
        build_tokens(data, measured, make_tokenizer(data, measured, n_vocab=None, say=quiet), here / folder, say=quiet)
        return {path.name: path.read_bytes() for path in (here / folder).iterdir()}

    wanted = made("wanted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewshot.dataset.prepare.byte_bar", Bar)
        with pytest.raises(KeyboardInterrupt):
            made("data")
    capsys.readouterr()
    assert made("data") == wanted
    assert capsys.readouterr().err.startswith("text-train: going on behind ")


def test_the_size_of_the_text_is_that_of_the_training_part(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 999 + "é")
    (size,) = measure_text(config(tmp_path / "a.txt"), say=quiet).sizes
    assert (size.n_documents, size.n_bytes, size.n_training_chars) == (1, 1001, 900)


@pytest.mark.parametrize("val_by", ["tail", "document"])
@pytest.mark.parametrize("more", ["x", "é" * 100])
def test_text_that_grows_between_two_passes_is_refused(here: Path, val_by: str, more: str) -> None:
    data = config("books", val_by=val_by)
    measured = measure_text(data, say=quiet)
    with Path("books/00.txt").open("a", encoding="utf-8") as file:
        file.write(more)
    with pytest.raises(BadFile, match="the text of source 'text' changed while it was read"):
        build_tokens(data, measured, Bytes(), here / "data", say=quiet)
    build_tokens(data, measure_text(data, say=quiet), Bytes(), here / "data", say=quiet)


def changed(folder: Path, name: str, rule: str | None) -> None:
    index = json.loads((folder / f"{name}.json").read_text())
    for shard in index["shards"]:
        shard.pop("rule") if rule is None else shard.update(rule=rule)
    (folder / f"{name}.json").write_text(json.dumps(index))


def test_tokens_of_an_older_rule_stay_as_they_are(here: Path) -> None:
    data = config("books")
    held_out(data, here / "data")
    for name in ("text-train", "text-val"):
        changed(here / "data", name, None)
    tokens = load_tokens(data, here / "data")
    assert [shard.rule for shard in (*tokens.training[0], *tokens.validation)] == ["", ""]


def test_parts_of_two_rules_are_refused(here: Path) -> None:
    data = config("books")
    held_out(data, here / "data")
    changed(here / "data", "text-val", "document 1")
    with pytest.raises(BadFile, match=r"split by different rules .document 1 and document 2.*start a new run"):
        load_tokens(data, here / "data")


def test_tokens_that_another_rule_left_unfinished_are_made_again_and_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = held_out(config("books"), here / "data")
    changed(here / "data", "text-val", None)
    assert held_out(config("books"), here / "data") == wanted
    assert "text-val: tokenising again: validation text chosen by another rule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "x",
            {},
            "of 1 characters in 1 documents none is training text, with val_fraction 0.1 by tail: give more text",
        ),
        ("xyz", {"val_by": "document", "val_fraction": 1e-9}, "none is validation text, with val_fraction 1e-09 by do"),
        ("xyz", {"val_by": "document", "val_fraction": 1 - 1e-9}, "none is training text"),
    ],
)
def test_a_part_without_text_is_said_before_anything_is_trained(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(BadValue, match=message):
        measure_text(config(tmp_path / "a.txt", **options), say=quiet)
    measure_text(config(tmp_path / "a.txt", val_fraction=0), say=quiet)


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "", "/absolute", ".", "a/", "/"])
def test_a_name_of_a_source_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="use letters, digits, - and _"):
        SourceConfig(name=name, text=("a.txt",))


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(BadValue, match="the path of a text is empty"):
        config("books", "")


def test_records_are_read_from_the_field_of_the_data_or_of_the_source(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record = {"body": f"body of {name}", "content": f"content of {name}"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    sources = (
        SourceConfig(name="one", text=(str(tmp_path / "one.jsonl"),)),
        SourceConfig(name="two", text=(str(tmp_path / "two.jsonl"),), text_field="content"),
    )
    data = DataConfig(sources=sources, text_field="body", val_fraction=0)
    tokens = build_tokens(data, measure_text(data, say=quiet), Bytes(), tmp_path / "data", say=quiet)
    texts = [bytes(shards[0].tokens()[:-1].astype("uint8").tolist()) for shards in tokens.training]
    assert texts == [b"body of one", b"content of two"]
    with pytest.raises(BadFile, match=r"has no field 'text'; it has: body, content; set --data.text_field to one"):
        measure_text(DataConfig(sources=sources), say=quiet)


def test_a_missing_tokenizer_is_said_before_any_text_is_read(
    here: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    def read_documents(*args: object, **options: object) -> None:
        raise AssertionError("read")

    set_in_module(measure_text, "read_documents", read_documents)
    with pytest.raises(BadFile, match=r"nowhere.json does not exist"):
        measure_text(config("books", tokenizer="nowhere.json"), say=quiet)


@pytest.mark.parametrize("kind", ["bpe", "chars"])
def test_every_pass_tells_its_bar_all_its_bytes(
    here: Path, set_in_module: Callable[[object, str, object], None], kind: str
) -> None:
    seen: dict[str, list[int]] = {}

    class Bar:
        def __init__(self, name: str, *, n_bytes: int | None = None) -> None:
            self.done = seen.setdefault(name, [n_bytes or 0])

        def __enter__(self) -> Any:
            return self.done.append

        def __exit__(self, *error: object) -> Iterator[None] | None:
            return None

    set_in_module(measure_text, "byte_bar", Bar)
    data = config("books", tokenizer=kind)
    measured = measure_text(data, say=quiet)
    tokenizer = make_tokenizer(data, measured, n_vocab=None, say=quiet)
    build_tokens(data, measured, tokenizer, here / "data", say=quiet)
    n_bytes = measured.sizes[0].n_bytes
    assert {name: (done[0], done[-1]) for name, done in seen.items()} == {
        "reading text": (0, n_bytes),
        "reading for the tokenizer": (n_bytes, measured.sizes[0].n_training_chars if kind == "bpe" else n_bytes),
        "tokenising text": (n_bytes, n_bytes),
    }
    assert all(done[1:] == sorted(done[1:]) for done in seen.values())
