from __future__ import annotations

import json
import random
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewshot.base.errors import BadFile, BadValue
from fewshot.meta.tasks.classes import Classes, ClassTasks, accuracy, read_classes

OMNIGLOT = Path("/work/shared/data/omniglot_background.zip")


def numbered(counts: list[int]) -> Classes:
    """Texts of two bytes: class, number within it."""
    rows = [[c, i] for c, count in enumerate(counts) for i in range(count)]
    sizes = torch.tensor(counts)
    names = tuple(f"class{c}" for c in range(len(counts)))
    return Classes(torch.tensor(rows, dtype=torch.uint8), sizes.cumsum(0) - sizes, sizes, names)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def png(draw: Image.Image) -> bytes:
    file = BytesIO()
    draw.save(file, "png")
    return file.getvalue()


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_task_has_different_classes_and_no_example_twice():
    drawn = ClassTasks(numbered([5, 9, 6, 5, 7, 8]), n_ways=4).draw(300, 2, 3, generator())
    assert drawn.support_x.shape == (300, 8, 2)
    assert drawn.query_x.shape == (300, 12, 2)
    for task in range(300):
        x = torch.cat([drawn.support_x[task], drawn.query_x[task]])
        y = torch.cat([drawn.support_y[task], drawn.query_y[task]])
        assert len({tuple(example) for example in x.tolist()}) == 20
        classes = [set(x[y == way, 0].tolist()) for way in range(4)]
        assert all(len(members) == 1 for members in classes)
        assert len(set.union(*classes)) == 4
        assert drawn.support_y[task].bincount().tolist() == [2] * 4
        assert drawn.query_y[task].bincount().tolist() == [3] * 4


def test_every_class_and_example_comes_equally_often_under_every_number():
    n, counts = 4000, [3, 6, 4]
    drawn = ClassTasks(numbered(counts), n_ways=2).draw(n, 1, 1, generator())
    for way in range(2):
        seen = drawn.support_x[:, way, 0].bincount(minlength=3) / n
        assert torch.allclose(seen, torch.full((3,), 1 / 3), atol=0.03)
    x = drawn.query_x.flatten(0, 1)
    for c, count in enumerate(counts):
        seen = x[x[:, 0] == c, 1].bincount(minlength=count) / (x[:, 0] == c).sum()
        assert torch.allclose(seen, torch.full((count,), 1 / count), atol=0.04)


def test_the_generator_alone_says_what_is_drawn():
    tasks = ClassTasks(numbered([4, 5, 6]), n_ways=3)
    torch.manual_seed(1)
    first = tasks.draw(7, 1, 2, generator(3))
    torch.manual_seed(2)
    again, other = tasks.draw(7, 1, 2, generator(3)), tasks.draw(7, 1, 2, generator(4))
    assert torch.equal(first.query_x, again.query_x)
    assert not torch.equal(first.query_x, other.query_x)


def test_turned_images_are_classes_of_their_own():
    corner = torch.zeros(2, 3, 3, 1, dtype=torch.uint8)
    corner[:, 0, 0] = 255  # above, left
    classes = Classes(corner, torch.tensor([0]), torch.tensor([2]), ("corner",))
    drawn = ClassTasks(classes, n_ways=4, turned=True).draw(50, 1, 1, generator())
    assert drawn.support_x.sum((2, 3, 4)).eq(1).all()
    corners = drawn.support_x[..., 0].flatten(2).argmax(2)
    assert corners.sort().values.tolist() == [[0, 2, 6, 8]] * 50  # each task has all four turns
    assert torch.equal(drawn.support_x, drawn.query_x)  # and both sets the same turn for a class
    assert len({tuple(order) for order in corners.tolist()}) > 10


def test_the_parts_of_a_split_share_no_class_and_the_seed_decides():
    classes = numbered([2] * 23)
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    parts = classes.split(shares, seed=1)
    assert [len(part) for part in parts.values()] == [12, 5, 6]
    labels = [label for part in parts.values() for label in part.labels]
    assert sorted(labels) == sorted(classes.labels)
    assert (
        classes.split(shares, seed=1)["test"].labels
        == parts["test"].labels
        != classes.split(shares, seed=2)["test"].labels
    )
    drawn = ClassTasks(parts["test"], n_ways=3).draw(100, 1, 1, generator())
    assert {f"class{c}" for c in drawn.query_x[..., 0].flatten().tolist()} == set(parts["test"].labels)
    with pytest.raises(BadValue, match="2 classes cannot be split into 3 parts"):
        numbered([4, 4]).split(shares, seed=0)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_are_read_with_their_folder_as_label(kind, tmp_path):
    black, white = png(Image.new("1", (9, 12), 0)), png(Image.new("1", (9, 12), 1))
    colour = png(Image.new("RGBA", (5, 5), (255, 0, 0, 255)))
    files = {"all/Greek/b/2.png": white, "all/Greek/b/1.PNG": black, "all/Latin/b/1.png": colour,
             "all/readme.md": b"about", "all/Latin/.hidden/1.png": b"", "__MACOSX/Latin/b/._1.png": b""}  # fmt: skip
    del files["all/readme.md"]
    path = write_folder(tmp_path / "it", files) if kind == "folder" else write_zip(tmp_path / "it.zip", files)
    grey, red = read_classes(path, side=4), read_classes(path, side=4, n_channels=3)
    assert grey.labels == ("all/Greek/b", "all/Latin/b")
    assert grey.counts.tolist() == [2, 1]
    assert grey.are_images
    assert grey.examples.shape == (3, 4, 4, 1)
    assert grey.examples[0].eq(255).all()
    assert grey.examples[1].eq(0).all()
    assert red.examples[2, 1, 1].tolist() == [0, 255, 255]
    drawn = ClassTasks(grey.subset(torch.tensor([0, 0])), n_ways=2).draw(1, 1, 1, generator())
    assert drawn.support_x.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])


