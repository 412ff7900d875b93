"""The outer loop. In: tensors to learn, a function that draws fresh tasks and gives their loss. Out: learned tensors.

The random numbers of an iteration depend on (seed, iteration) alone, so a loop that was stopped and resumed gives the
same result. MAML, in-context learning, pre-training and Reptile share it. Knows no task and no learner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import BadValue, Diverged, check, check_counts
from fewshot.base.files import parse_json, to_json
from fewshot.base.rng import seed_of
from fewshot.base.tensors import first_not_finite
from fewshot.meta.state import damaged, differences, digest, read_state, write_state

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class OuterLoss:
    """The loss of one iteration: a scalar to log, and to differentiate unless its gradients are given."""

    value: Float[Tensor, ""]
    gradients: Mapping[str, Tensor] | None = None  # by name of the learned tensor; one that has none stays as it is


OuterStep = Callable[
    [torch.Generator, float], OuterLoss
]  # the generator that tasks are drawn by, share of iterations done


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """Settings of the outer loop."""

    n_iterations: int = 10_000
    optimizer: str = "adam"  # or adamw, sgd
    lr: float = 1e-3
    schedule: str = "cosine"  # or linear, both to 0; constant
    warmup: int = 0  # iterations in which lr rises from 0
    betas: tuple[float, ...] = (0.9, 0.999)  # of adam and adamw
    weight_decay: float = 0.0  # of adamw
    clip_norm: float | None = None  # of the gradient
    report_every: int = 500  # iterations between two logged rows
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "n_iterations", "report_every")
        check(0 < self.lr < math.inf, f"lr is {self.lr}, must be above 0 and finite")
        check(self.warmup >= 0, f"warmup is {self.warmup}, must be at least 0")
        check(
            0 <= self.weight_decay < math.inf,
            f"weight_decay is {self.weight_decay}, must be at least 0 and finite",
        )
        check(
            self.optimizer != "sgd" or not self.weight_decay,
            f"weight_decay is {self.weight_decay}, but sgd here has none: give 0, or adamw",
        )
        check(abs(self.seed) < 2**63, f"seed is {self.seed}, must have at most 63 bits")
        check(
            self.clip_norm is None or 0 < self.clip_norm < math.inf,
            f"clip_norm is {self.clip_norm}, must be above 0 and finite, or null",
        )
        check(self.optimizer in OPTIMIZERS, f"optimizer is {self.optimizer!r}, allowed: {', '.join(OPTIMIZERS)}")
        check(self.schedule in SCHEDULES, f"schedule is {self.schedule!r}, allowed: {', '.join(SCHEDULES)}")
        check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas are {list(self.betas)}, two numbers in [0, 1) are needed",
        )

    def lr_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""
        if iteration < self.warmup:
            return self.lr * (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(1, self.n_iterations - self.warmup)
        left = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}
        return self.lr * left[self.schedule]


class OuterLoop:
    """The state of an outer loop: learned tensors, the optimizer's moments, iterations done and logged rows.

    `way_out` is the advice in the error when the loop diverges.
    """

    def __init__(
        self, learned: Mapping[str, Tensor], step: OuterStep, config: OuterConfig, *, way_out: str = "lower outer.lr"
    ) -> None:
        self.learned, self.step, self.config, self.way_out = dict(learned), step, config, way_out
        self.iteration = 0
        self.is_whole = True  # no iteration is half done, and none has diverged: the state can be saved
        self.recent: list[float] = []  # losses since the last row
        self.history: list[dict[str, float]] = []
        self.start_digest = digest(self.learned)  # of the tensors at iteration 0
        self._losses: list[Tensor] = []  # the latest of `recent`, still on the device
        tensors = list(self.learned.values())
        self.optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(tensors, config.lr)
        else:
            optimizer_class = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
            betas = (config.betas[0], config.betas[1])
            self.optimizer = optimizer_class(
                tensors, config.lr, betas=betas, weight_decay=config.weight_decay, fused=True
            )

    @property
    def is_done(self) -> bool:
        """Whether every iteration is done and its row logged."""
        return self.iteration == self.config.n_iterations and not self._row_is_due

    def run(
        self, watch: Callable[[], Mapping[str, float]] = dict, *, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[dict[str, float]]:
        """Yield a row of figures every `report_every` iterations, to the end or until `stop`; raises Diverged.

        A row has `iteration`, `loss` (the mean since the last row) and what `watch` gives. `stop` is asked between two
        iterations. A row that was due when the loop was stopped comes first when it is resumed.
        """
        while not stop():
            if self._row_is_due:
                self.check_finite()
                self.history.append({"iteration": self.iteration, "loss": fmean(self.recent), **watch()})
                self.recent = []
                yield self.history[-1]
            elif self.is_done:
                return
            else:
                self._iterate()

    @property
    def _row_is_due(self) -> bool:
        at_end = self.iteration == self.config.n_iterations
        return bool(self.recent or self._losses) and (at_end or self.iteration % self.config.report_every == 0)

    def _iterate(self) -> None:
        self.is_whole = False
        generator = torch.Generator().manual_seed(seed_of("meta", self.config.seed, self.iteration))
        loss = self.step(generator, self.iteration / self.config.n_iterations)
        self._update(loss)
        self._losses.append(loss.value.detach())
        self.iteration += 1
        self.is_whole = True

    def check_finite(self) -> None:
        """Raise Diverged if a loss, a learned tensor or a moment of the optimizer is not finite."""
        if self._losses:
            self.recent += torch.stack(self._losses).tolist()
            self._losses = []
        after = f"after {self.iteration:,} iterations: {self.way_out}"
        finite = {
            "the loss": all(map(math.isfinite, self.recent)),
            "what is learned": first_not_finite(self._tensors()) is None,
        }
        for what, is_finite in finite.items():
            if not is_finite:
                self.is_whole = False
                raise Diverged(f"{what} is not a finite number {after}")

    def _update(self, loss: OuterLoss) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.iteration)
        self.optimizer.zero_grad()
        if loss.gradients is None:
            loss.value.backward()
        else:
            for name, tensor in self.learned.items():
                tensor.grad = loss.gradients.get(name)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(self.learned.values()), self.config.clip_norm)
        self.optimizer.step()

    def _tensors(self) -> dict[str, Tensor]:
        """Return all tensors that an iteration changes, by name."""
        tensors = {f"learned.{name}": tensor.detach() for name, tensor in self.learned.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items() if value is not None}
        return tensors

    def save(self, path: Path, *, about: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all; `about` holds the settings it belongs to. Raises Diverged as `run`."""
        self.check_finite()
        facts = {"iteration": self.iteration, "about": dict(about), "history": self.history, "since": self.recent}
        write_state(
            path, {n: t.clone().contiguous() for n, t in self._tensors().items()}, {**facts, "begun": self.start_digest}
        )

    def load(self, path: Path, *, about: Mapping[str, Any]) -> None:
        """Read back what `save` wrote; raises BadFile if it is damaged.

        Raises BadValue if it belongs to other settings, or began with other tensors.
        """
        tensors, facts = read_state(path)
        shapes = {f"learned.{name}": tensor.shape for name, tensor in self.learned.items()}
        apart = list(differences(facts.get("about"), parse_json(to_json(about, where=path), path)))
        if apart and "about" in facts:
            raise BadValue(f"{path} belongs to other settings ({'; '.join(apart)}): give another --out, or delete it")
        if facts.get("begun", self.start_digest) != self.start_digest:  # files of earlier versions have none
            raise BadValue(f"{path} started from other initial weights than this run: give another --out, or delete it")
        if (
            not {"iteration", "about", "history"} <= facts.keys()
            or {name: t.shape for name, t in tensors.items() if name.startswith("learned.")} != shapes
        ):
            raise damaged(path, "something is missing")
        self.iteration, self.history, self.recent = facts["iteration"], facts["history"], facts.get("since", [])
        optimizer_state: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, tensor in self.learned.items():
                tensor.copy_(tensors[f"learned.{name}"])
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, moment = name.split(".")
                optimizer_state.setdefault(int(i), {})[moment] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer_state})
