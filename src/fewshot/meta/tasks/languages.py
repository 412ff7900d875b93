"""Languages that were never trained on, learned from the text before. In: a folder or zip of plain texts. Out: losses.

A GPT reads bytes of texts, a document group (a language with its variants, or a family) being held out whole. The loss
on held-out groups falls with the number of bytes before: the languages are learned in context. Their last bytes after
other contexts (their own words shuffled, another held-out text, nothing) say what is learned.
Source of the measure: Olsson et al. 2022, "In-context learning and induction heads" (loss at 500 minus loss at 50).
"""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import BadFile, check, check_counts
from fewshot.base.files import decode_text, read_text, sha256_file
from fewshot.base.rng import python_rng, seed_of
from fewshot.meta.curves import Curve, Measured, Point, point
from fewshot.meta.flops import training_flops
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss
from fewshot.meta.state import digest
from fewshot.model.gpt import GPT

N_BYTES, START = 257, 256  # the vocabulary: bytes, and the start of a text
LETTERS_OF_A_NAME = 3  # files whose names begin with the same letters are one group: ron.txt, ron_1953.txt
FIRST_BIN = 8  # bytes; bins of the loss by position double from here
EARLY, LATE = 50, 500  # bytes before, of Olsson's score
NEAR = 21  # bytes about those two whose losses are averaged
TAIL = 127  # bytes whose loss is compared after different contexts
CONTEXTS = ("own text", "own words shuffled", "another held-out text", "nothing")
READERS = tuple(
    ContextModelConfig(n_layers=n, d_model=width, n_heads=2, init_std=0.05, pattern="alternate(banded(2), dense)")
    for n, width in ((2, 32), (4, 64))
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; the texts of `path` are cut to `max_chars`, and shorter ones than `min_chars` left out."""

    path: str = ""  # a folder or zip of .txt files
    script: str = "LATIN"  # at least nine tenths of the letters are of it, by their Unicode names; "" for any
    min_chars: int = 6000
    max_chars: int = 30_000
    groups: str = ""  # a file of lines "NAME GROUP" for the beginnings of file names; others are groups of their own
    held_out: tuple[str, ...] = ()  # groups; none: a share of them, drawn by their names
    share: float = 0.13  # of groups, where none is named
    length: int = 512  # bytes that a reader reads at once
    n_rows: int = 8  # of one iteration
    sizes: tuple[ContextModelConfig, ...] = READERS
    outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(
            n_iterations=500, optimizer="muon", matrix_lr=0.02, lr=3e-3, warmup=50, clip_norm=1.0
        )
    )
    seeds: int = 1
    test_rows: int = 6  # of each text, at equal distances
    threads: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "n_rows", "seeds", "threads", "test_rows", "min_chars", "max_chars")
        least = LATE + NEAR // 2 + 1
        check(
            self.length >= least, f"length is {self.length}, must be at least {least}: the loss at {LATE} is measured"
        )
        enough = self.length + TAIL
        check(self.min_chars >= enough, f"min_chars is {self.min_chars}, must be at least length + {TAIL}, {enough}")
        check(self.max_chars >= self.min_chars, f"max_chars is {self.max_chars}, must be at least min_chars")
        check(0 < self.share < 1, f"share is {self.share}, must be between 0 and 1")
        check(bool(self.sizes), "sizes is empty: give at least one reader")
        names = [size.shape for size in self.sizes]
        check(len(set(names)) == len(names), f"sizes are {', '.join(names)}: each may be given once")


@dataclass(frozen=True)
class Text:
    """One file: its name without ending, its group, its bytes."""

    name: str
    group: str
    data: bytes


def read_texts(config: Config) -> list[Text]:
    """Return the texts that are long enough and of the script, by name; white space is a single space.

    Raises BadFile where there are none, or one cannot be read.
    """
    path = Path(config.path)
    check(bool(config.path), "path is not given: name a folder or zip of .txt files")
    groups = _read_groups(Path(config.groups)) if config.groups else {}
    texts = []
    for name, text in sorted(_files(path)):
        text = " ".join(text.split())[: config.max_chars]
        if len(text) >= config.min_chars and _is_of(text, config.script):
            beginning = name[:LETTERS_OF_A_NAME]
            texts.append(Text(name, groups.get(beginning, beginning), text.encode()))
    check(
        len(texts) >= 2,
        f"{path} holds {len(texts)} texts of script {config.script!r} and {config.min_chars} characters",
    )
    return texts


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each .txt file of a folder or a zip."""
    if path.is_dir():
        for file in path.rglob("*.txt"):
            yield file.stem, read_text(file)
        return
    if not zipfile.is_zipfile(path):
        raise BadFile(f"{path} is neither a folder nor a zip archive: give one with .txt files")
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".txt"):
                    yield Path(name).stem, decode_text(archive.read(name), f"{path}: {name}")
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BadFile(f"{path} is damaged: {error}") from None


