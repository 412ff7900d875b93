"""A configuration's fields for help pages: their comments, and their defaults as YAML has them."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from typing import Any


def field_comments(kind: type) -> dict[str, str]:
    """Return the comment of every field of a dataclass: the one behind it, or those on the lines above it."""
    source = inspect.getsource(kind)
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.strip().startswith("#"):
                alone.add(token.start[0])
    by_field = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            line = node.lineno - 1
            while line in alone:
                above.insert(0, comments[line])
                line -= 1
            behind = [comments[node.end_lineno]] if node.end_lineno in comments else []
            by_field[node.target.id] = " ".join([*above, *behind])
    return by_field


def as_yaml(value: Any) -> str:
    """Return a plain value as it is written in a YAML file."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else '""'
