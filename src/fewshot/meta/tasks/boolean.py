"""Boolean functions from a few examples, learned in context. In: a configuration. Out: right answers against examples.

Functions are conjunctions, majorities or parities of some of the variables; all of a class are as likely. A GPT reads
examples of one; MAML can take gradient steps on them. Beside them stand baselines and the ideal learner, Bayes over all
functions of the class. For every example one of both answers is drawn first, then an input among those that have it:
else few examples of a conjunction would be true.
Source: Bhattamishra et al. 2023, "Understanding In-Context Learning in Transformers and LLMs by Learning to Learn
Discrete Functions".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import check, look_up
from fewshot.meta.curves import Measured
from fewshot.meta.episodes import Episodes, check_drawn
from fewshot.meta.learners.baselines import mean_answer, nearest_neighbours, predictions
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.functions import CONTEXT, FunctionLearners, Judge, check_settings

# By class: the numbers of variables that its functions read, unless the configuration has others
N_VARIABLES: Mapping[str, tuple[int, ...]] = {"conjunction": (3,), "majority": (3,), "parity": (2, 3)}
MAX_DIMS = 16  # a function is a table of 2^n_dims answers
AT_ONCE = 2**22  # numbers of the ideal learner in memory at a time


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; by default conjunctions of 3 of 6 variables or their negations, of which there are 160."""

    functions: str = "conjunction"  # or majority, parity
    n_dims: int = 6  # variables, each -1 or 1
    n_variables: tuple[int, ...] | None = None  # read by a function; null: 3, of a parity 2 or 3
    n_examples: int = 20  # the most that a learner is tested with
    n_beyond: int = 0  # more of them in training in context
    n_tasks: int = 64  # of one iteration of training in context
    reader: ContextModelConfig = field(default_factory=lambda: ContextModelConfig(n_layers=3))
    outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=900, lr=5e-3, warmup=100, clip_norm=1.0, report_every=100)
    )  # in context
    learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(name=CONTEXT, algorithm=CONTEXT)
    )  # in weights, beside it, such as maml; context for none
    learner_outer: OuterConfig = field(default_factory=OuterConfig)  # in weights
    widths: tuple[int, ...] = (40, 40)  # of the perceptron that learns in weights
    test_tasks: int = 4000
    test_steps: tuple[int, ...] = (1, 10)  # gradient steps of the learner in weights
    seeds: int = 1  # of weights and test; of several, intervals are over them
    threads: int = 1

    def __post_init__(self) -> None:
        look_up("functions", self.functions, N_VARIABLES)
        check(1 <= self.n_dims <= MAX_DIMS, f"n_dims is {self.n_dims}, must be from 1 to {MAX_DIMS}")
        given = list(self.sizes)
        check(
            bool(given) and all(1 <= size <= self.n_dims for size in given) and len(set(given)) == len(given),
            f"n_variables is {given}, must hold different numbers from 1 to n_dims, {self.n_dims}",
        )
        check(
            self.functions != "majority" or all(size % 2 for size in given),
            f"n_variables is {given}, must hold odd numbers: a majority of an even one can be a tie",
        )
        check_settings(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of variables that a function reads."""
        return N_VARIABLES[self.functions] if self.n_variables is None else self.n_variables

    @property
    def readers(self) -> dict[str, ContextModelConfig]:
        """The model that learns in context."""
        return {CONTEXT: self.reader}


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one value
class BooleanFunctions:
    """A class of M functions of n variables as a table of their answers; each function gives both answers.

    Input number i has the variable v at 1 if bit v of i is set, else at -1.
    """

    answers: Float[Tensor, "M I"]  # -1 or 1, by function and input
    inputs: Float[Tensor, "I X"]

    @cached_property
    def chances(self) -> Float[Tensor, "M I"]:
        """How often a function's examples have each input: half of them are true."""
        n_true = (self.answers > 0).sum(1, keepdim=True)
        return torch.where(self.answers > 0, 0.5 / n_true, 0.5 / (len(self.inputs) - n_true))

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return functions of the class with examples of each."""
        functions = torch.randint(len(self.answers), (n_tasks,), generator=generator)
        numbers = torch.multinomial(self.chances[functions], n_support + n_query, replacement=True, generator=generator)
        x, y = self.inputs[numbers], self.answers[functions[:, None], numbers][..., None]
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])

    def ideal(self, x: Float[Tensor, "N K X"], y: Float[Tensor, "N K 1"]) -> Float[Tensor, "N K 1"]:
        """Return the posterior mean of every y given its own x and the pairs before it: Bayes over all functions.

        The x counts too: where few inputs of a function are true, they are drawn the more often.
        """
        n_at_once = max(1, AT_ONCE // (x.shape[1] * len(self.answers)))
        answers, chances = self.answers.T.contiguous(), self.chances.T.log()
        means = []
        for part, labels in zip(self.numbers(x).split(n_at_once), y.split(n_at_once), strict=True):
            said, likelihoods = answers[part], chances[part]
            explained = likelihoods.masked_fill(said != labels, -math.inf)
            before = F.pad(explained[:, :-1].cumsum(1), (0, 0, 1, 0))
            means.append(((before + likelihoods).softmax(-1) * said).sum(-1, keepdim=True))
        return torch.cat(means)

    def numbers(self, x: Float[Tensor, "*N X"]) -> Int[Tensor, "*N"]:
        """Return the numbers of inputs."""
        return ((x > 0).long() << torch.arange(x.shape[-1])).sum(-1)


def boolean_functions(functions: str, n_dims: int, sizes: tuple[int, ...]) -> BooleanFunctions:
    """Return all functions of a class; raises BadValue if their table does not fit into memory."""
    signs_of = 2 if functions == "conjunction" else 1
    n_functions = sum(math.comb(n_dims, size) * signs_of**size for size in sizes)
    check_drawn(n_functions, 3 * 2**n_dims, "n_dims", "n_variables")
    bits = torch.arange(2**n_dims)[:, None] >> torch.arange(n_dims) & 1
    rows = [row for size in sizes for row in _truths(functions, bits.bool(), size)]
    return BooleanFunctions(torch.stack(rows) * 2.0 - 1, bits * 2.0 - 1)


def _truths(functions: str, bits: Bool[Tensor, "I X"], size: int) -> Iterator[Bool[Tensor, " I"]]:
    """Yield which inputs are true for each function of a class that reads so many variables."""
    for variables in itertools.combinations(range(bits.shape[1]), size):
        read = bits[:, variables]
        if functions == "conjunction":
            for signs in itertools.product((True, False), repeat=size):
                yield (read == torch.tensor(signs)).all(1)
        elif functions == "majority":
            yield read.sum(1) * 2 > size
        else:
            yield read.sum(1) % 2 == 1


class Experiment:
    """A learner in context and one in weights on the functions of a class, with the `seed`-th of several seeds."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: functions are drawn
        for name in ("test_tasks", "n_tasks"):
            check_drawn(getattr(config, name), 2**config.n_dims, name, "n_dims")  # chances of inputs
        self.tasks = boolean_functions(config.functions, config.n_dims, config.sizes)
        self.learners = FunctionLearners(
            config,
            self.tasks,
            kind="meta boolean",
            d_x=config.n_dims,
            judges=(Judge("accuracy", True, right),),
            reading_loss=logistic_loss,
            loss=logistic_loss,
            seed=seed,
        )
        self.loops, self.readers = self.learners.loops, self.learners.readers

    def watch(self, name: str) -> Mapping[str, float]:
        """Return the accuracy in context on a few functions after no example, half of them and all."""
        return self.learners.watch(name, "accuracy")

    def measure(self) -> Measured:
        """Return the accuracy on unseen examples of functions of the class."""
        drawn = self.learners.unseen(self.tasks, "test", self.config.test_tasks)
        x, y = self.learners.sequences(drawn)
        curves = [*self.learners.curves(drawn), *self.learners.judged("ideal", "bound", self.tasks.ideal(x, y), y)]
        for name, rule in {"3 nearest neighbours": nearest_neighbours, "more frequent answer": mean_answer}.items():
            curves += self.learners.judged(name, "baseline", predictions(rule, x, y), y)
        return Measured(
            tasks=f"{self.config.functions} of Boolean variables",
            quantity="accuracy",
            curves=self.learners.with_facts(curves),
            more_is_better=True,
        )


def right(predicted: Float[Tensor, "*N 1"], y: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N"]:
    """Return 1 where a prediction has the sign of y, and 0.5 where it is 0: a guess."""
    return ((predicted * y).sign().squeeze(-1) + 1) / 2


def logistic_loss(predicted: Float[Tensor, "*N 1"], y: Float[Tensor, "*N 1"]) -> Float[Tensor, ""]:
    """Return the mean loss in nats where a prediction is the log odds that y is 1, not -1."""
    return F.softplus(-predicted * y).mean()
