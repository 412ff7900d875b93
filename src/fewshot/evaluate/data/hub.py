"""Evaluation sets from the hub, where there is a network. In: names of original files. Out: their texts.

A literal table says which repository, configuration and split holds what an original file holds; `datasets` loads it
and `hub_layouts.py` writes it in the layout of the original, so that a task reads either in the same way. The
repositories are those that lm-evaluation-harness 0.4.13 names, and others for the sets that it does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fewshot.base.errors import BadFile, BadValue, check
from fewshot.evaluate.data import hub_layouts as layout
from fewshot.evaluate.data.file_names import ARITHMETIC_FILES, DIRECTIONS, SCRAMBLE_FILES, file_pairs
from fewshot.evaluate.data.files import Data, DataFile, DataFolder
from fewshot.evaluate.data.hub_layouts import Rows, WriteRows, change_rows, join_field, json_lines, with_label_names

T = TypeVar("T")

NAME = "hub"  # what --data says
CONVERTED = "refs/convert/parquet"  # the hub's own copy of what a repository's script makes: `datasets` runs no scripts


@dataclass(frozen=True)
class HubSplit:
    """Where the hub stores a split."""

    repository: str
    config: str | None
    split: str
    revision: str | None = None
    file: str = ""  # of JSON lines, in a repository that holds nothing but files

    def __str__(self) -> str:
        return f"{self.repository} ({', '.join(filter(None, (self.config, self.split)))})"


WMT = {"wmt14_fr": ("wmt/wmt14", "fr-en"), "wmt16_de": ("wmt/wmt16", "de-en"), "wmt16_ro": ("wmt/wmt16", "ro-en")}


def _splits_of(
    repository: str, config: str | None, write: WriteRows, revision: str | None = None, **files: str
) -> dict[str, tuple[HubSplit, WriteRows]]:
    """Return rows of the table: the original files of a repository, each by the name of its split."""
    return {file: (HubSplit(repository, config, split, revision), write) for split, file in files.items()}


def _superglue(folder: str, config: str, write: WriteRows) -> dict[str, tuple[HubSplit, WriteRows]]:
    return _splits_of("aps/super_glue", config, write, train=f"{folder}/train.jsonl", validation=f"{folder}/val.jsonl")


def _pupils(repository: str, config: str, start: str, *parts: str) -> dict[str, tuple[HubSplit, WriteRows]]:
    train, dev, test = (f"{start}{part}.jsonl" for part in parts)
    return _splits_of(repository, config, change_rows(layout.pupils), train=train, validation=dev, test=test)


def _anli(number: int) -> dict[str, tuple[HubSplit, WriteRows]]:
    files = {f"{part}_r{number}": f"R{number}/{part}.jsonl" for part in ("train", "dev", "test")}
    return _splits_of("facebook/anli", None, change_rows(layout.anli), **files)


def _translations() -> Iterator[tuple[str, tuple[HubSplit, WriteRows]]]:
    """Yield the test and development sets; their training corpora are too large to load for a few demonstrations."""
    for name, direction in DIRECTIONS.items():
        repository, config = WMT[f"{name[:5]}_{direction.foreign}"]
        for stem, split in ((direction.test, "test"), (direction.dev, "validation")):
            source, target = next(file_pairs(stem, direction))
            yield source, (HubSplit(repository, config, split), layout.segments(direction.source))
            yield target, (HubSplit(repository, config, split), layout.segments(direction.target))


FILES: dict[str, tuple[HubSplit, WriteRows]] = {  # original files by the ends of their paths
    **_splits_of(
        "EleutherAI/lambada_openai", "default", json_lines, test="lambada_test.jsonl"
    ),  # without a development set
    **_splits_of("Rowan/hellaswag", None, json_lines, train="hellaswag_train.jsonl", validation="hellaswag_val.jsonl"),
    **_splits_of(
        "google-research-datasets/nq_open",
        None,
        json_lines,
        train="NQ-open.train.jsonl",
        validation="NQ-open.dev.jsonl",
    ),
    **_splits_of(
        "stanfordnlp/web_questions",
        None,
        layout.web_questions,
        train="webquestions.examples.train.json",
        test="webquestions.examples.test.json",
    ),
    **_splits_of(
        "mandarjoshi/trivia_qa",
        "rc.wikipedia.nocontext",
        layout.trivia_qa,
        train="wikipedia-train.json",
        validation="wikipedia-dev.json",
    ),
    **_splits_of(
        "mandarjoshi/trivia_qa", "rc.web.nocontext", layout.trivia_qa, train="web-train.json", validation="web-dev.json"
    ),
    **dict(_translations()),
    **_splits_of("lighteval/winograd_wsc", "wsc273", layout.winograd, test="WSCollection.xml"),
    **_splits_of(
        "allenai/winogrande",
        "winogrande_xl",
        layout.numbered,
        train="winogrande_1.1/train_xl.jsonl",
        validation="winogrande_1.1/dev.jsonl",
    ),
    **_splits_of(
        "baber/piqa",
        None,
        json_lines,
        train="physicaliqa-train-dev/train.jsonl",
        validation="physicaliqa-train-dev/dev.jsonl",
    ),
    **_splits_of(
        "baber/piqa",
        None,
        layout.label_lines,
        train="physicaliqa-train-dev/train-labels.lst",
        validation="physicaliqa-train-dev/dev-labels.lst",
    ),
    **_pupils("allenai/ai2_arc", "ARC-Easy", "ARC-Easy-", "Train", "Dev", "Test"),
    **_pupils("allenai/ai2_arc", "ARC-Challenge", "ARC-Challenge-", "Train", "Dev", "Test"),
    **_pupils("allenai/openbookqa", "main", "Main/", "train", "dev", "test"),
    **_splits_of(
        "allenai/quac", "plain_text", layout.quac, CONVERTED, train="train_v0.2.json", validation="val_v0.2.json"
    ),
    **_splits_of("rajpurkar/squad_v2", None, layout.squad, train="train-v2.0.json", validation="dev-v2.0.json"),
    **_splits_of("EleutherAI/coqa", None, layout.coqa, train="coqa-train-v1.0.json", validation="coqa-dev-v1.0.json"),
    **_splits_of(
        "EleutherAI/drop", None, layout.drop, train="drop_dataset_train.json", validation="drop_dataset_dev.json"
    ),
    **_superglue("BoolQ", "boolq", with_label_names(False, True)),
    **_superglue("CB", "cb", with_label_names("entailment", "contradiction", "neutral")),
    **_superglue("COPA", "copa", json_lines),
    **_superglue("RTE", "rte", with_label_names("entailment", "not_entailment")),
    **_superglue("WiC", "wic", with_label_names(False, True)),
    **_superglue("WSC", "wsc.fixed", change_rows(layout.wsc)),
    **_superglue("MultiRC", "multirc", layout.multirc),
    **_superglue("ReCoRD", "record", layout.record),
    **_anli(1),
    **_anli(2),
    **_anli(3),
    **_splits_of(
        "ptb-text-only/ptb_text_only", "penn_treebank", join_field("sentence"), CONVERTED, test="ptb.test.txt"
    ),
    **_splits_of("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", join_field("page"), test="wiki.test.raw"),
    **{
        file: (HubSplit("EleutherAI/arithmetic", None, "validation", file=f"data/{file}"), json_lines)
        for file in ARITHMETIC_FILES.values()
    },
    **{
        file: (HubSplit("EleutherAI/unscramble", file.removesuffix(".jsonl"), "validation"), json_lines)
        for file in SCRAMBLE_FILES.values()
    },
}
FOLDERS: dict[str, tuple[HubSplit, Callable[[Rows], dict[str, str]]]] = {  # original folders of one article a file
    "RACE/test/high": (HubSplit("EleutherAI/race", "high", "test"), layout.race_as_harness),
    "RACE/dev/high": (HubSplit("ehovy/race", "high", "validation"), layout.race),
    "RACE/train/high": (HubSplit("ehovy/race", "high", "train"), layout.race),
    "RACE/test/middle": (HubSplit("ehovy/race", "middle", "test"), layout.race),
    "RACE/dev/middle": (HubSplit("ehovy/race", "middle", "validation"), layout.race),
    "RACE/train/middle": (HubSplit("ehovy/race", "middle", "train"), layout.race),
}


class Hub(Data):
    """The hub's repositories, or copies of them in a folder: `root`/OWNER/NAME."""

    def __init__(self, root: Path | None = None) -> None:
        self.root, self.label = root, NAME
        self.load = _library().load_dataset
        self.loaded: dict[HubSplit, Any] = {}  # tables of the library, which lie on disk

    def __str__(self) -> str:
        return "the hub" if self.root is None else str(self.root)

    @property
    def names(self) -> list[str]:
        """The files of the table; those of its folders are known only when they are loaded."""
        return list(FILES)

    def under(self, folder: str, suffix: str = "") -> list[DataFile]:
        """Return all files of a folder of the table, in order."""
        articles = self._articles(folder) if folder in FOLDERS else {}
        return [DataFile(f"{folder}/{name}", self) for name in articles if name.endswith(suffix)]

    def text_of(self, name: str) -> str:
        """Return the file's text in the layout of the original; raises BadFile where its split cannot be loaded."""
        if name not in FILES:
            folder, _, article = name.rpartition("/")
            return self._articles(folder)[article]
        split, write = FILES[name]
        return _write(split, self._rows(split, name), write)

    def _articles(self, folder: str) -> dict[str, str]:
        split, write = FOLDERS[folder]
        return _write(split, self._rows(split, folder), write)

    def _rows(self, split: HubSplit, name: str) -> Rows:
        if split not in self.loaded:
            try:
                self.loaded[split] = self.load(**self._arguments(split))
            except _failures() as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise BadFile(
                    f"{split} cannot be loaded: {reason}; without a network give --data FOLDER, which holds {name}"
                ) from None
        rows: Rows = self.loaded[split].to_list()
        return rows

    def _arguments(self, split: HubSplit) -> dict[str, Any]:
        if split.file:
            place = f"hf://datasets/{split.repository}" if self.root is None else self.root / split.repository
            return {"path": "json", "data_files": {split.split: f"{place}/{split.file}"}, "split": split.split}
        where = {"path": split.repository, "revision": split.revision}
        if self.root is not None:
            where = {"path": str(self.root / split.repository)}
        return {**where, "name": split.config, "split": split.split}


def _write(split: HubSplit, rows: Rows, write: Callable[[Rows], T]) -> T:
    try:
        return write(rows)
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError) as error:
        raise BadFile(f"{split} is not laid out as expected: {type(error).__name__} {error}") from None


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise BadValue("--data hub needs the package datasets: pip install 'fewshot[hub]'") from None
    return datasets


def _failures() -> tuple[type[Exception], ...]:
    """Return what loading raises: no network, no such repository, configuration or split, a damaged file."""
    from datasets.exceptions import DatasetsError

    httpx = sys.modules.get(
        "httpx"
    )  # a connection lost in the middle of a file, in versions that use it, is no OSError
    return (OSError, ValueError, RuntimeError, DatasetsError, *([httpx.HTTPError] if httpx else []))


def open_data(where: str | None) -> Data | None:
    """Return the sets that `--data` names: a folder, an archive, or the hub (a folder of that name is ./hub)."""
    if where is None:
        return None
    if where == NAME:
        return Hub()
    check(Path(where).exists(), f"--data {where} does not exist; allowed: a folder, a zip archive, or hub")
    return DataFolder(Path(where))
