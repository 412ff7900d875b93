"""The rules of the tree: each function takes folders and returns what breaks one rule, a line each.

They take folders so that a test can also give them a small tree that breaks the rule. test_tree.py applies them.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

MAX_FILES, MAX_LINES = 15, 400
NO_CODE = {"__init__.py", "__main__.py"}  # a docstring; two lines that call the command
EMPTY_NAMES = {"one", "each", "found"}  # they do not say what they hold
CODE = (".py", ".cpp")


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def parse_file(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(src: Path) -> dict[str, Path]:
    """Return the files of a package by the dotted names of their modules; a package's own file has its name."""
    names = {}
    for path in python_files(src):
        parts = path.relative_to(src.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(path: Path, known: Collection[str]) -> set[str]:
    """Return the modules among `known` that a file imports anywhere in it, also in functions and for types alone."""
    names = set()
    for node in ast.walk(parse_file(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports name the whole path, from fewshot on"
            of_module = {f"{node.module}.{alias.name}" for alias in node.names} & set(known)
            names |= of_module if len(of_module) == len(node.names) else {node.module, *of_module}
    return names & set(known)


def without_tests(
    src: Path, tests: Path, *, covered_by: Mapping[str, str], of_no_file: Mapping[str, str] | None = None
) -> list[str]:
    """Return the source files without a test at the mirrored place, tests without a source file, and stale entries.

    `covered_by` names the test that covers a source file instead; it must use that file: import it, or one that
    imports it, or run a command that does. `of_no_file` gives the reason why a test belongs to no single file.
    """
    whole = of_no_file or {}
    sources = {path.relative_to(src).as_posix() for path in python_files(src) if path.name not in NO_CODE}
    mirrored = {(Path(name).parent / f"test_{Path(name).name}").as_posix(): name for name in sources}
    written = {path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    tested = {mirrored[name] for name in written & set(mirrored)}
    problems = [f"{name} has no test file" for name in sources - tested - set(covered_by)]
    problems += [f"tests/{name} is the test of no source file" for name in written - set(mirrored) - set(whole)]
    problems += [f"covered elsewhere: {name} is not there" for name in set(covered_by) - sources]
    problems += [f"covered elsewhere: {name} has a test file of its own" for name in set(covered_by) & tested]
    problems += [f"of no file: tests/{name} is not there" for name in set(whole) - written]
    problems += [f"of no file: tests/{name} is the test of a source file" for name in set(whole) & set(mirrored)]
    for name, test in covered_by.items():
        if test not in written:
            problems.append(f"covered elsewhere: tests/{test}, for {name}, is not there")
        elif name in sources and not _reaches(tests / test, src / name, src):
            problems.append(f"covered elsewhere: tests/{test} does not use {name}")
    return sorted(problems)


def _reaches(test: Path, source: Path, src: Path) -> bool:
    """Return whether a test imports a source file or a file that imports it; a command's name counts as its import."""
    known = modules(src)
    constants = [node.value for node in ast.walk(parse_file(test)) if isinstance(node, ast.Constant)]
    words = {word for text in constants if isinstance(text, str) for word in text.split()}
    commands = {f"{src.name}.cli.{word.replace('-', '_')}" for word in words}
    direct = imported(test, known) | commands & set(known)
    return any(known[name] == source or source in {known[n] for n in imported(known[name], known)} for name in direct)


def wide_folders(src: Path, *, may_be_wide: Collection[str]) -> list[str]:
    """Return the folders that hold more than `MAX_FILES` Python files, `__init__.py` not counted.

    `may_be_wide` are the paths of folders that may: their files are rows of one table, all alike.
    """
    problems = [f"{name} is not there" for name in may_be_wide if not (src / name).is_dir()]
    for folder in sorted({path.parent for path in python_files(src)}):
        n_files = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        if n_files > MAX_FILES and folder.relative_to(src).as_posix() not in may_be_wide:
            problems.append(f"{folder.relative_to(src).as_posix()} holds {n_files} files, at most {MAX_FILES}")
    return problems


def long_files(src: Path, *, may_be_long: Collection[str]) -> list[str]:
    """Return the files of code with more than `MAX_LINES` lines."""
    problems = [f"{name} is not there" for name in may_be_long if not (src / name).is_file()]
    for path in sorted(path for path in src.rglob("*") if path.suffix in CODE):
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > MAX_LINES and path.relative_to(src).as_posix() not in may_be_long:
            problems.append(f"{path.relative_to(src).as_posix()} has {n_lines} lines, at most {MAX_LINES}")
    return problems


def import_loops(src: Path) -> list[str]:
    """Return the loops of imports, anywhere in the files: two modules that import each other, or a longer loop."""
    known = modules(src)
    imports = {name: imported(path, known) for name, path in known.items()}
    loops = []
    for name in imports:
        ways = [[name]]
        met: set[str] = set()
        for way in ways:  # it grows while it is read: a search in breadth
            for other in sorted(imports[way[-1]] - met):
                met.add(other)
                ways.append([*way, other])
        shortest = next((way for way in ways[1:] if way[-1] == name), None)
        if shortest and name == min(shortest):
            loops.append(" imports ".join(shortest))
    return loops


def code_in_init_files(src: Path) -> list[str]:
    """Return the `__init__.py` below the package's own that hold anything but a docstring, and folders without one."""
    problems = []
    for folder in sorted({path.parent for path in python_files(src)} - {src}):
        init = folder / "__init__.py"
        if not init.is_file():
            problems.append(f"{folder.relative_to(src).as_posix()} has no __init__.py")
            continue
        body = parse_file(init).body
        if len(body) != 1 or ast.get_docstring(ast.Module(body, [])) is None:
            problems.append(f"{init.relative_to(src).as_posix()} must hold a docstring and nothing else")
    return problems


def empty_names(src: Path) -> list[str]:
    """Return where a name of `EMPTY_NAMES` is given to a variable, argument, loop target, attribute or function."""
    return [
        f"{path.relative_to(src).as_posix()}:{line}: {name}"
        for path in python_files(src)
        for line, name in sorted(_stored_names(parse_file(path)))
        if name in EMPTY_NAMES
    ]


def _stored_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((node.lineno, alias.asname) for alias in aliases if alias.asname)
