"""Baselines of learning in context: statistical estimators that answer from the same examples.

In: the examples of many tasks. Out: predictions. For regression: least squares, ridge, nearest neighbours, averaging,
one step of gradient descent, the mean answer. For Markov chains: uniform, unigram, bigram. Best possible on average are
least squares on linear tasks without noise, ridge on those with noise (penalty: variance of noise over variance of
weights), the bigram on chains whose rows are Dirichlet(1), and Bayes over the tasks of a known pool ("retrieve") on
those of the pool.
Source: Garg et al. 2022; Edelman et al. 2024; Raventos et al. 2023; Park et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check

# From examples x [N K X], y [N K Y], K at least 1, and a query [N X] to a prediction [N Y]
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


def predictions(rule: Rule, x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, "N K Y"]:
    """Return a rule's prediction of every y from the pairs before it and its own x; that of the first y is 0."""
    after = [rule(x[:, :k], y[:, :k], x[:, k]) for k in range(1, x.shape[1])]
    return torch.stack([torch.zeros_like(y[:, 0]), *after], dim=1)


def zero(x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"]) -> Float[Tensor, "N Y"]:
    """Return 0, the prediction that learns nothing from the examples."""
    return torch.zeros_like(y[:, 0])


def least_squares(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"]
) -> Float[Tensor, "N Y"]:
    """Return the prediction of the linear function of least squared error; of several, the one of least norm."""
    weights = torch.linalg.pinv(x.double()) @ y.double()
    return _at(query, weights).to(y.dtype)


def ridge(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"], *, penalty: float
) -> Float[Tensor, "N Y"]:
    """Return the prediction of ridge regression; raises BadValue unless the penalty is above 0.

    The penalty is what the squared norm of the weights counts beside the sum of squared errors.
    """
    check(penalty > 0, f"penalty is {penalty}, must be above 0: without one, take least squares")
    x64 = x.double()
    gram = x64.mT @ x64 + penalty * torch.eye(x.shape[-1], dtype=x64.dtype)
    return _at(query, torch.linalg.solve(gram, x64.mT @ y.double())).to(y.dtype)


def retrieve(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], known: Float[Tensor, "M X Y"], *, noise: float
) -> Float[Tensor, "N K Y"]:
    """Return the posterior mean of every y given the pairs before it, where weights are one of `known`, all as likely.

    `noise` is its standard deviation on y, above 0. Source: Raventos et al. 2023, "dMMSE".
    """
    answers = torch.einsum("nkx,mxy->nkmy", x, known)
    errors = (y[:, :, None] - answers).square().sum(-1)
    before = F.pad(errors[:, :-1].cumsum(1), (0, 0, 1, 0))
    shares = (-before / (2 * noise**2)).softmax(-1)
    return torch.einsum("nkm,nkmy->nky", shares, answers)


def nearest_neighbours(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"], *, n: int = 3
) -> Float[Tensor, "N Y"]:
    """Return the mean y of the `n` examples nearest to the query, or of all if there are fewer."""
    squares = (x - query[:, None]).square().sum(-1)
    nearest = squares.topk(min(n, x.shape[1]), largest=False).indices
    return y.gather(1, nearest[..., None].expand(-1, -1, y.shape[-1])).mean(1)


def mean_answer(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"]
) -> Float[Tensor, "N Y"]:
    """Return the mean y of the examples; of answers -1 and 1 its sign is that of the more frequent one."""
    return y.mean(1)


def averaging(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"]
) -> Float[Tensor, "N Y"]:
    """Return the prediction of the weights mean(x y), which are right on average where x is N(0, I).

    They are those after one step of gradient descent of size 1 from 0.
    """
    return _at(query, x.mT @ y / x.shape[1])


def gradient_step(
    x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"], query: Float[Tensor, "N X"], *, sizes: Float[Tensor, " S"]
) -> Float[Tensor, "N Y"]:
    """Return the prediction after one step of gradient descent from weights of 0; `sizes[k]` is for k examples.

    The step is on half the mean squared error.
    """
    return sizes[x.shape[1]] * averaging(x, y, query)


