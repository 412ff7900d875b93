"""Evidence of contamination on disk, in the model's folder of results, by the same rules. In: splits and scores.

A measurement is known by its questions, training text, K and seed, and is replaced by the same one alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.base.config import to_plain
from fewshot.base.errors import FewshotError
from fewshot.corpus.document import Document
from fewshot.evaluate.contamination import CleanDirtyScores, Contamination
from fewshot.evaluate.store.result_file import merge_rows, note_left_out, read_result_file

FOLDER, FIGURE = "contamination", "figure.svg"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The examples of one task that stood in one training text, and the scores at one K."""

    questions: str  # digest of their set
    text: str  # digest of the training text
    shots: int
    seed: int
    split: Contamination
    scores: tuple[CleanDirtyScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the evidence as plain values."""
        return to_plain(self)


def counted_text(documents: Iterable[Document]) -> tuple[Iterator[Document], hashlib.blake2b]:
    """Return the documents, and a digest of their texts that is complete when all were read."""
    digest = hashlib.blake2b(digest_size=8)

    def read() -> Iterator[Document]:
        for document in documents:
            digest.update(document.text.encode("utf-8", "surrogatepass") + b"\0")
            yield document

    return read(), digest


def store_evidence(folder: Path, evidence: Mapping[str, Evidence], *, step: int, weights: str) -> Path:
    """Write evidence, by task, beside the model's results; return the folder that it is in."""
    own = folder / FOLDER

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        n_examples = len(row["split"]["clean"]) + len(row["split"]["dirty"])
        return row["shots"], row["seed"], n_examples, row["questions"], row["text"]

    for task, of_task in evidence.items():
        merge_rows(own / f"{task}.json", [of_task.to_json()], key, step=step, weights=weights, lock=folder.parent)
    return own


def read_main_scores(folder: Path) -> list[CleanDirtyScores]:
    """Return for each task in a folder of evidence the scores of its main metric on most questions."""
    main = []
    for path in sorted(folder.glob("*.json")):
        try:
            scores = [row["scores"][0] for row in read_result_file(path).rows]
            main.append(CleanDirtyScores.from_json(max(scores, key=lambda score: score["all"]["n"]), where=str(path)))
        except (FewshotError, LookupError, TypeError, ValueError) as error:  # ValueError: it has no rows
            note_left_out(path, error)
    return main
