"""The outer loop. In: tensors to learn, a function that draws fresh tasks and gives their loss. Out: learned tensors.

The random numbers of an iteration depend on (seed, iteration) alone, so a loop that was stopped and resumed gives the
same result. MAML, in-context learning, pre-training and Reptile share it. Knows no task and no learner.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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

OPTIMIZERS = ("adam", "adamw", "sgd", "muon")
HIDDEN = re.compile(r"(.*\.)?h\.\d+\..*")  # names of tensors in Transformer blocks
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
    optimizer: str = "adam"  # or adamw, sgd; muon, for the matrices of Transformer blocks, and adam for the rest
    lr: float = 1e-3
    matrix_lr: float | None = None  # that of muon; it rises and falls with lr
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
        check(
            (self.optimizer == "muon") == (self.matrix_lr is not None),
            f"optimizer is {self.optimizer!r} and matrix_lr {self.matrix_lr}: muon needs one, and no other does",
        )
        check(
            self.matrix_lr is None or 0 < self.matrix_lr < math.inf,
            f"matrix_lr is {self.matrix_lr}, must be above 0 and finite",
        )
        check(self.warmup >= 0, f"warmup is {self.warmup}, must be at least 0")
        check(
            0 <= self.weight_decay < math.inf,
            f"weight_decay is {self.weight_decay}, must be at least 0 and finite",
        )
        check(
            self.optimizer not in ("sgd", "muon") or not self.weight_decay,
            f"weight_decay is {self.weight_decay}, but {self.optimizer} here has none: give 0, or adamw",
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

    def lr_at(self, iteration: int, highest: float | None = None) -> float:
        """Return the learning rate of an iteration, counted from 0, of which the highest is `lr` or another one."""
        highest = self.lr if highest is None else highest
        if iteration < self.warmup:
            return highest * (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(1, self.n_iterations - self.warmup)
        left = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}
        return highest * left[self.schedule]


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
        self.parts = {name: _parts(name, t) for name, t in self.learned.items() if _by_muon(name, t, config)}
        self.optimizers = list(_optimizers(self.learned, self.parts, config))

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
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr_at(self.iteration, group["initial_lr"])
        for tensor in self.learned.values():
            tensor.grad = None
        if loss.gradients is None:
            loss.value.backward()
        else:
            for name, tensor in self.learned.items():
                tensor.grad = loss.gradients.get(name)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(self.learned.values()), self.config.clip_norm)
        for name, parts in self.parts.items():
            gradient = self.learned[name].grad
            of_parts = [None] * len(parts) if gradient is None else gradient.chunk(len(parts))
            for part, of_part in zip(parts, of_parts, strict=True):
                part.grad = of_part
        for optimizer in self.optimizers:
            optimizer.step()

    def _tensors(self) -> dict[str, Tensor]:
        """Return all tensors that an iteration changes, by name."""
        tensors = {f"learned.{name}": tensor.detach() for name, tensor in self.learned.items()}
        for optimizer, first in self._places():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"optimizer.{first + i}.{name}": value for name, value in state.items() if value is not None
                }
        return tensors

    def _places(self) -> Iterator[tuple[torch.optim.Optimizer, int]]:
        """Yield each optimizer with the number of its first tensor in a state."""
        first = 0
        for optimizer in self.optimizers:
            yield optimizer, first
            first += sum(len(group["params"]) for group in optimizer.param_groups)

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
        for optimizer, first in self._places():
            own = {i - first: state for i, state in optimizer_state.items() if i >= first}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": own})


def _optimizers(
    learned: Mapping[str, Tensor], parts: Mapping[str, Sequence[Tensor]], config: OuterConfig
) -> Iterator[torch.optim.Optimizer]:
    """Yield what updates the learned tensors; `initial_lr` of a group is what the schedule scales."""
    groups = [{"params": [t for name, t in learned.items() if name not in parts], "initial_lr": config.lr}]
    if config.optimizer == "sgd":
        yield torch.optim.SGD(groups, config.lr)
        return
    betas = (config.betas[0], config.betas[1])
    optimizer_class = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    yield optimizer_class(groups, config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
    if config.matrix_lr is not None:
        check(bool(parts), "optimizer is 'muon', but what learns here has no Transformer block: give adam")
        matrices = [part for of_one in parts.values() for part in of_one]
        yield torch.optim.Muon([{"params": matrices, "initial_lr": config.matrix_lr}], config.matrix_lr, weight_decay=0)


def _by_muon(name: str, tensor: Tensor, config: OuterConfig) -> bool:
    return config.optimizer == "muon" and tensor.ndim == 2 and HIDDEN.fullmatch(name) is not None


def _parts(name: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the matrices that muon updates in a tensor, in its memory: queries', keys' and values' each by itself.

    Together the values' gradients, which are far larger at first, would leave queries and keys nearly as they are.
    """
    return tensor.detach().chunk(3 if name.endswith("c_attn.weight") else 1)
