"""Markov chains learned in context. In: a configuration. Out: the KL divergence of a GPT from the best predictor.

Every sequence has a transition matrix of its own, so the next symbol can be learned from the sequence alone. In its
training a GPT passes through stages, each like a simple predictor: uniform, unigram (how often each symbol occurred),
bigram (what followed the present symbol). Source: Edelman et al. 2024, "The Evolution of Statistical Induction Heads".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured
from fewshot.meta.episodes import check_drawn
from fewshot.meta.flops import training_flops
from fewshot.meta.learners.baselines import bigram_logprobs, kl_divergence, uniform_logprobs, unigram_logprobs
from fewshot.meta.learners.in_context import ContextModelConfig, points_by_examples
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss
from fewshot.model.gpt import GPT

CONTEXT = "context"
AT_ONCE = 500  # unseen chains in memory
PREDICTORS = {"uniform": uniform_logprobs, "unigram": unigram_logprobs, "bigram": bigram_logprobs}


def draw_chains(n_chains: int, length: int, *, n_symbols: int, generator: torch.Generator) -> Int[Tensor, "N T"]:
    """Return chains of `length` symbols; rows of each transition matrix are Dirichlet(1), the first symbol is uniform.

    The paper draws the first symbol from the matrix's stationary distribution. A uniform one tells nothing about the
    matrix, so that the bigram's posterior mean is exactly the best possible prediction.
    """
    shares = torch.empty(n_chains, n_symbols, n_symbols).exponential_(generator=generator)
    bounds = (shares / shares.sum(-1, keepdim=True)).cumsum(-1)
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
    reader: ContextModelConfig = field(default_factory=lambda: ContextModelConfig(n_layers=2, n_heads=1, init_std=0.08))
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(n_iterations=2000, report_every=50))
    test_chains: int = 2000
    watched_chains: int = 200  # on which the stages are followed during training
    threads: int = 1

    def __post_init__(self) -> None:
        check(self.n_symbols >= 2, f"n_symbols is {self.n_symbols}, must be at least 2")
        check(self.length >= 2, f"length is {self.length}, must be at least 2")
        check(self.test_chains >= 2, f"test_chains is {self.test_chains}, must be at least 2: intervals are over them")
        check_counts(self, "n_chains", "watched_chains", "threads")


class Experiment:
    """A GPT trained on fresh chains, and followed on unseen ones."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: chains are drawn
        for name in ("n_chains", "test_chains", "watched_chains"):
            check_drawn(getattr(config, name), config.length * config.n_symbols**2, name, "length", "n_symbols")
        torch.manual_seed(config.outer.seed)
        self.model = GPT(config.reader.gpt(n_vocab=config.n_symbols, n_ctx=config.length - 1))
        self.loops = {CONTEXT: OuterLoop(dict(self.model.named_parameters()), self._step, config.outer)}
        self.watched = self._unseen("watched", config.watched_chains)

    @torch.no_grad()
    def watch(self, name: str) -> Mapping[str, float]:
        """Return the model's mean KL divergence from each predictor on a few unseen chains, in nats.

        `kl_bigram` is also the difference of the model's loss to the lowest possible one, on average over chains.
        """
        ours = self._logprobs(self.watched)
        predictors = self._predictor_logprobs(self.watched).items()
        return {f"kl_{name}": kl_divergence(logprobs, ours).mean().item() for name, logprobs in predictors}

    @torch.no_grad()
    def measure(self) -> Measured:
        """Return the KL divergence of each predictor from the best one; that of the model also as a running mean."""
        unseen = self._unseen("test", self.config.test_chains)
        ours = torch.cat([self._logprobs(part) for part in unseen.split(AT_ONCE)])
        flops = training_flops(self._step, n_iterations=self.config.outer.n_iterations)
        predictors = self._predictor_logprobs(unseen)
        divergence = kl_divergence(predictors["bigram"], ours)
        running_mean = divergence.cumsum(1) / torch.arange(1, divergence.shape[1] + 1)
        counts = doubling(divergence.shape[1] - 1)

        def read_once(k: int) -> Tensor:
            return self.model(unseen[:1, : k + 1])

        curves = [
            Curve(learner=learner, kind="context", points=points, training_flops=flops)
            for learner, points in {
                CONTEXT: points_by_examples(divergence, counts, read_once),
                f"{CONTEXT}, mean till there": points_by_examples(running_mean, counts, read_once),
            }.items()
        ]
        for name, logprobs in predictors.items():
            points = points_by_examples(kl_divergence(predictors["bigram"], logprobs), counts)
            curves.append(Curve(learner=name, kind="bound" if name == "bigram" else "baseline", points=points))
        return Measured(tasks="Markov chains", quantity="nats above the best reader", curves=tuple(curves))

    def _step(self, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the next-token loss on fresh chains."""
        chains = self._drawn(self.config.n_chains, generator)
        return OuterLoss(self.model.loss(chains[:, :-1], chains[:, 1:]))

    def _logprobs(self, chains: Int[Tensor, "N T"]) -> Float[Tensor, "N T-1 V"]:
        """Return the model's log-probabilities of every symbol but the first."""
        return self.model(chains[:, :-1]).log_softmax(-1)

    def _predictor_logprobs(self, chains: Int[Tensor, "N T"]) -> dict[str, Float[Tensor, "N T-1 V"]]:
        return {name: predictor(chains[:, :-1], self.config.n_symbols) for name, predictor in PREDICTORS.items()}

    def _drawn(self, n_chains: int, generator: torch.Generator) -> Int[Tensor, "N T"]:
        return draw_chains(n_chains, self.config.length, n_symbols=self.config.n_symbols, generator=generator)

    def _unseen(self, what: str, n_chains: int) -> Int[Tensor, "N T"]:
        return self._drawn(n_chains, torch.Generator().manual_seed(seed_of("meta markov", what)))


def doubling(last: int) -> list[int]:
    """Return [0, 1, 2, 4, ..., last]."""
    return sorted({0, *(2**i for i in range(last.bit_length()) if 2**i < last), last})
