"""Rare classes, learned in context or in weights. In: a configuration. Out: accuracy where only one of both can answer.

A sequence shows items with their labels, then an item whose label is asked for. In training an item's class always has
the same label, so the label can be kept in the weights; in most sequences the class of the last item also comes in a
burst before it, so the label can be read in the context too. Which of the two a GPT learns depends on the data: many
classes and bursts lead to learning in context, few classes to learning in weights. Three tests tell them apart: new
classes (context alone can answer), trained classes that the context does not show (weights alone can), and trained
classes with other labels in the context (right is what the context says).
Source: Chan et al. 2022, "Data Distributional Properties Drive Emergent In-Context Learning in Transformers"; classes
of Gaussian items as in Reddy 2023, "The mechanistic basis of data dependence and abrupt learning in an in-context
classification task".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured, point
from fewshot.meta.episodes import check_drawn
from fewshot.meta.flops import flops_of, training_flops
from fewshot.meta.learners.in_context import ContextModelConfig, LabelModel
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss

CONTEXT = "context"
TESTS = {"new": "new classes", "in_weights": "in weights", "relabelled": "relabelled"}
N_WATCHED = 500  # sequences of each test whose accuracy is logged in training
AT_ONCE = 1000  # sequences in memory at a time
MAX_ZIPF = 10.0  # with more, the second class hardly ever comes
MAX_CLASSES = 2**24  # torch.multinomial draws among no more


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; by default many classes in bursts, which are learned in context."""

    n_classes: int = 2048  # in training
    n_dims: int = 32  # of an item
    n_labels: int = 16
    noise: float = 0.1  # of an item around the mean of its class, as a share of the mean's size
    zipf: float = 0.0  # exponent: the class of rank r comes 1/r^zipf as often as the first; 0: all as often
    n_pairs: int = 8  # items with labels before the last item
    burstiness: int = 4  # how often a class comes in the context of a bursty sequence
    p_bursty: float = 0.9  # share of bursty sequences in training; in the others every item's class is drawn by itself
    n_sequences: int = 128  # of one iteration
    reader: ContextModelConfig = field(
        default_factory=lambda: ContextModelConfig(
            n_layers=2, d_model=64, n_heads=2, init_std=0.06, pattern="alternate(banded(2), dense)"
        )
    )
    positions: str = "rows(2)"  # an item and its label share the number of the pair; or learned
    outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=700, lr=2e-3, clip_norm=1.0, report_every=20)
    )
    seeds: int = 1  # of classes, initial weights and training
    test_sequences: int = 4000  # of each test and seed
    threads: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "n_dims", "n_pairs", "n_sequences", "seeds", "threads")
        check(2 <= self.n_classes <= MAX_CLASSES, f"n_classes is {self.n_classes}, must be from 2 to {MAX_CLASSES:,}")
        check(0 <= self.noise < math.inf, f"noise is {self.noise}, must be at least 0 and finite")
        check(0 <= self.zipf <= MAX_ZIPF, f"zipf is {self.zipf}, must be from 0 to {MAX_ZIPF:g}")
        check(
            1 <= self.burstiness <= self.n_pairs,
            f"burstiness is {self.burstiness}, must be from 1 to n_pairs, {self.n_pairs}",
        )
        check(0 <= self.p_bursty <= 1, f"p_bursty is {self.p_bursty}, must be from 0 to 1")
        check(
            self.n_labels >= max(2, self.n_bursts),
            f"n_labels is {self.n_labels}, must be at least {max(2, self.n_bursts)}: new classes have different labels",
        )
        check(
            self.test_sequences >= 2,
            f"test_sequences is {self.test_sequences}, must be at least 2: intervals are over them",
        )

    @property
    def n_bursts(self) -> int:
        """Number of classes in the context of a bursty sequence; the last of them may come less often."""
        return math.ceil(self.n_pairs / self.burstiness)


@dataclass(frozen=True)
class Sequences:
    """N sequences of K pairs and a last item, whose label is the answer."""

    items: Float[Tensor, "N K+1 D"]
    labels: Int[Tensor, "N K+1"]


