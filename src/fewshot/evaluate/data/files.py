"""Files of examples in their original layouts. In: a folder, or a zip archive as downloaded. Out: rows and texts.

A file is found by the end of its path, wherever it lies in the folder, plain or as .gz or .bz2. What else holds such
files is another `Data` (`tasks/hub.py`). Knows no task.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import parse_json
from fewshot.evaluate.data.schema import Kind, Maybe, check_kind, tidied
from fewshot.evaluate.example import Example

T = TypeVar("T")
Row = dict[str, Any]

MAX_FILES = 100_000  # with the folders; a folder with more is hardly one of evaluation sets
MAX_BYTES = 2**31  # of one file, unpacked; no set has a larger one
OPENERS: dict[str, Callable[[Any], Any] | None] = {"": None, ".gz": gzip.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class Found:
    """One file of a folder, an archive or whatever else holds files."""

    name: str  # path inside
    data: Data

    def __str__(self) -> str:
        return f"{self.data}/{self.name}"

    @property
    def short(self) -> str:
        """Its name without folders."""
        return self.name.rpartition("/")[2]

    @property
    def kind(self) -> str:
        """Its suffix, whether it is packed or not: ".jsonl" of a.jsonl.gz."""
        return PurePosixPath(self.name.removesuffix(".gz").removesuffix(".bz2")).suffix

    def text(self) -> str:
        """Return its text, unpacked; raises BadFile where it is damaged or not UTF-8."""
        return self.data.text_of(self.name)

    def rows(self, *fields: str, **kinds: Kind) -> list[Row]:
        """Return the objects of a JSON-lines file, each with all `fields`, and values of these kinds; BadFile has the
        line.
        """
        return self.each(lambda number, row: row, **dict.fromkeys(fields, object), **kinds)

    def each(self, make: Callable[[int, Row], T], **kinds: Kind) -> list[T]:
        """Return what `make(number from 1, row)` gives for every row; what is wrong in one raises BadFile with its
        line.
        """
        made: list[T] = []
        for line_number, line in enumerate(self.text().split("\n"), start=1):  # not splitlines: strings hold U+2028
            if line.strip():
                where = f"{self} line {line_number}"
                row = _from_json(line, where)
                if not isinstance(row, dict) or not all(key in row for key in kinds if _is_needed(kinds[key])):
                    needed = (repr(key) for key in kinds if _is_needed(kinds[key]))
                    raise BadFile(f"{where} must be an object with {', '.join(needed)}")
                with _told(where):
                    check_kind(row, kinds)
                    made.append(make(len(made) + 1, row))
        if not made:
            raise BadFile(f"{self} holds no examples")
        return made

    def json(self, kind: Kind = object) -> Any:
        """Return the value of a JSON file; raises BadValue where it is of another kind, to be told by `laid_out`."""
        value = _from_json(self.text(), self)
        check_kind(value, kind)
        return value


def _is_needed(kind: Kind) -> bool:
    return not isinstance(kind, Maybe)


def _from_json(text: str, where: object) -> Any:
    value = parse_json(text, where)
    return tidied(value) if "\\u" in text else value


class Data(ABC):
    """Evaluation sets: files by their paths."""

    label: str  # begins every path, so that a set is found whose folder is `data` itself

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Paths of all files, the least deep first."""

    @abstractmethod
    def text_of(self, name: str) -> str:
        """Return the text of the file of that path."""

    def find(self, *ends: str) -> Found | None:
        """Return the first file whose path ends so, in the order of `ends`; the parts of a path are compared whole."""
        for end in ends:
            wanted = tuple(f"/{end}{packed}" for packed in OPENERS)
            for name in self.names:
                if f"/{self.label}/{name}".endswith(wanted):
                    return Found(name, self)
        return None

    def need(self, task: str, *ends: str) -> Found:
        """As `find`, but a file that is missing raises BadFile with the names that would do."""
        found = self.find(*ends)
        if found is None:
            raise BadFile(f"{task}: {self} holds no {' or '.join(ends)}")
        return found

    def beside(self, file: Found, name: str) -> Found | None:
        """Return the file of that name in the same folder as `file`, where there is one."""
        wanted = str(PurePosixPath(file.name).with_name(name))
        return next((Found(wanted + packed, self) for packed in OPENERS if wanted + packed in self.names), None)

    def under(self, folder: str, suffix: str = "") -> list[Found]:
        """Return all files in a folder of that path, however deep it lies, in order."""
        inside = [name for name in self.names if f"/{folder}/" in f"/{self.label}/{name}" and name.endswith(suffix)]
        return [Found(name, self) for name in inside]


