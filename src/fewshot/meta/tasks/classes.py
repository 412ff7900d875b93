"""Episodes of classes: N-way K-shot tasks from a folder, zip or .jsonl of labelled images or texts.

In: files whose folder is their label (`label/file.png`, `label/file.txt`; Omniglot's `alphabet/character/drawing.png`),
or rows of JSON with a text and a label. Out: all of them as one tensor of bytes, split by class, and tasks of them. A
text is its bytes in UTF-8, cut or padded with zeros to a fixed length. Knows no learner.
"""

from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fewshot.base.errors import BadFile, check
from fewshot.base.files import parse_json, read_text
from fewshot.base.log import note
from fewshot.base.machine import check_fits
from fewshot.base.rng import seed_of
from fewshot.meta.episodes import Episodes
from fewshot.meta.state import digest
from fewshot.meta.tasks.images import as_pixels

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TEXTS = (".txt", ".md")
# zipfile raises these for damaged or truncated archives
UNPACKED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError, LookupError,
    RuntimeError,
)  # fmt: skip
TURNS = 4  # rotations, by 90 degrees each
SPLIT_FOLDERS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation"}


@dataclass(frozen=True)
class Classes:
    """Labelled examples, sorted by class: class c has `counts[c]` of them from index `firsts[c]` on.

    An image is (side, side, channels), ink 255 and paper 0, as in a drawing; a text is (length,).
    """

    examples: UInt8[Tensor, "E ..."]
    firsts: Int[Tensor, " C"]
    counts: Int[Tensor, " C"]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def are_images(self) -> bool:
        """Whether the examples are images; else they are texts."""
        return self.examples.dim() == 4

    def digest(self) -> str:
        """Return the sha256 of labels, counts and examples: the same for the same classes, whatever their path."""
        places = zip(self.labels, self.firsts.tolist(), self.counts.tolist(), strict=True)
        return digest({label: self.examples[first : first + count] for label, first, count in places})

    def subset(self, which: Int[Tensor, " c"]) -> Classes:
        """Return the classes with these indices; the tensor of examples is shared."""
        labels = tuple(self.labels[i] for i in which.tolist())
        return Classes(self.examples, self.firsts[which], self.counts[which], labels)

    def split(self, shares: Mapping[str, float], *, seed: int) -> dict[str, Classes]:
        """Return disjoint parts of the classes by name, drawn by the seed; the last part gets what rounding leaves."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed_of("classes", seed)))
        sizes = [round(share * len(self)) for share in shares.values()]
        sizes[-1] = len(self) - sum(sizes[:-1])
        check(
            min(sizes) >= 1,
            f"{len(self)} classes cannot be split into {len(sizes)} parts by shares of "
            f"{', '.join(f'{share:g} ({name})' for name, share in shares.items())}: "
            "each needs at least 1; give more classes or other shares",
        )
        parts = order.split(sizes)
        return {name: self.subset(part.sort().values) for name, part in zip(shares, parts, strict=True)}


@dataclass(frozen=True)
class ClassTasks:
    """Tasks of classification: `n_ways` classes, drawn and numbered anew for each task, from some examples of each.

    With `turned`, an image and its rotations by 90, 180 and 270 degrees belong to four different classes.
    Source: Vinyals et al. 2016; rotations Santoro et al. 2016.
    """

    classes: Classes
    n_ways: int = 5
    turned: bool = False

    def __post_init__(self) -> None:
        turns = TURNS if self.turned else 1
        check(not self.turned or self.classes.are_images, "texts cannot be turned: give turned false")
        check(
            2 <= self.n_ways <= turns * len(self.classes),
            f"n_ways is {self.n_ways}, allowed: 2 to {turns * len(self.classes)}, the classes that there are: "
            "lower n_ways, or give more classes",
        )

    def check_enough(self, n_support: int, n_query: int) -> None:
        """Raise BadValue if a class has fewer than `n_support + n_query` examples."""
        fewest, n_each = int(self.classes.counts.argmin()), n_support + n_query
        count, label = int(self.classes.counts[fewest]), self.classes.labels[fewest]
        check(
            count >= n_each,
            f"n_support + n_query is {n_support} + {n_query}, but {label!r} has {count} examples: "
            f"lower them, or leave out classes with fewer than {n_each}",
        )

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh tasks with disjoint support and query sets; raises BadValue if a class has too few examples.

        Counts are of each class. x is (N, ways * examples, ...): images as numbers from 0 to 1, texts as byte ids; y is
        the class, from 0.
        """
        self.check_enough(n_support, n_query)
        classes, n_each = self.classes, n_support + n_query
        drawn = _some_of(torch.full((n_tasks,), len(classes) * (TURNS if self.turned else 1)), self.n_ways, generator)
        turn, which = drawn // len(classes), drawn % len(classes)
        places = _some_of(classes.counts[which], n_each, generator) + classes.firsts[which][..., None]
        x = classes.examples[places]
        if classes.are_images:
            if self.turned:
                for quarter in range(1, TURNS):
                    x[turn == quarter] = torch.rot90(x[turn == quarter], quarter, (2, 3))
            x = x / 255
        else:
            x = x.long()
        y = torch.arange(self.n_ways)[:, None].expand(n_tasks, self.n_ways, n_each)
        return Episodes(*(part.flatten(1, 2) for half in (slice(n_support), slice(n_support, None))
                          for part in (x[:, :, half], y[:, :, half])))  # fmt: skip