class Classes:
    """Classes with a mean, a label and a frequency each, and sequences of their items and of new classes' items.

    Means are N(0, I). An item is (mean + noise e) / sqrt(1 + noise^2) with e of the
    same distribution. Labels go round with the rank of a class, so that each has as many frequent classes.
    """

    def __init__(self, config: Config, *, seed: int) -> None:
        self.config = config
        generator = torch.Generator().manual_seed(seed_of("meta rare", "classes", seed))
        self.means = self._points(config.n_classes, generator=generator)
        self.labels = torch.arange(config.n_classes) % config.n_labels
        self.frequencies = torch.arange(1, config.n_classes + 1, dtype=torch.float64) ** -config.zipf

    def training(self, n: int, generator: torch.Generator) -> Sequences:
        """Return sequences as in training, bursty or not."""
        config = self.config
        is_bursty = torch.rand(n, 1, generator=generator) < config.p_bursty
        bursts = self._bursts(self._drawn(n, config.n_bursts, generator=generator))
        single = torch.cat([self._drawn(n, config.n_pairs, generator=generator), bursts[:, -1:]], 1)
        return self._of_trained(torch.where(is_bursty, bursts, single), generator)

    def new(self, n: int, generator: torch.Generator) -> Sequences:
        """Return bursty sequences of classes that were never drawn before, whose labels differ."""
        config = self.config
        means = self._points(n, config.n_bursts, generator=generator)
        labels = torch.rand(n, config.n_labels, generator=generator).argsort(1)[:, : config.n_bursts]
        return self._shown(self._bursts(means), self._bursts(labels), generator)

    def in_weights(self, n: int, generator: torch.Generator) -> Sequences:
        """Return sequences of single trained classes, of which none is that of the last item."""
        last = self._drawn(n, 1, generator=generator)
        context = self._drawn(n, self.config.n_pairs, generator=generator)
        while (is_last := context == last).any():
            context[is_last] = self._drawn(int(is_last.sum()), generator=generator)
        return self._of_trained(torch.cat([context, last], 1), generator)

    def relabelled(self, n: int, generator: torch.Generator) -> Sequences:
        """Return bursty sequences of trained classes whose labels are moved on by the same number, other than 0."""
        n_labels = self.config.n_labels
        sequences = self._of_trained(self._bursts(self._drawn(n, self.config.n_bursts, generator=generator)), generator)
        moved = torch.randint(1, n_labels, (n, 1), generator=generator)
        return replace(sequences, labels=(sequences.labels + moved) % n_labels)

    def _points(self, *shape: int, generator: torch.Generator) -> Float[Tensor, "*N D"]:
        return torch.randn(*shape, self.config.n_dims, generator=generator)

    def _drawn(self, *shape: int, generator: torch.Generator) -> Int[Tensor, "*N"]:
        """Return trained classes by their frequencies."""
        return torch.multinomial(self.frequencies, math.prod(shape), replacement=True, generator=generator).view(shape)

    def _bursts(self, values: Shaped[Tensor, "N G *X"]) -> Shaped[Tensor, "N K+1 *X"]:
        """Return what each place of a bursty sequence has of its class; the last place belongs to the first class."""
        context = values.repeat_interleave(self.config.burstiness, 1)[:, : self.config.n_pairs]
        return torch.cat([context, values[:, :1]], 1)

    def _of_trained(self, classes: Int[Tensor, "N K+1"], generator: torch.Generator) -> Sequences:
        return self._shown(self.means[classes], self.labels[classes], generator)

    def _shown(
        self, means: Float[Tensor, "N K+1 D"], labels: Int[Tensor, "N K+1"], generator: torch.Generator
    ) -> Sequences:
        """Return an item of each place's class, the pairs of the context in random order."""
        noise = self.config.noise
        items = (means + noise * self._points(*labels.shape, generator=generator)) / math.sqrt(1 + noise**2)
        rank = torch.rand(labels.shape, generator=generator)
        rank[:, -1] = 2.0  # the last item stays the last
        order = rank.argsort(1)
        return Sequences(items.take_along_dim(order[..., None], 1), labels.take_along_dim(order, 1))


