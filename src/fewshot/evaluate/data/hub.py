"""Evaluation sets from the hub, where there is a network. In: names of original files. Out: their texts.

A literal table says which repository, configuration and split holds what an original file holds; `datasets` loads it
and `hub_layouts.py` writes it as the original is laid out, so that a task reads one as it reads the other. The
repositories are those that lm-evaluation-harness 0.4.13 names, and beside them the sets that it has not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fewshot.base.errors import BadFile, BadValue, check
from fewshot.evaluate.data import hub_layouts as layout
from fewshot.evaluate.data.files import Data, DataFolder, Found
from fewshot.evaluate.data.hub_layouts import Rows, Write, each, joined, labelled, lines
from fewshot.evaluate.tasks import arithmetic, scramble
from fewshot.evaluate.tasks.translation import DIRECTIONS, file_pairs

T = TypeVar("T")

NAME = "hub"  # what --data says
CONVERTED = "refs/convert/parquet"  # the hub's own copy of what a repository's script makes: `datasets` runs no scripts


@dataclass(frozen=True)
class Stored:
    """Where a split is stored."""

    repository: str
    config: str | None
    split: str
    revision: str | None = None
    file: str = ""  # of JSON lines, in a repository that holds nothing but files

    def __str__(self) -> str:
        return f"{self.repository} ({', '.join(filter(None, (self.config, self.split)))})"


WMT = {"wmt14_fr": ("wmt/wmt14", "fr-en"), "wmt16_de": ("wmt/wmt16", "de-en"), "wmt16_ro": ("wmt/wmt16", "ro-en")}


def _of(
    repository: str, config: str | None, write: Write, revision: str | None = None, **files: str
) -> dict[str, tuple[Stored, Write]]:
    """Return rows of the table: the original files of a repository, each by the name of its split."""
    return {file: (Stored(repository, config, split, revision), write) for split, file in files.items()}


def _superglue(folder: str, config: str, write: Write) -> dict[str, tuple[Stored, Write]]:
    return _of("aps/super_glue", config, write, train=f"{folder}/train.jsonl", validation=f"{folder}/val.jsonl")


def _pupils(repository: str, config: str, start: str, *parts: str) -> dict[str, tuple[Stored, Write]]:
    train, dev, test = (f"{start}{part}.jsonl" for part in parts)
    return _of(repository, config, each(layout.pupils), train=train, validation=dev, test=test)


def _anli(number: int) -> dict[str, tuple[Stored, Write]]:
    files = {f"{part}_r{number}": f"R{number}/{part}.jsonl" for part in ("train", "dev", "test")}
    return _of("facebook/anli", None, each(layout.anli), **files)


def _translations() -> Iterator[tuple[str, tuple[Stored, Write]]]:
    """Yield the test and development sets; their training corpora are too large to load for a few demonstrations."""
    for name, direction in DIRECTIONS.items():
        repository, config = WMT[f"{name[:5]}_{direction.foreign}"]
        for stem, split in ((direction.test, "test"), (direction.dev, "validation")):
            source, target = next(file_pairs(stem, direction))
            yield source, (Stored(repository, config, split), layout.segments(direction.source))
            yield target, (Stored(repository, config, split), layout.segments(direction.target))


FILES: dict[str, tuple[Stored, Write]] = {  # original files by the ends of their paths
    **_of("EleutherAI/lambada_openai", "default", lines, test="lambada_test.jsonl"),  # without a development set
    **_of("Rowan/hellaswag", None, lines, train="hellaswag_train.jsonl", validation="hellaswag_val.jsonl"),
    **_of("google-research-datasets/nq_open", None, lines, train="NQ-open.train.jsonl", validation="NQ-open.dev.jsonl"),
    **_of(
        "stanfordnlp/web_questions",
        None,
        layout.web_questions,
        train="webquestions.examples.train.json",
        test="webquestions.examples.test.json",
    ),
    **_of(
        "mandarjoshi/trivia_qa",
        "rc.wikipedia.nocontext",
        layout.trivia_qa,
        train="wikipedia-train.json",
        validation="wikipedia-dev.json",
    ),
    **_of(
        "mandarjoshi/trivia_qa", "rc.web.nocontext", layout.trivia_qa, train="web-train.json", validation="web-dev.json"
    ),
    **dict(_translations()),
    **_of("lighteval/winograd_wsc", "wsc273", layout.winograd, test="WSCollection.xml"),
    **_of(
        "allenai/winogrande",
        "winogrande_xl",
        layout.numbered,
        train="winogrande_1.1/train_xl.jsonl",
        validation="winogrande_1.1/dev.jsonl",
    ),
    **_of(
        "baber/piqa",
        None,
        lines,
        train="physicaliqa-train-dev/train.jsonl",
        validation="physicaliqa-train-dev/dev.jsonl",
    ),
    **_of(
        "baber/piqa",
        None,
        layout.label_lines,
        train="physicaliqa-train-dev/train-labels.lst",
        validation="physicaliqa-train-dev/dev-labels.lst",
    ),
    **_pupils("allenai/ai2_arc", "ARC-Easy", "ARC-Easy-", "Train", "Dev", "Test"),
    **_pupils("allenai/ai2_arc", "ARC-Challenge", "ARC-Challenge-", "Train", "Dev", "Test"),
    **_pupils("allenai/openbookqa", "main", "Main/", "train", "dev", "test"),
    **_of("allenai/quac", "plain_text", layout.quac, CONVERTED, train="train_v0.2.json", validation="val_v0.2.json"),
    **_of("rajpurkar/squad_v2", None, layout.squad, train="train-v2.0.json", validation="dev-v2.0.json"),
    **_of("EleutherAI/coqa", None, layout.coqa, train="coqa-train-v1.0.json", validation="coqa-dev-v1.0.json"),
    **_of("EleutherAI/drop", None, layout.drop, train="drop_dataset_train.json", validation="drop_dataset_dev.json"),
    **_superglue("BoolQ", "boolq", labelled(False, True)),
    **_superglue("CB", "cb", labelled("entailment", "contradiction", "neutral")),
    **_superglue("COPA", "copa", lines),
    **_superglue("RTE", "rte", labelled("entailment", "not_entailment")),
    **_superglue("WiC", "wic", labelled(False, True)),
    **_superglue("WSC", "wsc.fixed", each(layout.wsc)),
    **_superglue("MultiRC", "multirc", layout.multirc),
    **_superglue("ReCoRD", "record", layout.record),
    **_anli(1),
    **_anli(2),
    **_anli(3),
    **_of("ptb-text-only/ptb_text_only", "penn_treebank", joined("sentence"), CONVERTED, test="ptb.test.txt"),
    **_of("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", joined("page"), test="wiki.test.raw"),
    **{
        rule.released: (Stored("EleutherAI/arithmetic", None, "validation", file=f"data/{rule.released}"), lines)
        for rule in arithmetic.RULES.values()
    },
    **{
        rule.released: (Stored("EleutherAI/unscramble", rule.released.removesuffix(".jsonl"), "validation"), lines)
        for rule in scramble.RULES.values()
    },
}
FOLDERS: dict[str, tuple[Stored, Callable[[Rows], dict[str, str]]]] = {  # original folders of one article a file
    "RACE/test/high": (Stored("EleutherAI/race", "high", "test"), layout.race_as_harness),
    "RACE/dev/high": (Stored("ehovy/race", "high", "validation"), layout.race),
    "RACE/train/high": (Stored("ehovy/race", "high", "train"), layout.race),
    "RACE/test/middle": (Stored("ehovy/race", "middle", "test"), layout.race),
    "RACE/dev/middle": (Stored("ehovy/race", "middle", "validation"), layout.race),
    "RACE/train/middle": (Stored("ehovy/race", "middle", "train"), layout.race),
}


class Hub(Data):
    """The hub's repositories, or copies of them in a folder: `root`/OWNER/NAME."""

    def __init__(self, root: Path | None = None) -> None:
        self.root, self.label = root, NAME
        self.load = _library().load_dataset
        self.loaded: dict[Stored, Any] = {}  # tables of the library, which lie on disk

    def __str__(self) -> str:
        return "the hub" if self.root is None else str(self.root)

    @property
    def names(self) -> list[str]:
        """The table's files; those of its folders are known when they are loaded."""
        return list(FILES)

    def under(self, folder: str, suffix: str = "") -> list[Found]:
        """Return all files of a folder of the table, in order."""
        found = [Found(f"{folder}/{name}", self) for name in self._articles(folder)] if folder in FOLDERS else []
        return [one for one in found if one.name.endswith(suffix)]

    def text_of(self, name: str) -> str:
        """Return the file's text as the original is laid out; raises BadFile where its split cannot be loaded."""
        if name not in FILES:
            folder, _, article = name.rpartition("/")
            return self._articles(folder)[article]
        stored, write = FILES[name]
        return _written(stored, self._rows(stored, name), write)

    def _articles(self, folder: str) -> dict[str, str]:
        stored, write = FOLDERS[folder]
        return _written(stored, self._rows(stored, folder), write)

    def _rows(self, stored: Stored, name: str) -> Rows:
        if stored not in self.loaded:
            try:
                self.loaded[stored] = self.load(**self._arguments(stored))
            except _failures() as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise BadFile(
                    f"{stored} was not loaded: {reason}; without a network give --data FOLDER, which holds {name}"
                ) from None
        rows: Rows = self.loaded[stored].to_list()
        return rows

    def _arguments(self, stored: Stored) -> dict[str, Any]:
        if stored.file:
            place = f"hf://datasets/{stored.repository}" if self.root is None else self.root / stored.repository
            return {"path": "json", "data_files": {stored.split: f"{place}/{stored.file}"}, "split": stored.split}
        where = {"path": stored.repository, "revision": stored.revision}
        if self.root is not None:
            where = {"path": str(self.root / stored.repository)}
        return {**where, "name": stored.config, "split": stored.split}


def _written(stored: Stored, rows: Rows, write: Callable[[Rows], T]) -> T:
    try:
        return write(rows)
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError) as error:
        raise BadFile(f"{stored} is not laid out as it was known: {type(error).__name__} {error}") from None


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise BadValue("--data hub needs the package datasets: pip install 'fewshot[hub]'") from None
    return datasets


def _failures() -> tuple[type[Exception], ...]:
    """Return what loading raises: no network, no such repository, configuration or split, or a damaged file."""
    from datasets.exceptions import DatasetsError

    httpx = sys.modules.get("httpx")  # a connection lost in midst of a file, in versions that use it, is no OSError
    return (OSError, ValueError, RuntimeError, DatasetsError, *([httpx.HTTPError] if httpx else []))


def open_data(where: str | None) -> Data | None:
    """Return what `--data` names: a folder, an archive, or the hub (a folder of that name is ./hub)."""
    if where is None:
        return None
    if where == NAME:
        return Hub()
    check(Path(where).exists(), f"--data {where} does not exist; allowed: a folder, a zip archive, or hub")
    return DataFolder(Path(where))