def _some_of(sizes: Int[Tensor, "*N"], n: int, generator: torch.Generator) -> Int[Tensor, "*N n"]:
    """Return, for each size, n different numbers below it in random order."""
    lots = torch.rand(*sizes.shape, int(sizes.max()), generator=generator)
    lots.masked_fill_(torch.arange(lots.shape[-1]) >= sizes[..., None], -1.0)
    return lots.topk(n).indices


def accuracy(predictions: Float[Tensor, "Q W"], y: Int[Tensor, " Q"]) -> Float[Tensor, ""]:
    """Return the share of queries whose class has the highest logit."""
    return (predictions.argmax(-1) == y).float().mean()


def read_classes(path: Path, *, side: int = 28, n_channels: int = 1, n_bytes: int = 128) -> Classes:
    """Return the labelled images or texts of a folder, zip or .jsonl (rows with `text` and `label`).

    Images become `side` x `side` with 1 (grey) or 3 channels, texts `n_bytes` long. Files are sorted by name. Raises
    BadFile if there is nothing to read, no example, or both images and texts; BadValue for sizes beyond memory.
    """
    check(side >= 1, f"side is {side}, must be at least 1")
    check(n_channels in (1, 3), f"n_channels is {n_channels}, allowed: 1 (grey), 3 (colour)")
    check(n_bytes >= 1, f"n_bytes is {n_bytes}, must be at least 1")
    check_fits(side * side * n_channels, f"an image with data.side {side:,}", "lower data.side")
    check_fits(n_bytes, f"a text with data.n_bytes {n_bytes:,}", "lower data.n_bytes")
    if not path.exists():
        raise BadFile(f"{path} does not exist: give a folder or zip of label/file.png or label/file.txt, or a .jsonl")
    by_label: dict[str, list[Tensor]] = {}
    suffixes = set()
    if path.suffix == ".jsonl":
        for label, text in _read_rows(path):
            by_label.setdefault(label, []).append(_as_bytes(text.encode(), n_bytes))
    else:
        for name, data in _files(path):
            is_image = name.suffix.lower() in IMAGES
            suffixes.add(name.suffix.lower())
            example = as_pixels(data, side, n_channels, f"{path}: {name}") if is_image else _as_bytes(data, n_bytes)
            by_label.setdefault(_label(name.parent), []).append(example)
    if not by_label:
        raise BadFile(f"{path} holds no labelled examples: label/file with {', '.join(IMAGES + TEXTS)} is needed")
    if suffixes & set(IMAGES) and suffixes & set(TEXTS):
        raise BadFile(f"{path} holds images and texts ({', '.join(sorted(suffixes))}): put them into two folders")
    counts = torch.tensor([len(examples) for examples in by_label.values()])
    stacked = torch.stack([example for examples in by_label.values() for example in examples])
    if suffixes & set(IMAGES) and len(stacked) > 1 and bool((stacked == stacked[0]).all()):
        note(
            f"all {len(stacked):,} images in {path} are alike when they are read as {_colour_name(n_channels)} on white"
        )
    return Classes(stacked, counts.cumsum(0) - counts, counts, tuple(by_label))


def _colour_name(n_channels: int) -> str:
    return "grey" if n_channels == 1 else "colour"


def _files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (name, content) of the images and texts in a folder or zip, without those outside any label folder."""

    def is_example(name: PurePosixPath) -> bool:
        is_visible = not any(part.startswith((".", "__")) for part in name.parts)
        return is_visible and len(name.parts) >= 2 and name.suffix.lower() in IMAGES + TEXTS

    if path.is_dir():
        below = (file for file in _files_below(path) if file.is_file())
        names = sorted(PurePosixPath(file.relative_to(path).as_posix()) for file in below)
        for name in filter(is_example, names):
            yield name, (path / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            files = ((PurePosixPath(info.filename), info) for info in archive.infolist() if not info.is_dir())
            for name, info in sorted(files, key=lambda pair: pair[0]):
                if is_example(name):
                    check_fits(info.file_size, f"{name} in {path}", "take it out")
                    yield name, archive.read(info)
    except UNPACKED as error:
        raise BadFile(f"{path} cannot be read as a zip ({error}); allowed: a folder, a zip, a .jsonl") from None


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; linked folders are followed, but none is entered twice."""
    entered: set[Path] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []  # followed last, so that a real folder keeps its own name
        for top in waiting:
            for place, folders, files in os.walk(top):
                real = Path(place).resolve()
                if real in entered:
                    folders.clear()
                    continue
                entered.add(real)
                yield from (Path(place, name) for name in files)
                links += [link for name in sorted(folders) if (link := Path(place, name)).is_symlink()]
        waiting = links


def _label(folder: PurePosixPath) -> str:
    """Return the class of a folder's files: its path, without folders above it such as `train` and `test`.

    `train/cat` and `test/cat` are one class: of two, one could be trained on and the other be tested as unseen.
    """
    *above, name = folder.parts
    return "/".join([*(part for part in above if part.lower() not in SPLIT_FOLDERS), name])


def _read_rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path} line {number}")
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("text"), str)
            or not isinstance(row.get("label"), str | int)
        ):
            raise BadFile(
                f'{path} line {number} lacks a text or a label: each line needs {{"text": ..., "label": ...}}'
            )
        yield str(row["label"]), row["text"]


def _as_bytes(data: bytes, n_bytes: int) -> UInt8[Tensor, " L"]:
    return torch.frombuffer(bytearray(data[:n_bytes].ljust(n_bytes, b"\0")), dtype=torch.uint8)