def tuned_steps(x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, " K"]:
    """Return the best size of one gradient step on these tasks, for 0, 1, ... K - 1 examples.

    Errors are quadratic in it, so the best is known: the slope of y regressed on the prediction of a step of size 1.
    Source of the comparison: von Oswald et al. 2023, whose one layer of linear attention learns this step.
    """
    predicted = predictions(averaging, x, y)
    return (predicted * y).sum((0, 2)) / predicted.square().sum((0, 2)).clamp_min(torch.finfo(y.dtype).tiny)


def linear_rules(*, noise: float, steps: Float[Tensor, " K"]) -> dict[str, Rule]:
    """Return the baselines of linear tasks by name, the best possible one first.

    `noise` is its standard deviation on y, where weights are N(0, I); `steps` are those of `tuned_steps`. With noise,
    least squares is left out: its squared error has no mean where examples are as many as dimensions.
    """
    best: dict[str, Rule] = {"ridge": partial(ridge, penalty=noise**2)} if noise else {"least squares": least_squares}
    return {
        **best,
        "3 nearest neighbours": partial(nearest_neighbours, n=3),
        "averaging": averaging,
        "one gradient step": partial(gradient_step, sizes=steps),
    }


def _at(query: Float[Tensor, "N X"], weights: Float[Tensor, "N X Y"]) -> Float[Tensor, "N Y"]:
    return (query.to(weights.dtype)[:, None] @ weights).squeeze(1)


def uniform_logprobs(tokens: Int[Tensor, "N T"], n_symbols: int) -> Float[Tensor, "N T V"]:
    """Return log-probabilities of the next symbol that are the same for every symbol."""
    return torch.full((*tokens.shape, n_symbols), -math.log(n_symbols))


def unigram_logprobs(tokens: Int[Tensor, "N T"], n_symbols: int) -> Float[Tensor, "N T V"]:
    """Return log-probabilities of the next symbol from the counts of each symbol so far, one added to each count."""
    counts = F.one_hot(tokens, n_symbols).cumsum(1) + 1.0
    return (counts / counts.sum(-1, keepdim=True)).log()


def bigram_logprobs(tokens: Int[Tensor, "N T"], n_symbols: int) -> Float[Tensor, "N T V"]:
    """Return log-probabilities of the next symbol from counts of the pairs so far, one added to each count.

    This is the posterior mean where rows of the transition matrix are Dirichlet(1): no predictor has a lower loss.
    """
    here = F.one_hot(tokens, n_symbols)
    pairs = here[:, :-1, :, None] * here[:, 1:, None, :]
    followed = F.pad(pairs, (0, 0, 0, 0, 1, 0)).cumsum(1)  # at each position the pairs up to it
    counts = (here[..., None] * followed).sum(2) + 1.0
    return (counts / counts.sum(-1, keepdim=True)).log()


def retrieve_logprobs(tokens: Int[Tensor, "N T"], known: Float[Tensor, "M V V"]) -> Float[Tensor, "N T V"]:
    """Return log-probabilities of the next symbol where the transition matrix is one of `known`, all as likely.

    The first symbol tells nothing of the matrix. Source: Park et al. 2024, "bigram retrieval".
    """
    n_symbols, table = known.shape[-1], known.flatten(1)
    moves = tokens[:, :-1] * n_symbols + tokens[:, 1:]
    likelihoods = F.pad(table.log().T[moves].cumsum(1), (0, 0, 1, 0))  # logs, at each position of the moves up to it
    matrices = (likelihoods.softmax(-1) @ table).unflatten(-1, (n_symbols, n_symbols))
    return (F.one_hot(tokens, n_symbols).to(table.dtype)[:, :, None] @ matrices).squeeze(2).log()


def kl_divergence(ideal: Float[Tensor, "*N V"], other: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """Return the Kullback-Leibler divergence KL(ideal || other) in nats; both are log-probabilities."""
    return (ideal.exp() * (ideal - other)).sum(-1)