class DataFolder(Data):
    """A folder of evaluation sets, or one zip archive."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir() and not zipfile.is_zipfile(path):
            raise BadFile(f"{path} is neither a folder nor a zip archive: give the one that holds the original files")
        self.path, self.label = path, path.name

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def names(self) -> list[str]:
        """Paths of all files inside, the least deep first."""
        if self.path.is_dir():
            names = [file.relative_to(self.path).as_posix() for file in _files(self.path)]
        else:
            with zipfile.ZipFile(self.path) as archive:
                names = [one.filename for one in archive.infolist() if not one.is_dir()]
        real = [name for name in names if not Path(name).name.startswith(".") and "__MACOSX" not in name]
        return sorted(real, key=lambda name: (name.count("/"), name))

    def text_of(self, name: str) -> str:
        """Return the file's text, unpacked; raises BadFile where it is damaged or not UTF-8."""
        try:
            with contextlib.ExitStack() as stack:
                if self.path.is_dir():
                    packed: Any = stack.enter_context((self.path / name).open("rb"))
                else:
                    packed = stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(name))
                unpack = OPENERS.get(Path(name).suffix)
                data = (stack.enter_context(unpack(packed)) if unpack else packed).read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise BadFile(f"{self}/{name} unpacks to more than {MAX_BYTES:,} bytes: no evaluation set is so large")
            return data.decode("utf-8-sig")
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
            raise BadFile(f"{self}/{name} is damaged: {error}") from None


@contextmanager
def laid_out(file: Found, layout: str) -> Iterator[None]:
    """Raises BadFile where what is read inside lacks a field, or has another kind of value, than in that layout."""
    with _told(f"{file} is not laid out as {layout}"):
        yield


@contextmanager
def _told(where: object) -> Iterator[None]:
    """Raises BadFile with the place where a value inside is not what is needed."""
    try:
        yield
    except BadValue as error:
        raise BadFile(f"{where}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"{where}: {type(error).__name__} {error}") from None


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files inside; links to folders are entered, but none that leads back to a folder that it stands in."""
    n_seen = 0
    for parent, folders, files in os.walk(folder, followlinks=True):
        n_seen += 1 + len(files)
        if n_seen > MAX_FILES:
            raise BadFile(f"{folder} holds more than {MAX_FILES:,} files: give the evaluation sets' folder")
        above = {os.path.realpath(one) for one in (Path(parent), *Path(parent).parents) if one.is_relative_to(folder)}
        folders[:] = [name for name in folders if os.path.realpath(Path(parent, name)) not in above]
        yield from (path for path in (Path(parent, name) for name in files) if path.is_file())


class NeedsData(BadValue):
    """A task whose files were not given."""

    def __init__(self, task: str, files: str) -> None:
        super().__init__(f"{task} needs --data FOLDER, the folder that holds {files}")
        self.files = files


def needed(task: str, data: Data | None, *ends: str) -> Data:
    """Return `data`; where none was given, `NeedsData` says that the task needs one and what it should hold."""
    if data is None:
        raise NeedsData(task, " or ".join(ends))
    return data


def read_released(file: Found) -> list[Example]:
    """Return examples of a file as released with the paper: {"context": ..., "completion": ...} in every line.

    The id is the context without its line breaks, and behind it the line's number where a context comes again.
    Source: the paper's repository, folder data.
    """
    examples: dict[str, Example] = {}

    def add(number: int, row: Row) -> None:
        name = row["context"].strip()
        name = f"{name} ({number})" if name in examples else name
        examples[name] = Example(name, row["context"], (row["completion"],))

    file.each(add, context=str, completion=str)
    return list(examples.values())
