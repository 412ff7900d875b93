"""What only some systems have: the usual names are looked for in the source; each is behind a question for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "fewshot"
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}  # of Unix
NAMES = {
    "os": {"fork", "forkpty", "getuid", "geteuid", "killpg", "mkfifo", "nice", "sched_getaffinity", "setsid",
           "sysconf", "uname"},
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer"},
}  # fmt: skip
PLACES = ("/tmp", "/dev/", "/proc/", "/sys/", "/etc/", "/usr/")
ASKED = {  # where a system without it is thought of, and how
    "base/machine.py: os.getuid": "hasattr",
    "base/machine.py: os.sched_getaffinity": "AttributeError",
    "base/machine.py: os.sysconf": "AttributeError",
    "base/machine.py: resource": "ImportError",
    "bench/attention.py: /proc/": "no memory is told",
    "bench/memory.py: /proc/": "bench plan asks first, and says so",
    "base/machine.py: /proc/": "a file that is not there has no lines",
    "base/machine.py: /sys/": "a file that is not there has no lines",
}


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield what a module uses that only some systems have."""
    texts_of_docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            known = NAMES.get(node.module or "", set())
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in known)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("get_context", "set_start_method"):
            if any(isinstance(argument, ast.Constant) and argument.value == "fork" for argument in node.args):
                yield "fork"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if any(isinstance(side, ast.Constant) and side.value == "/" for side in (node.left, node.right)):
                yield 'joined by "/"'
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts_of_docs:
            yield from (place for place in PLACES if node.value.startswith(place))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os\nos.fork()", ["os.fork"]),
        ("import signal\nsignal.signal(signal.SIGALRM, None)", ["signal.SIGALRM"]),
        ("import fcntl", ["fcntl"]),
        ("from signal import SIGALRM", ["signal.SIGALRM"]),
        ("from resource import getrlimit", ["resource"]),
        ("m.get_context('fork')", ["fork"]),
        ("m.get_context('spawn')", []),
        ("open('/tmp/x')", ["/tmp"]),
        ("'''/tmp/x is no place'''", []),
        ("folder + '/' + name", ['joined by "/"']),
    ],
)
def test_what_some_systems_lack_is_seen(code: str, found: list[str]) -> None:
    assert list(uses(ast.parse(code))) == found


def test_nothing_is_used_that_some_systems_lack() -> None:
    seen = {
        f"{path.relative_to(SRC).as_posix()}: {use}"
        for path in sorted(SRC.rglob("*.py"))
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert seen == set(ASKED)
