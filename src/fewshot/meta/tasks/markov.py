"""Markov chains learned in context and in weights. In: a configuration. Out: KL divergences from the best predictor.

Every sequence has a transition matrix of its own, so the next symbol can be learned from the sequence alone. In its
training a GPT passes through stages, each like a simple predictor: uniform, unigram (how often each symbol occurred),
bigram (what followed the present symbol). With `n_known` the matrices of training are a fixed pool: a GPT may retrieve
one of them (Bayes over the pool) or infer it (the bigram), and is measured on chains of the pool and on fresh ones.
A learner in weights, such as MAML, may stand beside it: a perceptron from one symbol to the next that takes gradient
steps on the transitions so far.
Source: Edelman et al. 2024, "The Evolution of Statistical Induction Heads"; Park et al. 2024, "Competition Dynamics
Shape Algorithmic Phases of In-Context Learning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured, point
from fewshot.meta.episodes import check_drawn, unseen
from fewshot.meta.flops import flops_of, training_facts
from fewshot.meta.learners.baselines import (
    bigram_logprobs,
    kl_divergence,
    retrieve_logprobs,
    uniform_logprobs,
    unigram_logprobs,
)
from fewshot.meta.learners.in_context import ContextModelConfig, points_by_examples
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss
from fewshot.meta.tasks.chains import ChainTasks, draw_chains, draw_matrices, prefix_tasks, table_loss
from fewshot.model.gpt import GPT

CONTEXT, RETRIEVE, BIGRAM = "context", "retrieve", "bigram"
MEAN = f"{CONTEXT}, mean till there"
KNOWN, FRESH = "known", "fresh"  # families of chains
AT_ONCE = 500  # unseen chains in memory
ADAPTED_AT_ONCE = 2000  # perceptrons in memory, each adapted to a chain up to one place
PREDICTORS = {"uniform": uniform_logprobs, "unigram": unigram_logprobs, BIGRAM: bigram_logprobs}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; three symbols and 100 positions, as in the paper. Its models have attention alone, ours are GPTs."""

    n_symbols: int = 3
    length: int = 100  # symbols
    n_chains: int = 64  # of one iteration
    n_known: int | None = None  # matrices of the fixed pool that training draws from; null: all are fresh
    reader: ContextModelConfig = field(default_factory=lambda: ContextModelConfig(n_layers=2, n_heads=1, init_std=0.08))
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(n_iterations=2000, report_every=50))
    learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(
            name=CONTEXT, algorithm=CONTEXT, n_tasks=64, n_support=98, n_query=20, n_steps=5, step_size=1.0
        )
    )  # in weights, beside it; context for none
    learner_outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=500, lr=3e-3, report_every=50, clip_norm=1.0)
    )  # in weights
    widths: tuple[int, ...] = (32,)  # of the perceptron that learns in weights
    test_chains: int = 2000
    test_steps: tuple[int, ...] = (5, 10)  # gradient steps of the learner in weights
    watched_chains: int = 200  # on which the stages are followed during training
    seeds: int = 1  # of weights, pool and test; of several, intervals are over them
    threads: int = 1

    def __post_init__(self) -> None:
        check(self.n_symbols >= 2, f"n_symbols is {self.n_symbols}, must be at least 2")
        check(self.length >= 2, f"length is {self.length}, must be at least 2")
        check(self.test_chains >= 2, f"test_chains is {self.test_chains}, must be at least 2: intervals are over them")
        check_counts(self, "n_chains", "watched_chains", "seeds", "threads")
        if self.n_known is not None:
            check_counts(self, "n_known")
        check(
            bool(self.test_steps) and min(self.test_steps) >= 1,
            f"test_steps is {list(self.test_steps)}, must hold numbers of gradient steps from 1 on",
        )
        self._check_learner()

    def _check_learner(self) -> None:
        learner, taken = self.learner, (CONTEXT, MEAN, RETRIEVE, *PREDICTORS)
        if learner.algorithm == CONTEXT:
            return
        check(
            learner.n_support <= self.length - 2,
            f"learner.n_support is {learner.n_support}, must be at most length - 2, {self.length - 2}: the transitions "
            "before the last one",
        )
        check(
            learner.algorithm != "reptile",
            "learner.algorithm is 'reptile', which learns from few examples at a time; here counts of all transitions "
            "are learned from: give another learner",
        )
        check(
            learner.name not in taken,
            f"learner.name is {learner.name!r}, which is that of another curve: give one that is not in "
            f"{', '.join(map(repr, taken))}",
        )