def _read_groups(path: Path) -> dict[str, str]:
    rows = [line.split() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    for row in rows:
        check(len(row) == 2, f"{path}: {' '.join(row)!r} must be a name and its group")
    return {row[0]: row[1] for row in rows}


def _is_of(text: str, script: str) -> bool:
    letters = [character for character in set(text) if character.isalpha()]
    counts = {letter: text.count(letter) for letter in letters}
    inside = sum(n for letter, n in counts.items() if unicodedata.name(letter, "").startswith(script))
    return inside >= 0.9 * sum(counts.values())


def split(texts: Sequence[Text], config: Config) -> tuple[list[Text], list[Text]]:
    """Return the texts to train on and those of held-out groups; raises BadValue if either is empty."""
    there = {text.group for text in texts}
    for group in config.held_out:
        check(
            group in there,
            f"held_out has {group!r}, which is no group of the texts: {', '.join(sorted(there)[:8])}, ...",
        )
    drawn = {group for group in there if seed_of("languages", group) / 2**63 < config.share}
    held_out = set(config.held_out) or drawn
    parts = [t for t in texts if t.group not in held_out], [t for t in texts if t.group in held_out]
    counts = f"{len(parts[0])} texts to train on and {len(parts[1])} held out"
    check(len(parts[0]) >= 1 and len(parts[1]) >= 2, f"there are {counts}, at least 1 and 2 are needed: change share")
    return parts


class Experiment:
    """Readers of several sizes, trained on the same texts."""

    def __init__(self, config: Config) -> None:
        self.config = config
        texts = read_texts(config)
        self.data = {"path": digest({text.name: torch.tensor(list(text.data), dtype=torch.uint8) for text in texts})}
        if config.groups:
            self.data["groups"] = sha256_file(Path(config.groups))
        self.training, self.unseen = split(texts, config)
        self.stream = [torch.tensor(list(text.data)) for text in self.training]
        self.models: dict[str, GPT] = {}
        self.loops: dict[str, OuterLoop] = {}
        for reader in config.sizes:
            for seed in range(config.seeds):
                outer = replace(config.outer, seed=config.outer.seed + seed)
                torch.manual_seed(seed_of("languages", "weights", reader.shape, outer.seed))
                model = GPT(reader.gpt(n_vocab=N_BYTES, n_ctx=config.length))
                name = f"{reader.shape}_{seed}"
                self.models[name] = model
                self.loops[name] = OuterLoop(dict(model.named_parameters()), partial(self._step, model), outer)

    def watch(self, name: str) -> Mapping[str, float]:
        """Return nothing: only the loss is logged."""
        return {}

    def _step(self, model: GPT, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the loss on pieces of texts, each drawn with equal chances, from a place drawn so too."""
        config = self.config
        which = torch.randint(len(self.stream), (config.n_rows,), generator=generator).tolist()
        rows = torch.stack([_piece(self.stream[i], config.length, generator) for i in which])
        return OuterLoss(model.loss(rows[:, :-1], rows[:, 1:]))

    @torch.no_grad()
    def measure(self) -> Measured:
        """Return losses by bytes before and after four contexts, in nats a byte; intervals are over texts."""
        curves: list[Curve] = []
        gains: dict[str, Tensor] = {}
        for reader in self.config.sizes:
            size = reader.shape
            models = [self.models[f"{size}_{seed}"] for seed in range(self.config.seeds)]
            flops = training_flops(partial(self._step, models[0]), n_iterations=self.config.outer.n_iterations)
            make = partial(Curve, learner=size, kind="context", training_flops=flops)
            trained = self.training[:: max(1, len(self.training) // len(self.unseen))]  # as many, at equal distances
            for tasks, texts in (("held-out texts", self.unseen), ("trained texts", trained)):
                losses = _mean([self._by_position(model, texts) for model in models])
                curves.append(make(tasks=tasks, points=tuple(_points(losses))))
                curves.append(make(tasks=f"{tasks}: loss at {LATE} minus loss at {EARLY}", points=(_score(losses),)))
            after = {what: _mean([self._after(model, what) for model in models]) for what in CONTEXTS}
            for what, losses in after.items():
                n = 0 if what == "nothing" else self.config.length - TAIL
                curves.append(
                    make(tasks=f"last {TAIL} bytes after {what}", points=(point(losses.tolist(), n_examples=n),))
                )
            gains[size] = after["nothing"] - after["own text"]
            for what, difference in (
                ("gain from own text over nothing", gains[size]),
                ("shuffled minus own text", after["own words shuffled"] - after["own text"]),
            ):
                n = self.config.length - TAIL
                curves.append(make(tasks=what, points=(point(difference.tolist(), n_examples=n),)))
        for small, large in pairwise(gains):
            more = point((gains[large] - gains[small]).tolist(), n_examples=self.config.length - TAIL)
            curves.append(
                Curve(
                    learner=f"{large} over {small}", kind="context", tasks="gain from own text, paired", points=(more,)
                )
            )
        return Measured(tasks="languages", quantity="nats a byte", curves=tuple(curves))

    def _by_position(self, model: GPT, texts: Sequence[Text]) -> Float[Tensor, "N T"]:
        """Return the loss of each text after 0, 1, ... bytes of it, over some pieces of it."""
        return torch.stack([_losses(model, self._rows(text)).mean(0) for text in texts])

    def _rows(self, text: Text) -> Int[Tensor, "R T"]:
        data, length = torch.tensor(list(text.data)), self.config.length
        places = torch.linspace(0, len(data) - length, self.config.test_rows).long()
        return torch.stack([data[place : place + length] for place in places.tolist()])

    def _after(self, model: GPT, context: str) -> Float[Tensor, " N"]:
        """Return the loss of each held-out text's last bytes of some pieces, after a context."""
        means = []
        for i, text in enumerate(self.unseen):
            rows = self._rows(text)
            before, tail = rows[:, :-TAIL], rows[:, -TAIL:]
            if context == "nothing":
                read = tail
            elif context == "own words shuffled":
                read = torch.cat([torch.stack([_shuffled(row) for row in before]), tail], 1)
            elif context == "another held-out text":
                read = torch.cat([self._rows(self._other(i))[:, :-TAIL], tail], 1)
            else:
                read = rows
            means.append(_losses(model, read)[:, -TAIL:].mean())
        return torch.stack(means)

    def _other(self, i: int) -> Text:
        """Return the next held-out text of another group; of the same group if there is but one."""
        others = [*self.unseen[i + 1 :], *self.unseen[:i]]
        return next((other for other in others if other.group != self.unseen[i].group), others[0])


def _piece(data: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return START and a stretch of a text."""
    place = int(torch.randint(len(data) - length + 1, (), generator=generator))
    return F.pad(data[place : place + length], (1, 0), value=START)


def _shuffled(row: Tensor) -> Tensor:
    """Return the same bytes with the words in another order."""
    words = bytes(row.tolist()).split(b" ")
    python_rng("languages", "shuffle", bytes(row.tolist()).hex()).shuffle(words)
    return torch.tensor(list(b" ".join(words)))


def _losses(model: GPT, rows: Int[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Return the loss of each byte, the first one after START alone."""
    logits = model(F.pad(rows[:, :-1], (1, 0), value=START))
    return F.cross_entropy(logits.flatten(0, 1), rows.flatten(), reduction="none").view(rows.shape)


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean(0)


def _points(losses: Float[Tensor, "N T"]) -> Iterable[Point]:
    """Yield the mean over texts in bins of positions that double; a point's n_examples is the bin's first place."""
    edges = [0]
    while edges[-1] < losses.shape[1]:
        edges.append(min(losses.shape[1], max(FIRST_BIN, 2 * edges[-1])))
    for first, end in pairwise(edges):
        yield point(losses[:, first:end].mean(1).tolist(), n_examples=first)


def _score(losses: Float[Tensor, "N T"]) -> Point:
    """Return the loss about byte LATE minus that about byte EARLY; below 0 where the text before helps."""
    late, early = (losses[:, at - NEAR // 2 : at + NEAR // 2 + 1].mean(1) for at in (LATE, EARLY))
    return point((late - early).tolist(), n_examples=LATE)
