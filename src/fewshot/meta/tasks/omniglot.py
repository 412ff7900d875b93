"""Classification from a few examples: Omniglot as in Finn et al. 2017, section 5.2, and any folder like it.

In: a configuration with the path of labelled images or texts. Out: accuracy on classes that were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured, point
from fewshot.meta.episodes import Episodes, check_drawn
from fewshot.meta.learners.weight_learner import WAY_OUT, LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import ImageNetwork, NetworkConfig, TextNetwork
from fewshot.meta.outer_loop import OuterConfig, OuterLoop
from fewshot.meta.tasks.classes import Classes, ClassTasks, accuracy, read_classes
from fewshot.model.machine import machine_device

VALIDATION_TASKS = 100


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Labelled examples, and how their classes are split into training, validation and test."""

    path: str = ""  # folder or zip of label/file.png or label/file.txt, or a .jsonl with text and label
    side: int = 28  # pixels, of images
    n_channels: int = 1  # 1 grey, 3 colour
    n_bytes: int = 128  # of texts
    turned: bool = True  # in training, images rotated by 90, 180 and 270 degrees are classes of their own
    validation: float = 0.06  # share of the classes, whose accuracy is logged in training; 0 for none
    test: float = 0.26  # share of the classes
    seed: int = 0  # of the split

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            check(0 <= getattr(self, name) < 1, f"data.{name} is {getattr(self, name)}, must be from 0 to below 1")
        check(self.test > 0, "data.test is 0, must be above 0: what is measured needs unseen classes")
        check(
            self.validation + self.test < 1,
            f"data.validation + data.test is {self.validation + self.test:g}, must be below 1: training needs classes",
        )

    def shares(self) -> dict[str, float]:
        """Return the share of the classes in each part."""
        parts = {"train": 1 - self.validation - self.test, "validation": self.validation, "test": self.test}
        return {name: share for name, share in parts.items() if share}


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Settings of the test on unseen classes."""

    n_tasks: int = 600
    n_support: int = 1  # examples of each class
    n_query: int = 1  # of each class; the paper has as many as support examples
    steps: tuple[int, ...] = (0, 1, 3)
    transductive: bool = True  # batch norm over a task's whole query set; else over each query and the support set

    def __post_init__(self) -> None:
        check_counts(self, "n_support", "n_query", prefix="test.")
        check(self.n_tasks >= 2, f"test.n_tasks is {self.n_tasks}, must be at least 2: intervals are over tasks")
        check(
            bool(self.steps) and min(self.steps) >= 0,
            f"test.steps is {list(self.steps)}, must hold numbers of gradient steps from 0 on",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; the paper's 5-way 1-shot tasks and network, with other numbers of tasks and iterations."""

    data: DataConfig = field(default_factory=DataConfig)
    n_ways: int = 5
    network: NetworkConfig = field(default_factory=NetworkConfig)
    learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(n_tasks=32, n_support=1, n_query=1, step_size=0.4)
    )
    outer: OuterConfig = field(default_factory=OuterConfig)
    test: TestConfig = field(default_factory=TestConfig)
    threads: int = 1

    def __post_init__(self) -> None:
        check(self.threads >= 1, f"threads is {self.threads}, must be at least 1")
        check(self.learner.algorithm != "context", "classes are learned in weights: give another learner")