def test_texts_of_a_folder_and_of_jsonl_are_the_same_byte_ids(tmp_path):
    texts = {"en": ["the cat", "a"], "el": ["γάτα", ""]}
    files = {f"{label}/{i}.txt": text.encode() for label, some in texts.items() for i, text in enumerate(some)}
    folder = read_classes(write_folder(tmp_path / "texts", files), n_bytes=5)
    lines = [json.dumps({"text": t, "label": label}) for label in ("el", "en") for t in texts[label]]
    (tmp_path / "texts.jsonl").write_text("\n".join([*lines, ""]))
    jsonl = read_classes(tmp_path / "texts.jsonl", n_bytes=5)
    assert folder.labels == jsonl.labels == ("el", "en")
    assert torch.equal(folder.examples, jsonl.examples)
    assert folder.examples[2].tolist() == list(b"the c")
    assert folder.examples[3].tolist() == [97, 0, 0, 0, 0]
    assert not folder.are_images
    drawn = ClassTasks(folder, n_ways=2).draw(3, 1, 1, generator())
    assert drawn.support_x.dtype == torch.int64


@pytest.mark.parametrize(
    ("files", "message"),
    [({"a/1.png": b"no picture"}, "a/1.png is not a readable image"), ({"1.png": b""}, "no labelled examples"),
     ({"a/1.csv": b""}, "no labelled examples"),
     ({"a/1.png": png(Image.new("L", (2, 2))), "b/1.txt": b"x"}, "images and texts")],
)  # fmt: skip
def test_what_is_no_labelled_data_is_refused_by_name(files, message, tmp_path):
    for path in (write_folder(tmp_path / "it", files), write_zip(tmp_path / "it.zip", files)):
        with pytest.raises(BadFile, match=message):
            read_classes(path)


def test_a_zip_may_spell_its_names_from_the_folder_it_was_made_in(tmp_path):
    path = write_zip(tmp_path / "it.zip", {"./b/1.txt": b"x", "./a/1.txt": b"y", "c/1.txt/": b""})
    assert read_classes(path).labels == ("a", "b")


