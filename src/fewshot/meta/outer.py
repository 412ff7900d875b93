"""The outer loop. In: tensors to learn, a function that draws fresh tasks and gives their loss. Out: learned tensors.

Every iteration draws from (seed, iteration) alone, so a loop that was stopped goes on as if it had not been. MAML and
in-context learning, pre-training and Reptile share it. Knows no task and no learner.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewshot.base.errors import BadFile, BadValue, Diverged, check, check_counts
from fewshot.base.files import written_whole
from fewshot.base.rng import seed_of

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class Loss:
    """What one iteration gives: a scalar to report, and to differentiate unless its gradients are known already."""

    value: Float[Tensor, ""]
    slopes: Mapping[str, Tensor] | None = None  # by name of what is learned, save what has moved already


Step = Callable[[torch.Generator, float], Loss]  # a source of tasks, the share of iterations done


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """How the outer loop goes."""

    n_iterations: int = 10_000
    optimizer: str = "adam"  # or adamw, sgd
    lr: float = 1e-3
    schedule: str = "cosine"  # or linear, both to 0; constant
    warmup: int = 0  # iterations in which lr rises from 0
    betas: tuple[float, ...] = (0.9, 0.999)  # of adam and adamw
    weight_decay: float = 0.0  # of adamw
    clip_norm: float | None = None  # of the gradient
    report_every: int = 500  # iterations
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "n_iterations", "report_every")
        check(self.lr > 0, f"lr is {self.lr}, must be above 0")
        check(self.warmup >= 0, f"warmup is {self.warmup}, must be at least 0")
        check(0 <= self.weight_decay < math.inf, f"weight_decay is {self.weight_decay}, must be at least 0")
        check(
            self.optimizer != "sgd" or not self.weight_decay,
            f"weight_decay is {self.weight_decay}, but sgd here has none: give 0, or adamw",
        )
        check(abs(self.seed) < 2**63, f"seed is {self.seed}, must have at most 63 bits")
        check(self.clip_norm is None or self.clip_norm > 0, f"clip_norm is {self.clip_norm}, must be above 0")
        check(self.optimizer in OPTIMIZERS, f"optimizer is {self.optimizer!r}, allowed: {', '.join(OPTIMIZERS)}")
        check(self.schedule in SCHEDULES, f"schedule is {self.schedule!r}, allowed: {', '.join(SCHEDULES)}")
        check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas are {list(self.betas)}, two numbers in [0, 1) are needed",
        )

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if iteration < self.warmup:
            return self.lr * (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(1, self.n_iterations - self.warmup)
        left = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}
        return self.lr * left[self.schedule]


class OuterLoop:
    """The loop as it stands: what is learned, the optimizer's moments, iterations done and what was reported."""

    def __init__(self, learned: Mapping[str, Tensor], step: Step, config: OuterConfig) -> None:
        self.learned, self.step, self.config = dict(learned), step, config
        self.iteration = 0
        self.is_whole = True  # no iteration is half done, and none has diverged
        self.since: list[float] = []  # losses since the last row
        self.history: list[dict[str, float]] = []
        self.begun = _digest(self.learned)  # of what it began with
        tensors = list(self.learned.values())
        self.optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(tensors, config.lr)
        else:
            kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
            betas = (config.betas[0], config.betas[1])
            self.optimizer = kind(tensors, config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)

    def run(
        self, watch: Callable[[], Mapping[str, float]] = dict, *, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[dict[str, float]]:
        """Go on to the end, or until `stop` says so between two iterations; raises Diverged.

        Yields a row of figures every `report_every` iterations: `iteration`, `loss` (the mean since the last row), and
        what `watch` gives.
        """
        config = self.config
        losses: list[Tensor] = []
        while self.iteration < config.n_iterations and not stop():
            self.is_whole = False
            generator = torch.Generator().manual_seed(seed_of("meta", config.seed, self.iteration))
            loss = self.step(generator, self.iteration / config.n_iterations)
            self._update(loss)
            losses.append(loss.value.detach())
            self.iteration += 1
            due = self.iteration % config.report_every == 0 or self.iteration == config.n_iterations
            if due:
                mean = fmean([*self.since, *torch.stack(losses).tolist()])
                if not math.isfinite(mean):
                    raise Diverged(f"the loss is no number after {self.iteration:,} iterations: lower outer.lr")
                self.history.append({"iteration": self.iteration, "loss": mean, **watch()})
                self.since, losses = [], []
            self.is_whole = True
            if due:
                yield self.history[-1]
        self.since += [loss.item() for loss in losses]

    def _update(self, loss: Loss) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.iteration)
        self.optimizer.zero_grad()
        if loss.slopes is None:
            loss.value.backward()
        else:
            for name, tensor in self.learned.items():
                tensor.grad = loss.slopes.get(name)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(self.learned.values()), self.config.clip_norm)
        self.optimizer.step()

    def save(self, path: Path, *, about: Mapping[str, Any]) -> None:
        """Write all of it, whole or not at all; `about` says what it belongs to."""
        tensors = {f"learned.{name}": tensor.detach().contiguous() for name, tensor in self.learned.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value.clone() for name, value in state.items() if value is not None}
        facts = {"iteration": self.iteration, "about": dict(about), "history": self.history, "since": self.since}
        facts["begun"] = self.begun
        with written_whole(path) as partial:
            save_file(tensors, partial, metadata={name: json.dumps(fact) for name, fact in facts.items()})

    def load(self, path: Path, *, about: Mapping[str, Any]) -> None:
        """Take up what `save` wrote; raises BadFile if it is damaged.

        Raises BadValue if it is about something else, or began with other values: settings may name a checkpoint that
        is another one by now.
        """
        try:
            with safe_open(path, "pt") as file:
                facts = {name: json.loads(fact) for name, fact in file.metadata().items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise BadFile(f"{path} is damaged ({error}): delete it to begin anew") from None
        if facts.get("about") != json.loads(json.dumps(about)):
            raise BadValue(f"{path} belongs to other settings: give another --out, or delete it")
        if facts.get("begun", self.begun) != self.begun:  # older states do not say
            raise BadValue(f"{path} began with other weights than are there now: give another --out, or delete it")
        self.iteration, self.history, self.since = facts["iteration"], facts["history"], facts.get("since", [])
        states: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, tensor in self.learned.items():
                tensor.copy_(tensors[f"learned.{name}"])
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, moment = name.split(".")
                states.setdefault(int(i), {})[moment] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
