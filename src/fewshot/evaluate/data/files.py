"""Files of examples in their original layouts. In: a folder, or a zip archive as downloaded. Out: rows and texts.

A file is looked up by the end of its path, wherever it lies in the folder, plain or as .gz or .bz2. Other places that
hold such files are other classes of `Data` (`data/hub.py`). Knows no task.
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
from fewshot.evaluate.data.schema import Maybe, Schema, check_schema, without_lone_surrogates
from fewshot.evaluate.example import Example

T = TypeVar("T")
Row = dict[str, Any]

MAX_FILES = 100_000  # with the folders; a folder with more is hardly one of evaluation sets
MAX_BYTES = 2**31  # of one file, unpacked; no set has a larger one
OPENERS: dict[str, Callable[[Any], Any] | None] = {"": None, ".gz": gzip.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class DataFile:
    """One file of a folder, of an archive or of another `Data`."""

    name: str  # path inside
    data: Data

    def __str__(self) -> str:
        return f"{self.data}/{self.name}"

    @property
    def short(self) -> str:
        """Its name without folders."""
        return self.name.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Its suffix without that of the packing: ".jsonl" of a.jsonl.gz."""
        return PurePosixPath(self.name.removesuffix(".gz").removesuffix(".bz2")).suffix

    def text(self) -> str:
        """Return its text, unpacked; raises BadFile where it is damaged or not UTF-8."""
        return self.data.text_of(self.name)

    def rows(self, *fields: str, **schemas: Schema) -> list[Row]:
        """Return the objects of a JSON-lines file, each with all `fields`, and with values that fit `schemas`.

        Raises BadFile with the line of an object that does not.
        """
        return self.parse_rows(lambda number, row: row, **dict.fromkeys(fields, object), **schemas)

    def parse_rows(self, parse: Callable[[int, Row], T], **schemas: Schema) -> list[T]:
        """Return `parse(number from 1, row)` of every row of a JSON-lines file.

        Raises BadFile with the line of a row that does not fit `schemas` or that `parse` refuses.
        """
        parsed: list[T] = []
        required = [field for field, schema in schemas.items() if not isinstance(schema, Maybe)]
        for line_number, line in enumerate(self.text().split("\n"), start=1):  # not splitlines: strings hold U+2028
            if line.strip():
                where = f"{self} line {line_number}"
                row = _from_json(line, where)
                if not isinstance(row, dict) or not all(field in row for field in required):
                    raise BadFile(f"{where} must be an object with {', '.join(map(repr, required))}")
                with _errors_name(where):
                    check_schema(row, schemas)
                    parsed.append(parse(len(parsed) + 1, row))
        if not parsed:
            raise BadFile(f"{self} holds no examples")
        return parsed

    def json(self, schema: Schema = object) -> Any:
        """Return the value of a JSON file; raises BadValue (`in_layout` adds the file) where it does not fit."""
        value = _from_json(self.text(), self)
        check_schema(value, schema)
        return value


def _from_json(text: str, where: object) -> Any:
    value = parse_json(text, where)
    return without_lone_surrogates(value) if "\\u" in text else value


class Data(ABC):
    """Evaluation sets: files by their paths."""

    label: str  # begins every path, so that a set can be looked up whose folder is `data` itself

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Paths of all files, the least deep first."""

    @abstractmethod
    def text_of(self, name: str) -> str:
        """Return the text of the file of that path."""

    def find(self, *ends: str) -> DataFile | None:
        """Return the first file whose path ends in one of `ends`, tried in order, or None; whole parts are compared."""
        for end in ends:
            wanted = tuple(f"/{end}{packed}" for packed in OPENERS)
            for name in self.names:
                if f"/{self.label}/{name}".endswith(wanted):
                    return DataFile(name, self)
        return None

    def require(self, task: str, *ends: str) -> DataFile:
        """Return the file that `find` gives; where there is none, raise BadFile with the names that would do."""
        file = self.find(*ends)
        if file is None:
            raise BadFile(f"{task}: {self} holds no {' or '.join(ends)}")
        return file

    def beside(self, file: DataFile, name: str) -> DataFile | None:
        """Return the file of that name in the same folder as `file`, where there is one."""
        wanted = str(PurePosixPath(file.name).with_name(name))
        return next((DataFile(wanted + packed, self) for packed in OPENERS if wanted + packed in self.names), None)

    def under(self, folder: str, suffix: str = "") -> list[DataFile]:
        """Return all files in a folder whose path ends so, at any depth, in order."""
        inside = [name for name in self.names if f"/{folder}/" in f"/{self.label}/{name}" and name.endswith(suffix)]
        return [DataFile(name, self) for name in inside]


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
                names = [member.filename for member in archive.infolist() if not member.is_dir()]
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
def in_layout(file: DataFile, layout: str) -> Iterator[None]:
    """Raise BadFile where what is read inside lacks a field, or holds another kind of value, than that layout has."""
    with _errors_name(f"{file} is not laid out as {layout}"):
        yield


@contextmanager
def _errors_name(where: object) -> Iterator[None]:
    """Raise BadFile that names the place `where` for what is raised inside about a value."""
    try:
        yield
    except BadValue as error:
        raise BadFile(f"{where}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"{where}: {type(error).__name__} {error}") from None


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files inside; links to folders are followed, but none that leads back to a folder that holds it."""
    n_seen = 0
    for parent, folders, files in os.walk(folder, followlinks=True):
        n_seen += 1 + len(files)
        if n_seen > MAX_FILES:
            raise BadFile(f"{folder} holds more than {MAX_FILES:,} files: give the evaluation sets' folder")
        parents = (path for path in (Path(parent), *Path(parent).parents) if path.is_relative_to(folder))
        above = set(map(os.path.realpath, parents))
        folders[:] = [name for name in folders if os.path.realpath(Path(parent, name)) not in above]
        yield from (path for path in (Path(parent, name) for name in files) if path.is_file())


class NeedsData(BadValue):
    """The files of a task were not given."""

    def __init__(self, task: str, files: str) -> None:
        super().__init__(f"{task} needs --data FOLDER, the folder that holds {files}")
        self.files = files


def require_data(task: str, data: Data | None, *ends: str) -> Data:
    """Return `data`; where none was given, raise `NeedsData` with the files that it should hold."""
    if data is None:
        raise NeedsData(task, " or ".join(ends))
    return data


def read_released(file: DataFile) -> list[Example]:
    """Return the examples of a file as released with the paper: {"context": ..., "completion": ...} in every line.

    The id is the context without its line breaks, and behind it the line's number where a context comes again.
    Source: the paper's repository, folder data.
    """
    examples: dict[str, Example] = {}

    def add(number: int, row: Row) -> None:
        name = row["context"].strip()
        name = f"{name} ({number})" if name in examples else name
        examples[name] = Example(name, row["context"], (row["completion"],))

    file.parse_rows(add, context=str, completion=str)
    return list(examples.values())
