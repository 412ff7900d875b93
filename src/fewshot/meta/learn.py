"""The outer loop. In: a module, a distribution over tasks, a configuration. Out: weights that learn a new task fast.

Every iteration draws its tasks from (seed, iteration) alone, so a run that was stopped goes on as if it had not been.
Pre-training on all tasks is the outer loop without an inner one. Knows neither files of tasks nor the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fewshot.base.errors import BadFile, BadValue, Diverged, check
from fewshot.base.files import written_whole
from fewshot.base.rng import seed_of
from fewshot.evaluate.measure import Z95
from fewshot.meta.episodes import Episodes, Tasks
from fewshot.meta.maml import InnerLoop, Loss, query_losses

Learner = Literal["maml", "fomaml", "anil", "meta-sgd", "pretrain"]
LEARNERS: tuple[Learner, ...] = ("maml", "fomaml", "anil", "meta-sgd", "pretrain")


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """How the outer loop runs; the defaults are those of Finn et al. 2017 for sinusoids (section 5.1 and its code).

    Two are not: 5 support examples, as many as the test has, where the paper trains with 10, and the falling lr.
    """

    learner: Learner = "maml"
    n_iterations: int = 70_000
    n_tasks: int = 25  # of one iteration
    n_support: int = 5  # examples a task, for the inner loop
    n_query: int = 10  # for the outer loss
    n_inner_steps: int = 1  # in training
    step_size: float = 0.01  # of the inner loop; where step sizes are learned, the first one
    head: str = ""  # what ANIL adapts: the beginning of the names of those weights
    lr: float = 1e-3  # of the outer loop's Adam
    decay: bool = True  # lr falls to zero along a cosine
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.learner in LEARNERS, f"learner is {self.learner!r}, allowed: {', '.join(LEARNERS)}")
        for name in ("n_iterations", "n_tasks", "n_support", "n_query", "n_inner_steps"):
            check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, must be at least 1")
        check(self.lr > 0, f"lr is {self.lr}, must be above 0")
        check(self.learner != "anil" or bool(self.head), "anil adapts a head: say which weights by --head")

    def inner(self, n_steps: int) -> InnerLoop:
        """The inner loop with so many steps."""
        adapts = self.head if self.learner == "anil" else ""
        second_order = self.learner != "fomaml"
        return InnerLoop(n_steps=n_steps, step_size=self.step_size, second_order=second_order, adapts=adapts)


class MetaTraining:
    """The outer loop as it stands: weights, learned step sizes, Adam's moments and the number of iterations done."""

    def __init__(self, module: nn.Module, tasks: Tasks, loss: Loss, config: MetaConfig) -> None:
        self.module, self.tasks, self.loss, self.config = module, tasks, loss, config
        self.iteration = 0
        self.weights: dict[str, Tensor] = dict(module.named_parameters())
        self.step_sizes: dict[str, Tensor] | None = None
        if config.learner == "meta-sgd":
            self.step_sizes = {
                name: torch.full_like(weight, config.step_size, requires_grad=True)
                for name, weight in self.weights.items()
            }
        self.learned = [*self.weights.values(), *(self.step_sizes or {}).values()]
        self.adam = torch.optim.Adam(self.learned, config.lr)

    def run(self, *, report_every: int = 500) -> Iterator[tuple[int, float]]:
        """Go on to the end, and yield (iterations done, mean query loss since the last report); raises Diverged."""
        config, since = self.config, 0.0
        inner = config.inner(0 if config.learner == "pretrain" else config.n_inner_steps)
        reported = self.iteration
        while self.iteration < config.n_iterations:
            generator = torch.Generator().manual_seed(seed_of("meta", config.seed, self.iteration))
            episodes = self.tasks.draw(config.n_tasks, config.n_support, config.n_query, generator)
            mean = query_losses(self.module, self.weights, episodes, self.loss, inner, self.step_sizes).mean()
            self._set_lr()
            self.adam.zero_grad()
            mean.backward()
            self.adam.step()
            since += mean.item()
            self.iteration += 1
            if not math.isfinite(since):
                raise Diverged(f"the query loss is no number after {self.iteration:,} iterations: lower --lr")
            if self.iteration % report_every == 0 or self.iteration == config.n_iterations:
                yield self.iteration, since / (self.iteration - reported)
                reported, since = self.iteration, 0.0

    def _set_lr(self) -> None:
        done = self.iteration / self.config.n_iterations
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.config.decay else 1.0
        for group in self.adam.param_groups:
            group["lr"] = self.config.lr * factor

    def save(self, path: Path) -> None:
        """Write all of it, whole or not at all."""
        tensors = {f"learned.{i}": each.detach().contiguous() for i, each in enumerate(self.learned)}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value.clone() for name, value in state.items()}
        facts = {"iteration": str(self.iteration), "config": repr(asdict(self.config))}
        with written_whole(path) as partial:
            save_file(tensors, partial, metadata=facts)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote; raises BadValue for another configuration, BadFile for a damaged file."""
        try:
            with safe_open(path, "pt") as file:
                facts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BadFile(f"{path} is damaged ({error}): delete it to begin anew") from None
        if facts.get("config") != repr(asdict(self.config)):
            raise BadValue(f"{path} belongs to other settings: give another --out, or delete it")
        self.iteration = int(facts["iteration"])
        states: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for i, each in enumerate(self.learned):
                each.copy_(tensors[f"learned.{i}"])
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, field = name.split(".")
                states.setdefault(int(i), {})[field] = value
        self.adam.load_state_dict({**self.adam.state_dict(), "state": states})


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The mean query loss over unseen tasks after so many inner steps."""

    n_steps: int
    n_tasks: int
    mean: float
    half_width: float  # of its 95% interval over tasks


def adaptation_curve(training: MetaTraining, episodes: Episodes, steps: Sequence[int]) -> list[Adapted]:
    """How well unseen tasks are learned after each number of inner steps."""
    weights = {name: weight.detach() for name, weight in training.weights.items()}
    sizes = training.step_sizes and {name: size.detach() for name, size in training.step_sizes.items()}
    curve = []
    for n in steps:
        inner = training.config.inner(n)
        losses = query_losses(training.module, weights, episodes, training.loss, inner, sizes)
        half_width = Z95 * (losses.std() / math.sqrt(len(losses))).item()
        curve.append(Adapted(n_steps=n, n_tasks=len(losses), mean=losses.mean().item(), half_width=half_width))
    return curve


def sinusoid_network(seed: int) -> nn.Module:
    """1-40-40-1 with ReLU. Source: Finn et al. 2017, section 5.1."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