class Experiment:
    """A GPT, and maybe a perceptron, trained on fresh chains or on those of a pool, with the `seed`-th of the seeds."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.data: dict[str, str] = {}  # none is read: chains are drawn
        for name in ("n_chains", "test_chains", "watched_chains"):
            check_drawn(getattr(config, name), config.length * config.n_symbols**2, name, "length", "n_symbols")
        outer = replace(config.outer, seed=config.outer.seed + seed)
        self.known = None
        if config.n_known is not None:
            check_drawn(AT_ONCE, config.n_known * config.length, "n_known", "length")
            generator = torch.Generator().manual_seed(seed_of("meta markov", "known", outer.seed))
            self.known = draw_matrices(config.n_known, config.n_symbols, generator)
        torch.manual_seed(outer.seed)
        self.model = GPT(config.reader.gpt(n_vocab=config.n_symbols, n_ctx=config.length - 1))
        self.loops = {CONTEXT: OuterLoop(dict(self.model.named_parameters()), self._step, outer)}
        self.in_weights = None if config.learner.algorithm == CONTEXT else self._add_learner()
        self.watched = self._unseen("watched", config.watched_chains, self.known)

    def _add_learner(self) -> WeightLearner:
        """Return the learner in weights, whose loop is added."""
        learner, n_symbols = self.config.learner, self.config.n_symbols
        n_numbers = (learner.n_support + learner.n_query) * n_symbols**2
        check_drawn(learner.n_tasks, n_numbers, "learner.n_tasks", "learner.n_support", "learner.n_query")
        outer = replace(self.config.learner_outer, seed=self.config.learner_outer.seed + self.seed)
        network = perceptron(n_symbols, self.config.widths, n_symbols, seed=outer.seed)
        tasks = ChainTasks(n_symbols, self.known)
        in_weights = WeightLearner(network, tasks, table_loss, learner, n_iterations=outer.n_iterations)
        start, way_out = in_weights.start.named(), "lower learner.step_size or learner_outer.lr"
        self.loops[learner.name] = OuterLoop(start, in_weights.step, outer, way_out=way_out)
        return in_weights

    @torch.no_grad()
    def watch(self, name: str) -> Mapping[str, float]:
        """Return the model's mean KL divergence from each predictor on a few chains as in training, in nats.

        On fresh ones `kl_bigram` is also the difference of the model's loss to the lowest possible one, on average. Of
        the learner in weights only the loss is logged.
        """
        if name != CONTEXT:
            return {}
        ours = self._logprobs(self.watched)
        predictors = self._predictor_logprobs(self.watched).items()
        return {f"kl_{name}": kl_divergence(logprobs, ours).mean().item() for name, logprobs in predictors}

    def measure(self) -> Measured:
        """Return the KL divergence of each predictor from the best one; that of the GPT also as a running mean.

        With a pool it is from retrieval and from the bigram, beside the loss, on known chains and on fresh ones; all
        are running means.
        """
        with torch.no_grad():
            curves = self._stages() if self.known is None else [*self._strategies(KNOWN), *self._strategies(FRESH)]
        facts = {
            ("context" if name == CONTEXT else "weights"): training_facts(loop) for name, loop in self.loops.items()
        }
        curves = [replace(curve, **facts.get(curve.kind, {})) for curve in curves]
        quantity = curves[0].quantity or "nats above the best reader"
        return Measured(tasks="Markov chains", quantity=quantity, curves=tuple(curves))

    def _stages(self) -> list[Curve]:
        """Return the curves on fresh chains, where the bigram is the best predictor."""
        chains = self._unseen("test", self.config.test_chains)
        predictors = self._predictor_logprobs(chains)
        divergence = kl_divergence(predictors[BIGRAM], self._logprobs(chains))
        values = {CONTEXT: divergence, MEAN: running_mean(divergence)}
        curves = [self._curve(name, "context", means, chains) for name, means in values.items()]
        adapted = self._adapted_logprobs(chains)
        curves += self._by_steps({n: kl_divergence(predictors[BIGRAM], other) for n, other in adapted.items()})
        for name, logprobs in predictors.items():
            kind = "bound" if name == BIGRAM else "baseline"
            curves.append(self._curve(name, kind, kl_divergence(predictors[BIGRAM], logprobs), chains))
        return curves

    def _strategies(self, family: str) -> list[Curve]:
        """Return the curves of the learners and of each predictor on one family of chains."""
        is_known = family == KNOWN
        chains = self._unseen(
            "test known" if is_known else "test", self.config.test_chains, self.known if is_known else None
        )
        logprobs = {CONTEXT: self._logprobs(chains), **self._predictor_logprobs(chains)}
        adapted = self._adapted_logprobs(chains)
        values: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
            ("mean nats from retrieve", RETRIEVE): lambda other: kl_divergence(logprobs[RETRIEVE], other),
            ("mean nats from bigram", BIGRAM): lambda other: kl_divergence(logprobs[BIGRAM], other),
            ("mean loss in nats", RETRIEVE if is_known else BIGRAM): lambda other: (
                -other.gather(-1, chains[:, 1:, None]).squeeze(-1)
            ),
        }
        curves = []
        for (quantity, best), value in values.items():
            measured = []
            for name, other in logprobs.items():
                kind = "context" if name == CONTEXT else "bound" if name == best else "baseline"
                measured.append(self._curve(name, kind, running_mean(value(other)), chains))
            measured[1:1] = self._by_steps({n: running_mean(value(other)) for n, other in adapted.items()})
            curves += [replace(curve, tasks=family, quantity=quantity) for curve in measured]
        return curves

    def _curve(self, learner: str, kind: str, values: Float[Tensor, "N T-1"], chains: Int[Tensor, "N T"]) -> Curve:
        """Return the curve of values after 0, 1, 2, 4, ... symbols beyond the first; only the model's has FLOPs."""

        def read_once(k: int) -> Tensor:
            return self.model(chains[:1, : k + 1])

        points = points_by_examples(values, doubling(values.shape[1] - 1), read_once if kind == "context" else None)
        return Curve(learner=learner, kind=kind, points=points)

    def _by_steps(self, values: Mapping[int, Float[Tensor, "N T-1"]]) -> list[Curve]:
        """Return the curve of the learner in weights, if there is one, from values by number of gradient steps.

        Without a transition it takes none. With any number of them it sees all symbols, so FLOPs are the same.
        """
        learner = self.in_weights
        if learner is None:
            return []
        task = prefix_tasks(torch.zeros(1, 2, dtype=torch.long), self.config.n_symbols, n_support=1)
        flops = {n_steps: flops_of(partial(learner.judged, task, [n_steps])) for n_steps in (0, *values)}
        first, *others = doubling(self.config.length - 2)
        taken = [(first, 0, next(iter(values))), *((k, n, n) for k in others for n in values)]
        points = [
            point(values[row][:, k].tolist(), n_examples=k, n_steps=n_steps, flops=flops[n_steps])
            for k, n_steps, row in taken
        ]
        return [Curve(learner=self.config.learner.name, kind="weights", points=tuple(points))]

    def _step(self, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the next-token loss on drawn chains."""
        chains = self._drawn(self.config.n_chains, generator, self.known)
        return OuterLoss(self.model.loss(chains[:, :-1], chains[:, 1:]))

    def _logprobs(self, chains: Int[Tensor, "N T"]) -> Float[Tensor, "N T-1 V"]:
        """Return the model's log-probabilities of every symbol but the first."""
        return torch.cat([self.model(part[:, :-1]).log_softmax(-1) for part in chains.split(AT_ONCE)])

    def _adapted_logprobs(self, chains: Int[Tensor, "N T"]) -> dict[int, Float[Tensor, "N T-1 V"]]:
        """Return log-probabilities of every symbol but the first, by number of gradient steps on all before it."""
        learner, config = self.in_weights, self.config
        if learner is None:
            return {}
        parts = []
        for part in chains.split(AT_ONCE):
            tasks = prefix_tasks(part, config.n_symbols, n_support=config.learner.n_support)
            logits = learner.judged(tasks, config.test_steps, lambda logits, y: logits, at_once=ADAPTED_AT_ONCE)
            parts.append(logits.squeeze(2).log_softmax(-1).unflatten(0, (len(part), -1)))
        return dict(zip(config.test_steps, torch.cat(parts).unbind(2), strict=True))

    def _predictor_logprobs(self, chains: Int[Tensor, "N T"]) -> dict[str, Float[Tensor, "N T-1 V"]]:
        logprobs = {name: predictor(chains[:, :-1], self.config.n_symbols) for name, predictor in PREDICTORS.items()}
        if self.known is not None:
            parts = [retrieve_logprobs(part[:, :-1], self.known) for part in chains.split(AT_ONCE)]
            logprobs[RETRIEVE] = torch.cat(parts)
        return logprobs

    def _drawn(
        self, n_chains: int, generator: torch.Generator, known: Float[Tensor, "M V V"] | None
    ) -> Int[Tensor, "N T"]:
        config = self.config
        return draw_chains(n_chains, config.length, n_symbols=config.n_symbols, generator=generator, known=known)

    def _unseen(self, what: str, n_chains: int, known: Float[Tensor, "M V V"] | None = None) -> Int[Tensor, "N T"]:
        return self._drawn(n_chains, unseen("meta markov", what, seed=self.seed), known)


def running_mean(values: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Return the mean over each position and those before it."""
    return values.cumsum(1) / torch.arange(1, values.shape[1] + 1)


def doubling(last: int) -> list[int]:
    """Return [0, 1, 2, 4, ..., last]."""
    return sorted({0, *(2**i for i in range(last.bit_length()) if 2**i < last), last})