class Experiment:
    """One learner on tasks of classification."""

    def __init__(self, config: Config) -> None:
        self.config, data, name = config, config.data, config.learner.name
        check(bool(data.path), "data.path is not given: name a folder, zip or .jsonl of labelled images or texts")
        classes = read_classes(Path(data.path), side=data.side, n_channels=data.n_channels, n_bytes=data.n_bytes)
        self.data = {"data.path": classes.digest()}
        parts = classes.split(data.shares(), seed=data.seed)
        for part, members in parts.items():
            check(
                len(members) >= config.n_ways,
                f"the {part} part has {len(members)} of the {len(classes)} classes in {data.path}, n_ways is "
                f"{config.n_ways}: lower n_ways, or change data.validation and data.test",
            )
        turned = data.turned and classes.are_images
        self.tasks = {
            part: ClassTasks(members, config.n_ways, turned=turned and part == "train")
            for part, members in parts.items()
        }
        for part, tasks in self.tasks.items():
            sizes = config.learner if part == "train" else config.test
            tasks.check_enough(sizes.n_support, sizes.n_query)
            n_numbers = config.n_ways * (sizes.n_support + sizes.n_query) * classes.examples[0].numel()
            check_drawn(sizes.n_tasks, n_numbers, "learner.n_tasks" if part == "train" else "test.n_tasks", "n_ways")
        network = network_for(classes, config.n_ways, config.network, seed=config.outer.seed)
        network.to(machine_device())
        self.learner = WeightLearner(
            network, self.tasks["train"], cross_entropy, config.learner, n_iterations=config.outer.n_iterations
        )
        self.loops = {name: OuterLoop(self.learner.start.named(), self.learner.step, config.outer, way_out=WAY_OUT)}

    def watch(self, name: str) -> Mapping[str, float]:
        """Return the accuracy on validation classes after the largest number of steps of the test."""
        if "validation" not in self.tasks:
            return {}
        curve = self._curve("validation", VALIDATION_TASKS, (max(self.config.test.steps),))
        return {"validation accuracy": curve.points[0].mean}

    def measure(self) -> Measured:
        """Return the accuracy on unseen classes, after gradient steps and by the nearest example."""
        test = self.config.test
        curves = (self._curve("test", test.n_tasks, test.steps), self._nearest())
        return Measured(tasks=self._tasks_name(), quantity="accuracy", curves=curves, more_is_better=True)

    def _tasks_name(self) -> str:
        config = self.config
        return f"{Path(config.data.path).stem}, {config.n_ways}-way {config.test.n_support}-shot"

    def _curve(self, part: str, n_tasks: int, steps: tuple[int, ...]) -> Curve:
        episodes = self._unseen(part, n_tasks)
        if not self.config.test.transductive:
            episodes = one_by_one(episodes)
        n_examples = self.config.n_ways * self.config.test.n_support
        return self.learner.curve(episodes, steps, n_examples=n_examples, judge=accuracy)

    def _nearest(self) -> Curve:
        test = self.config.test
        values = nearest_accuracy(self._unseen("test", test.n_tasks)).tolist()
        points = (point(values, n_examples=self.config.n_ways * test.n_support),)
        return Curve(learner="nearest example", kind="baseline", points=points)

    def _unseen(self, part: str, n_tasks: int) -> Episodes:
        test, generator = self.config.test, torch.Generator().manual_seed(seed_of("meta test", part))
        return self.tasks[part].draw(n_tasks, test.n_support, test.n_query, generator)


def network_for(classes: Classes, n_ways: int, config: NetworkConfig, *, seed: int) -> ImageNetwork | TextNetwork:
    """Return a network for these images or texts."""
    if classes.are_images:
        side, least = classes.examples.shape[1], 2**config.n_blocks
        check(
            config.pool != "max" or side >= least,
            f"data.side is {side}, with pool max it must be at least {least}: {config.n_blocks} blocks halve it",
        )
        return ImageNetwork(classes.examples.shape[-1], n_ways, config, seed=seed)
    return TextNetwork(n_ways, config, seed=seed)


def one_by_one(episodes: Episodes) -> Episodes:
    """Return the same tasks with each query as the last of a batch with the support examples (N, Q, K + 1, ...).

    So batch norm does not carry information from one query to another.
    """
    support, query = episodes.support_x, episodes.query_x[:, :, None]
    beside = support[:, None].expand(-1, query.shape[1], *support.shape[1:])
    return Episodes(support, episodes.support_y, torch.cat([beside, query], 2), episodes.query_y)


def nearest_accuracy(episodes: Episodes) -> Tensor:
    """Return each task's share of queries whose class is that of the nearest support example.

    Distances are Euclidean, between the pixels of images, between the counts of each byte of texts.
    """
    support, query = (
        x.flatten(2) if x.is_floating_point() else one_hot(x, 256).sum(-2).float()
        for x in (episodes.support_x, episodes.query_x)
    )
    predicted = episodes.support_y.gather(1, torch.cdist(query, support).argmin(-1))
    return (predicted == episodes.query_y).float().mean(1)