def test_files_that_are_absent_damaged_or_lack_labels_are_refused(tmp_path):
    with pytest.raises(BadFile, match="does not exist"):
        read_classes(tmp_path / "nothing.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(BadFile, match="as a zip"):
        read_classes(tmp_path / "bad.zip")
    lines = tmp_path / "lines.jsonl"
    for text, message in (
        ('{"text": "a"}', "line 1 lacks"),
        ('{"text": "a", "label": 1}\n{', "line 2"),
        ("[1]", "line 1"),
    ):
        lines.write_text(text)
        with pytest.raises(BadFile, match=message):
            read_classes(lines)
    for name, value in (("side", 0), ("n_channels", 2), ("n_bytes", 0)):
        with pytest.raises(BadValue, match=f"{name} is {value}"):
            read_classes(lines, **{name: value})


def test_too_few_classes_or_examples_are_named():
    with pytest.raises(BadValue, match="n_ways is 5, allowed: 2 to 3"):
        ClassTasks(numbered([4, 4, 4]), n_ways=5)
    with pytest.raises(BadValue, match=r"1 \+ 4, but 'class1' has 3"):
        ClassTasks(numbered([9, 3, 9]), n_ways=2).draw(1, 1, 4, generator())
    with pytest.raises(BadValue, match="texts cannot be turned"):
        ClassTasks(numbered([4, 4, 4]), n_ways=2, turned=True)


def test_accuracy_is_the_share_of_right_classes():
    logits = torch.tensor([[0.1, 0.9, 0.0], [5.0, 4.0, 3.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 2])).item() == 0.5


@pytest.mark.slow
@pytest.mark.skipif(not OMNIGLOT.is_file(), reason=f"{OMNIGLOT} is not there")
def test_omniglot_in_its_own_layout_is_964_characters_of_20_drawings():
    classes = read_classes(OMNIGLOT, side=7)
    assert len(classes) == 964
    assert classes.counts.unique().tolist() == [20]
    assert classes.labels[0] == "omniglot_background/Alphabet_of_the_Magi/character01"
    ink = classes.examples.float().mean() / 255
    assert 0.02 < ink < 0.2


def test_an_archive_that_was_changed_is_read_or_refused(tmp_path):
    """Bytes of small archives are changed at random."""
    rng, n_refused = random.Random(0), 0
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "whole.zip", "w", kind) as archive:
            for label in "abc":
                archive.writestr(f"{label}/1.txt", label * 40)
        whole = (tmp_path / "whole.zip").read_bytes()
        for _ in range(60):
            changed = bytearray(whole)
            for _ in range(rng.randint(1, 5)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            (tmp_path / "it.zip").write_bytes(changed)
            try:
                read_classes(tmp_path / "it.zip", n_bytes=4)
            except (BadFile, BadValue):
                n_refused += 1
    assert n_refused > 80


def labels_of(folder: Path) -> dict[str, int]:
    classes = read_classes(folder, n_bytes=4)
    return dict(zip(classes.labels, classes.counts.tolist(), strict=True))


def test_linked_folders_are_entered_once_and_without_end(tmp_path):
    write_folder(tmp_path / "far", {"b/1.txt": b"b", "c/1.txt": b"c", "c/2.txt": b"c"})
    root = write_folder(tmp_path / "it", {"a/1.txt": b"a"})
    (root / "b").symlink_to(tmp_path / "far" / "b")
    (root / "more").symlink_to(tmp_path / "far")
    (root / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "nowhere").symlink_to("gone")
    (root / "a" / "2.txt").symlink_to(tmp_path / "far" / "c" / "2.txt")
    assert labels_of(root) == {"a": 2, "b": 1, "more/c": 2}
    (tmp_path / "all").symlink_to(root)
    assert labels_of(tmp_path / "all") == {"a": 2, "b": 1, "more/c": 2}
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x").symlink_to(tmp_path / "far" / "c")
    assert labels_of(tmp_path / "only") == {"x": 2}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_label_of_training_and_test_files_is_one_class(kind, tmp_path):
    parts = ("train", "Test", "val")
    files = {f"{part}/{label}/{i}.txt": label.encode() for part in parts for label in "ab" for i in "12"}
    files |= {"train/c/1.txt": b"c", "validation/d/1.txt": b"d"}
    path = write_folder(tmp_path / "it", files) if kind == "folder" else write_zip(tmp_path / "it.zip", files)
    classes = read_classes(path, n_bytes=1)
    assert dict(zip(classes.labels, classes.counts.tolist(), strict=True)) == {"a": 6, "b": 6, "c": 1, "d": 1}
    for label, first, count in zip(classes.labels, classes.firsts.tolist(), classes.counts.tolist(), strict=True):
        assert classes.examples[first : first + count].unique().tolist() == [ord(label)]


def test_a_class_may_be_called_train_and_alphabets_keep_their_characters_apart(tmp_path):
    files = ("vehicles/train/1.txt", "vehicles/bus/1.txt", "Greek/01/1.txt", "Latin/01/1.txt", "x/train/y/01/1.txt")
    assert set(labels_of(write_folder(tmp_path / "it", dict.fromkeys(files, b"x")))) == {
        "vehicles/train", "vehicles/bus", "Greek/01", "Latin/01", "x/y/01"
    }  # fmt: skip


def test_images_that_are_all_alike_are_said(tmp_path, capsys):
    same, other = png(Image.new("1", (4, 4), 0)), png(Image.new("1", (4, 4), 1))
    read_classes(write_folder(tmp_path / "it", {"a/1.png": same, "b/1.png": same}))
    assert "all 2 images" in capsys.readouterr().err
    read_classes(write_folder(tmp_path / "it", {"a/1.png": same, "b/2.png": other}))
    assert "all" not in capsys.readouterr().err


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5000, '{"text": "a", "label": ' + "[" * 9999])
def test_json_that_cannot_be_used_is_refused_by_its_line(line, tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"text": "a", "label": 1}\n' + line)
    with pytest.raises(BadFile, match="line 2"):
        read_classes(tmp_path / "lines.jsonl")


@pytest.mark.parametrize(("option", "value"), [("side", 10**7), ("n_bytes", 10**13)])
def test_examples_that_fit_into_no_memory_are_refused_at_once(option, value, tmp_path):
    files = {"a/1.png": png(Image.new("1", (4, 4)))} if option == "side" else {"a/1.txt": b"x"}
    with pytest.raises(BadValue, match=rf"data.{option}"):
        read_classes(write_folder(tmp_path / "it", files), **{option: value})