class Experiment:
    """For each seed classes, and a GPT trained on sequences of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: classes are drawn
        check_drawn(config.n_classes, config.n_dims, "n_classes", "n_dims")
        for name in ("n_sequences", "test_sequences"):
            n_numbers = (config.n_pairs + 1) * (config.n_dims + 1) + config.n_labels
            check_drawn(getattr(config, name), n_numbers, name, "n_pairs", "n_dims")
        self.classes: list[Classes] = []
        self.models: list[LabelModel] = []
        self.loops: dict[str, OuterLoop] = {}
        for seed in range(config.outer.seed, config.outer.seed + config.seeds):
            torch.manual_seed(seed)
            model = LabelModel(
                config.reader,
                n_dims=config.n_dims,
                n_labels=config.n_labels,
                n_pairs=config.n_pairs,
                positions=config.positions,
            )
            self.models.append(model)
            self.classes.append(Classes(config, seed=seed))
            step, settings = partial(self._step, len(self.loops)), replace(config.outer, seed=seed)
            self.loops[f"{CONTEXT}_{len(self.loops)}"] = OuterLoop(dict(model.named_parameters()), step, settings)

    def watch(self, name: str) -> Mapping[str, float]:
        """Return the accuracy on a few sequences of each test."""
        number = list(self.loops).index(name)
        watched = {test: self._test(test, number, N_WATCHED, "watched") for test in TESTS}
        return {test: self._is_right(number, sequences).float().mean().item() for test, sequences in watched.items()}

    def measure(self) -> Measured:
        """Return the accuracy on each test: the GPT's, and that of answers from the context or from training alone."""
        config = self.config
        flops = training_flops(self.loops[f"{CONTEXT}_0"].step, n_iterations=config.outer.n_iterations)
        curves = []
        for test, words in TESTS.items():
            tests = [self._test(test, number, config.test_sequences, "test") for number in range(config.seeds)]
            first = Sequences(tests[0].items[:1], tests[0].labels[:1])
            right = {
                CONTEXT: [self._is_right(number, sequences) for number, sequences in enumerate(tests)],
                "nearest example": [nearest_example(sequences) for sequences in tests],
                "nearest trained class": [
                    nearest_class(sequences, classes) for sequences, classes in zip(tests, self.classes, strict=True)
                ],
            }
            for learner, by_seed in right.items():
                learns = learner == CONTEXT
                # Over seeds where there are several; sequences of one seed tell nothing of another
                values = [seed.float().mean().item() for seed in by_seed] if len(by_seed) > 1 else by_seed[0].tolist()
                reading = flops_of(partial(self._is_right, 0, first)) if learns else None
                curves.append(
                    Curve(
                        learner=learner,
                        kind="context" if learns else "baseline",
                        points=(point(values, n_examples=config.n_pairs, flops=reading, is_share=True),),
                        tasks=words,
                        training_flops=flops if learns else None,
                    )
                )
        return Measured(tasks="rare classes", quantity="accuracy", curves=tuple(curves), more_is_better=True)

    def _step(self, number: int, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the loss on the label of the last item, and of no other."""
        sequences = self.classes[number].training(self.config.n_sequences, generator)
        logits = self.models[number](sequences.items, sequences.labels[:, :-1])
        return OuterLoss(F.cross_entropy(logits, sequences.labels[:, -1]))

    def _test(self, test: str, number: int, n: int, use: str) -> Sequences:
        seed = self.config.outer.seed + number
        generator = torch.Generator().manual_seed(seed_of("meta rare", use, test, seed))
        draw = getattr(self.classes[number], test)
        sequences: Sequences = draw(n, generator)
        return sequences

    @torch.no_grad()
    def _is_right(self, number: int, sequences: Sequences) -> Bool[Tensor, " N"]:
        items, labels = sequences.items.split(AT_ONCE), sequences.labels.split(AT_ONCE)
        logits = torch.cat([self.models[number](x, y[:, :-1]) for x, y in zip(items, labels, strict=True)])
        return logits.argmax(-1) == sequences.labels[:, -1]


def nearest_example(sequences: Sequences) -> Bool[Tensor, " N"]:
    """Return where the label of the nearest item in the context is the answer: learning in context alone."""
    distances = (sequences.items[:, :-1] - sequences.items[:, -1:]).square().sum(-1)
    answers = sequences.labels.take_along_dim(distances.argmin(1, keepdim=True), 1)
    return answers[:, 0] == sequences.labels[:, -1]


def nearest_class(sequences: Sequences, classes: Classes) -> Bool[Tensor, " N"]:
    """Return where the label of the trained class with the nearest mean is the answer: learning in weights alone."""
    nearest = torch.cdist(sequences.items[:, -1], classes.means).argmin(1)
    return classes.labels[nearest] == sequences.labels[:, -1]
