"""The demo's text, written to files: English of the machine's own documentation, and tasks with a fresh rule each.

In: a folder. Out: one .jsonl file a source. The rules that evaluation uses are not among them (`Family.held_out`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fewshot.base.files import written_whole
from fewshot.base.rng import python_rng
from fewshot.corpus.builtin import builtin_documents
from fewshot.evaluate.tasks.novel import FAMILIES

SEED = 0
SYMBOLS = "abcdefghijklmnop"  # those of `novel_symbols`


def write_texts(folder: Path, n_documents: dict[str, int], *, english_chars: int) -> None:
    """Write `english.jsonl`, `repeats.jsonl` and a file for each novel family, with `n_documents[name]` documents."""
    makers: dict[str, Iterable[str]] = {
        "english": (document.text for document in builtin_documents(max_chars=english_chars)),
        "repeats": repeats(n_documents.get("repeats", 0)),
    }
    for name, family in FAMILIES.items():
        makers[name] = family().training_documents(n_documents.get(name, 0), SEED)
    for name, texts in makers.items():
        if name == "english" or n_documents.get(name):
            with written_whole(folder / f"{name}.jsonl") as path, path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def repeats(n: int) -> Iterator[str]:
    """Yield texts that repeat a few distinct letters over and over, on which induction heads form."""
    for index in range(n):
        rng = python_rng("repeats", SEED, index)
        letters = rng.sample(SYMBOLS, rng.randint(2, len(SYMBOLS)))
        yield " " + " ".join(letters * max(2, 64 // len(letters)))
