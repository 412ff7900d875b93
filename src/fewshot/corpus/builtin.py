"""English prose that every machine has: the documentation of Python, NumPy and torch.

In: a number of characters. Out: documents, the same on every call of one installation. Source files are parsed, never
imported. It does not know what the text is for.
"""

from __future__ import annotations

import ast
import bisect
import importlib.util
import inspect
import itertools
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from fewshot.base.errors import check
from fewshot.base.rng import python_rng
from fewshot.corpus.document import Document

MIN_CHARS = 200
MIN_PROSE = 0.7  # share of letters and white space
NOT_READ = {"test", "tests", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3"}  # folders


def builtin_documents(*, max_chars: int) -> list[Document]:
    """Return English documents of this machine, shuffled with a fixed seed, at most `max_chars` characters together.

    They are Python's own help topics, and the docstrings of the standard library, NumPy and torch that have at least
    200 characters and are mostly prose. Only as many files are parsed as are needed: about a second per million
    characters. There are some millions; asking for more gives them all. Raises BadValue if not one document fits.
    """
    texts = dict(_topics())
    n_chars = 0
    for name, file in _source_files():
        if n_chars >= max_chars:
            break
        docstrings = {f"{name}#{of}": text for of, text in _docstrings(file) if _is_prose(text)}
        n_chars += sum(map(len, docstrings.values()))
        texts |= docstrings
    first_id = {text: name for name, text in sorted(texts.items(), reverse=True)}  # equal texts: the first id stays
    documents = [Document(id=name, text=text, source="builtin") for text, name in first_id.items()]
    documents.sort(key=lambda document: document.id)
    python_rng("builtin documents").shuffle(documents)
    ends = list(itertools.accumulate(len(document.text) for document in documents))
    n_documents = bisect.bisect_right(ends, max_chars)
    check(n_documents > 0, f"max_chars={max_chars} is too few for one document: give at least 100,000")
    return documents[:n_documents]


def _topics() -> Iterator[tuple[str, str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # slim Pythons leave it out
        return
    for name, text in topics.items():
        text = inspect.cleandoc(text)
        if _is_prose(text):
            yield f"pydoc_data/topics#{name}", text


def _source_files() -> Iterator[tuple[str, Path]]:
    """Return name and path of the source files, shuffled, so that the first few are already a fair sample."""
    specs = [(name, importlib.util.find_spec(name)) for name in ("numpy", "torch")]
    roots = {name: Path(spec.origin).parent for name, spec in specs if spec and spec.origin}
    roots["python"] = Path(sysconfig.get_path("stdlib"))
    files = {
        f"{name}/{file.relative_to(root).as_posix()}": file
        for name, root in roots.items()
        for file in _python_files(root)
    }
    names = sorted(files)
    python_rng("builtin files").shuffle(names)
    return ((name, files[name]) for name in names)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in NOT_READ]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield dotted name and dedented docstring of a file's module, classes, functions and methods."""
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes in other people's files
            module = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    waiting: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [("", module)]
    while waiting:
        name, node = waiting.pop()
        if docstring := ast.get_docstring(node):
            yield name, docstring
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append((f"{name}.{child.name}".lstrip("."), child))


def _is_prose(text: str) -> bool:
    return len(text) >= MIN_CHARS and sum(c.isalpha() or c.isspace() for c in text) >= MIN_PROSE * len(text)
