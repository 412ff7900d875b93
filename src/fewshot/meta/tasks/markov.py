"""Markov chains learned in context. In: a configuration. Out: the KL divergence of a GPT from the best predictor.

Every sequence has a transition matrix of its own, so the next symbol can be learned from the sequence alone. In its
training a GPT passes through stages, each like a simple predictor: uniform, unigram (how often each symbol occurred),
bigram (what followed the present symbol). With `n_known` the matrices of training are a fixed pool: a GPT may retrieve
one of them (Bayes over the pool) or infer it (the bigram), and is measured on chains of the pool and on fresh ones.
Source: Edelman et al. 2024, "The Evolution of Statistical Induction Heads"; Park et al. 2024, "Competition Dynamics
Shape Algorithmic Phases of In-Context Learning".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured
from fewshot.meta.episodes import check_drawn, unseen
from fewshot.meta.flops import training_facts
from fewshot.meta.learners.baselines import (
    bigram_logprobs,
    kl_divergence,
    retrieve_logprobs,
    uniform_logprobs,
    unigram_logprobs,
)
from fewshot.meta.learners.in_context import ContextModelConfig, points_by_examples
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss
from fewshot.model.gpt import GPT

CONTEXT, RETRIEVE, BIGRAM = "context", "retrieve", "bigram"
KNOWN, FRESH = "known", "fresh"  # families of chains
AT_ONCE = 500  # unseen chains in memory
PREDICTORS = {"uniform": uniform_logprobs, "unigram": unigram_logprobs, BIGRAM: bigram_logprobs}


def draw_matrices(n: int, n_symbols: int, generator: torch.Generator) -> Float[Tensor, "N V V"]:
    """Return transition matrices, whose rows are Dirichlet(1)."""
    shares = torch.empty(n, n_symbols, n_symbols).exponential_(generator=generator)
    return shares / shares.sum(-1, keepdim=True)


def draw_chains(
    n_chains: int,
    length: int,
    *,
    n_symbols: int,
    generator: torch.Generator,
    known: Float[Tensor, "M V V"] | None = None,
) -> Int[Tensor, "N T"]:
    """Return chains of `length` symbols with matrices of `known` or, without, fresh ones; the first symbol is uniform.

    The paper draws the first symbol from the matrix's stationary distribution. A uniform one tells nothing about the
    matrix, so that the bigram's posterior mean is exactly the best possible prediction.
    """
    if known is None:
        matrices = draw_matrices(n_chains, n_symbols, generator)
    else:
        matrices = known[torch.randint(len(known), (n_chains,), generator=generator)]
    bounds = matrices.cumsum(-1)
    chance = torch.rand(n_chains, length, 1, generator=generator)
    rows = torch.arange(n_chains)
    chain = [torch.randint(n_symbols, (n_chains,), generator=generator)]
    while len(chain) < length:
        passed = bounds[rows, chain[-1]] < chance[:, len(chain)]
        chain.append(passed.sum(-1).clamp_max(n_symbols - 1))  # sums of shares may end just below 1
    return torch.stack(chain, 1)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; three symbols and 100 positions, as in the paper. Its models have attention alone, ours are GPTs."""

    n_symbols: int = 3
    length: int = 100  # symbols
    n_chains: int = 64  # of one iteration
    n_known: int | None = None  # matrices of the fixed pool that training draws from; null: all are fresh
    reader: ContextModelConfig = field(default_factory=lambda: ContextModelConfig(n_layers=2, n_heads=1, init_std=0.08))
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(n_iterations=2000, report_every=50))
    test_chains: int = 2000
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


