"""Every field of a training configuration as a page of Markdown, made from the dataclasses and their comments.

fewshot train --fields > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from fewshot.base.fields import as_yaml, field_comments
from fewshot.dataset.prepare import SourceConfig
from fewshot.train.resolving.resolve import KINDS

SECTIONS: dict[str, Any] = {"data": KINDS["data"], "data.sources[]": SourceConfig, **KINDS}
CHOSEN = ("schedule",)  # sections whose fields all have a value that follows the others
OPENING = """\
# Every field of a training configuration

`fewshot train --fields` prints this page from the code. A field is given as `--section.field VALUE` or in the YAML file
of `--config`. `--preset`, `--text` and `--n_tokens` override the file; `--section.field` overrides all of them.

Four keys stand outside the sections. `n_tokens` is short for `schedule.n_tokens`, and `text` for one source in
`data.sources`. `preset` names a model of `fewshot plan all`, whose sizes the section `model` can change. `yes: true`
(`--yes`) trains even if the plan exceeds the free memory or 30 days.

"Needed" means that the field has no default, "chosen" that `fewshot train` computes it from other fields. If they are
not given, `optimizer.name`, `lr` and `weight_decay` and `schedule.final_fraction` come from the recipe of the model's
size, and the fields of `model` from the preset that is given or chosen. They take the defaults below only where neither
says anything.
"""


def page() -> str:
    """Return the page: a table for every section."""
    parts = [OPENING]
    for name, kind in SECTIONS.items():
        rows = [f"| `{field}` | {default} | {note} |" for field, default, note in _rows(name, kind)]
        doc = " ".join((inspect.getdoc(kind) or "").split())
        parts.append("\n".join([f"## {name}\n", f"{doc}\n", "| field | default | |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _rows(name: str, kind: type) -> Iterator[tuple[str, str, str]]:
    notes = {name: note.replace("None", "null").replace("|", "\\|") for name, note in field_comments(kind).items()}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            default = "chosen" if name in CHOSEN else "needed"
        else:
            default = f"`{as_yaml(field.default)}`"
        yield field.name, default, f"{_spelled_type(field.type)}{': ' if notes[field.name] else ''}{notes[field.name]}"


def _spelled_type(hint: object) -> str:
    words = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "None": "null"}
    words["dict[str, str]"] = "keys and values"
    return " or ".join(words.get(kind, "list") for kind in str(hint).split(" | "))
