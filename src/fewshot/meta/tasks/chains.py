"""Markov chains as tasks: each has a transition matrix of its own, or one of a pool. In: a generator. Out: chains.

A perceptron that sees only the present symbol, one-hot, has as many different inputs as there are symbols. So its loss
on any number of transitions follows from a table of their counts, and examples here are the rows of such tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.meta.episodes import Episodes


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


def transitions(chains: Int[Tensor, "N T"], n_symbols: int) -> Float[Tensor, "N T-1 V V"]:
    """Return each transition of each chain as a table with a 1 at (this symbol, the next one)."""
    here, following = (F.one_hot(part, n_symbols).float() for part in (chains[:, :-1], chains[:, 1:]))
    return here[..., None] * following[..., None, :]


def table_loss(logits: Float[Tensor, "R V"], y: Float[Tensor, "R V"]) -> Float[Tensor, ""]:
    """Return the cross entropy of next symbols that are counted in `y`, as `ChainTasks` scales them."""
    return -(y * logits.log_softmax(-1)).sum()


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one value
class ChainTasks:
    """Chains for a learner in weights: x is every symbol, one-hot, and y how often each symbol came after it.

    A support set has the first transitions of a chain, from none to `n_support` of them, all numbers as likely: a
    reader is trained after every number, too. Counts are over `n_support`, whatever the number is, so that few
    transitions move the weights little. The query set has the `n_query` transitions that follow, counts over `n_query`.
    """

    n_symbols: int
    known: Float[Tensor, "M V V"] | None = None  # the pool that matrices are drawn from

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return the tables of drawn chains."""
        length = n_support + n_query + 1
        chains = draw_chains(n_tasks, length, n_symbols=self.n_symbols, generator=generator, known=self.known)
        n_seen = torch.randint(n_support + 1, (n_tasks, 1), generator=generator)
        place = torch.arange(length - 1)
        in_support, in_query = place < n_seen, (n_seen <= place) & (place < n_seen + n_query)
        moves, x = transitions(chains, self.n_symbols), torch.eye(self.n_symbols).expand(n_tasks, -1, -1)
        support, query = (torch.einsum("ntij,nt->nij", moves, part.float()) for part in (in_support, in_query))
        return Episodes(x, support / n_support, x, query / n_query)


def prefix_tasks(chains: Int[Tensor, "N T"], n_symbols: int, *, n_support: int) -> Episodes:
    """Return N (T - 1) tasks: for every place its symbol as the query, and all transitions before it to learn from.

    Tables are scaled as those of `ChainTasks` with this `n_support`; the query's y is the symbol that follows.
    """
    before = F.pad(transitions(chains[:, :-1], n_symbols).cumsum(1), (0, 0, 0, 0, 1, 0)).flatten(0, 1)
    here, following = (F.one_hot(part.reshape(-1, 1), n_symbols).float() for part in (chains[:, :-1], chains[:, 1:]))
    return Episodes(torch.eye(n_symbols).expand_as(before), before / n_support, here, following)