class Experiment:
    """A GPT trained on fresh chains or on those of a pool, with the `seed`-th of several seeds."""

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
        self.watched = self._unseen("watched", config.watched_chains, self.known)

    @torch.no_grad()
    def watch(self, name: str) -> Mapping[str, float]:
        """Return the model's mean KL divergence from each predictor on a few chains as in training, in nats.

        On fresh ones `kl_bigram` is also the difference of the model's loss to the lowest possible one, on average.
        """
        ours = self._logprobs(self.watched)
        predictors = self._predictor_logprobs(self.watched).items()
        return {f"kl_{name}": kl_divergence(logprobs, ours).mean().item() for name, logprobs in predictors}

    def measure(self) -> Measured:
        """Return the KL divergence of each predictor from the best one; that of the model also as a running mean.

        With a pool it is from retrieval and from the bigram, beside the loss, on known chains and on fresh ones; all
        are running means.
        """
        with torch.no_grad():
            curves = self._stages() if self.known is None else [*self._strategies(KNOWN), *self._strategies(FRESH)]
        facts = training_facts(self.loops[CONTEXT])
        curves = [replace(curve, **facts) if curve.kind == "context" else curve for curve in curves]
        quantity = curves[0].quantity or "nats above the best reader"
        return Measured(tasks="Markov chains", quantity=quantity, curves=tuple(curves))

    def _stages(self) -> list[Curve]:
        """Return the curves on fresh chains, where the bigram is the best predictor."""
        chains = self._unseen("test", self.config.test_chains)
        predictors = self._predictor_logprobs(chains)
        divergence = kl_divergence(predictors[BIGRAM], self._logprobs(chains))
        values = {CONTEXT: divergence, f"{CONTEXT}, mean till there": running_mean(divergence)}
        curves = [self._curve(name, "context", means, chains) for name, means in values.items()]
        for name, logprobs in predictors.items():
            kind = "bound" if name == BIGRAM else "baseline"
            curves.append(self._curve(name, kind, kl_divergence(predictors[BIGRAM], logprobs), chains))
        return curves

    def _strategies(self, family: str) -> list[Curve]:
        """Return the curves of the model and of each predictor on one family of chains."""
        is_known = family == KNOWN
        chains = self._unseen(
            "test known" if is_known else "test", self.config.test_chains, self.known if is_known else None
        )
        logprobs = {CONTEXT: self._logprobs(chains), **self._predictor_logprobs(chains)}
        values = {
            ("mean nats from retrieve", RETRIEVE): lambda other: kl_divergence(logprobs[RETRIEVE], other),
            ("mean nats from bigram", BIGRAM): lambda other: kl_divergence(logprobs[BIGRAM], other),
            ("mean loss in nats", RETRIEVE if is_known else BIGRAM): lambda other: (
                -other.gather(-1, chains[:, 1:, None]).squeeze(-1)
            ),
        }
        curves = []
        for (quantity, best), value in values.items():
            for name, other in logprobs.items():
                kind = "context" if name == CONTEXT else "bound" if name == best else "baseline"
                curve = self._curve(name, kind, running_mean(value(other)), chains)
                curves.append(replace(curve, tasks=family, quantity=quantity))
        return curves

    def _curve(self, learner: str, kind: str, values: Float[Tensor, "N T-1"], chains: Int[Tensor, "N T"]) -> Curve:
        """Return the curve of values after 0, 1, 2, 4, ... symbols beyond the first; only the model's has FLOPs."""

        def read_once(k: int) -> Tensor:
            return self.model(chains[:1, : k + 1])

        points = points_by_examples(values, doubling(values.shape[1] - 1), read_once if kind == "context" else None)
        return Curve(learner=learner, kind=kind, points=points)

    def _step(self, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the next-token loss on drawn chains."""
        chains = self._drawn(self.config.n_chains, generator, self.known)
        return OuterLoss(self.model.loss(chains[:, :-1], chains[:, 1:]))

    def _logprobs(self, chains: Int[Tensor, "N T"]) -> Float[Tensor, "N T-1 V"]:
        """Return the model's log-probabilities of every symbol but the first."""
        return torch.cat([self.model(part[:, :-1]).log_softmax(-1) for part in chains.split(AT_ONCE)])

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
