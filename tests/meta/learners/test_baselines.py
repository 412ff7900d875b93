"""Rules against NumPy, numbers worked by hand, and simulation."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.meta.learners.baselines import (
    averaging,
    bigram_logprobs,
    gradient_step,
    kl_divergence,
    least_squares,
    linear_rules,
    nearest_neighbours,
    predictions,
    retrieve,
    retrieve_logprobs,
    ridge,
    tuned_steps,
    uniform_logprobs,
    unigram_logprobs,
    zero,
)
from fewshot.meta.tasks.chains import draw_chains
from fewshot.meta.tasks.regression import LinearFunctions


def drawn(n_tasks: int, n_pairs: int, *, n_dims: int = 3, noise: float = 0.0, seed: int = 0):
    episodes = LinearFunctions(n_dims, noise).draw(n_tasks, n_pairs, 1, torch.Generator().manual_seed(seed))
    return episodes.support_x, episodes.support_y


@pytest.mark.parametrize("n_pairs", [2, 3, 7])
def test_least_squares_and_ridge_are_numpys(n_pairs):
    (x, y), (query, _) = drawn(4, n_pairs, noise=0.3), drawn(4, 1, seed=1)
    plain, shrunk = least_squares(x, y, query[:, 0]), ridge(x, y, query[:, 0], penalty=0.7)
    for i in range(4):
        a, b, q = x[i].double().numpy(), y[i].double().numpy(), query[i].double().numpy()
        assert plain[i].item() == pytest.approx((q @ np.linalg.lstsq(a, b, rcond=None)[0]).item(), rel=1e-5)
        rows, targets = np.vstack([a, math.sqrt(0.7) * np.eye(3)]), np.vstack([b, np.zeros((3, 1))])
        assert shrunk[i].item() == pytest.approx((q @ np.linalg.lstsq(rows, targets, rcond=None)[0]).item(), rel=1e-5)


def test_ridge_with_the_penalty_of_the_noise_errs_least():
    (x, y), noise = drawn(3000, 5, noise=0.8), 0.8
    past, now = (x[:, :4], y[:, :4], x[:, 4]), y[:, 4]
    errors = {p: (ridge(*past, penalty=p) - now).square().mean().item() for p in (0.1, noise**2, 4.0)}
    assert min(errors, key=errors.__getitem__) == noise**2
    assert errors[noise**2] < (least_squares(*past) - now).square().mean().item()


def test_retrieval_weighs_known_functions_by_how_well_they_explain_the_pairs():
    x, y = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[1.0], [0.0], [0.0]]])
    known = torch.tensor([[[1.0]], [[-1.0]]])
    after = retrieve(x, y, known, noise=2.0)[0, :, 0]
    first = 1 / (1 + math.exp(-4 / 8))  # errors 0 and 4, over twice the variance
    both = 1 / (1 + math.exp((4 - 4 - 4) / 8))  # and 4 and 4 of the second pair
    assert after.tolist() == pytest.approx([0.0, 2 * (2 * first - 1), 3 * (2 * both - 1)])


def test_retrieval_from_very_many_functions_is_ridge():
    x, y = drawn(50, 4, n_dims=2, noise=0.8)
    known = torch.randn(50_000, 2, 1, generator=torch.Generator().manual_seed(3))
    many, rule = retrieve(x, y, known, noise=0.8), partial(ridge, penalty=0.8**2)
    assert (many - predictions(rule, x, y)).abs().mean() < 0.02
    assert (retrieve(x, y, known[:2], noise=0.8) - many).abs().mean() > 0.3


def test_retrieval_of_a_known_matrix_is_bayes_worked_by_hand():
    known = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]]])
    chances = retrieve_logprobs(torch.tensor([[0, 0, 1, 0]]), known).exp()[0]
    first = 0.9 / (0.9 + 0.2)  # of the first matrix, after 0 to 0
    both = 0.09 / (0.09 + 0.16)  # after 0 to 1 too; 1 to 0 tells nothing
    expected = [[0.55, 0.45], [first * 0.9 + (1 - first) * 0.2] * 2, [0.5, 0.5], [both * 0.9 + (1 - both) * 0.2] * 2]
    expected[1][1], expected[3][1] = 1 - expected[1][0], 1 - expected[3][0]
    assert torch.allclose(chances, torch.tensor(expected))


def test_a_ridge_without_penalty_is_refused():
    x, y = drawn(2, 3)
    with pytest.raises(BadValue, match=r"penalty is 0\.0, must be above 0"):
        ridge(x, y, x[:, 0], penalty=0.0)


def test_nearest_neighbours_average_those_nearest_and_all_where_they_are_few():
    x = torch.tensor([[[0.0], [1.0], [5.0], [9.0]]])
    y = torch.tensor([[[1.0], [2.0], [6.0], [100.0]]])
    assert nearest_neighbours(x, y, torch.tensor([[0.4]])).item() == pytest.approx(3.0)
    assert nearest_neighbours(x, y, torch.tensor([[0.4]]), n=1).item() == pytest.approx(1.0)
    assert nearest_neighbours(x[:, :2], y[:, :2], torch.tensor([[0.4]])).item() == pytest.approx(1.5)


def test_one_gradient_step_is_autograds_and_averaging_is_that_of_size_one():
    x, y = drawn(2, 4)
    sizes = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    weights = torch.zeros(2, 3, 1, requires_grad=True)
    loss = 0.5 * (x @ weights - y).square().mean(1).sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    query = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.1, 2.0]])
    wanted = (query[:, None] @ -gradient).squeeze(1)
    torch.testing.assert_close(averaging(x, y, query), wanted)
    torch.testing.assert_close(gradient_step(x, y, query, sizes=sizes), 0.4 * wanted)


def test_the_tuned_step_is_the_one_that_algebra_gives_and_others_err_more():
    """x, w ~ N(0, I_d): the best size after k examples is k / (k + d + 1)."""
    x, y = drawn(20_000, 6)
    sizes = tuned_steps(x, y)
    assert sizes.tolist() == pytest.approx([k / (k + 4) for k in range(6)], rel=0.05)

    def errors(factor: float) -> torch.Tensor:
        predicted = predictions(lambda *past: gradient_step(*past, sizes=factor * sizes), x, y)
        return (predicted - y).square().mean((0, 2))[1:]

    assert (errors(1.0) < errors(0.9)).all()
    assert (errors(1.0) < errors(1.1)).all()


def test_predictions_never_see_their_own_y_or_a_later_pair():
    x, y = drawn(2, 5)
    for name, rule in {**linear_rules(noise=0.5, steps=torch.ones(5)), "zero": zero}.items():
        before = predictions(rule, x, y)
        later_x, later_y = x.clone(), y.clone()
        later_x[:, 3:], later_y[:, 2:] = 7.0, 9.0
        torch.testing.assert_close(predictions(rule, later_x, later_y)[:, :3], before[:, :3], msg=name)
        assert (before[:, 0] == 0).all()
    assert next(iter(linear_rules(noise=0.5, steps=torch.ones(5)))) == "ridge"
    assert next(iter(linear_rules(noise=0.0, steps=torch.ones(5)))) == "least squares"


def test_what_comes_next_is_as_counted_by_hand():
    tokens = torch.tensor([[0, 1, 0, 0, 1]])
    assert uniform_logprobs(tokens, 2).exp()[0, 0].tolist() == pytest.approx([0.5, 0.5])
    unigram = unigram_logprobs(tokens, 2).exp()[0]
    assert unigram[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert unigram[4].tolist() == pytest.approx([4 / 7, 3 / 7])
    bigram = bigram_logprobs(tokens, 2).exp()[0]
    wanted = [[1 / 2, 1 / 2], [1 / 2, 1 / 2], [1 / 3, 2 / 3], [2 / 4, 2 / 4], [2 / 3, 1 / 3]]
    assert bigram.tolist() == [pytest.approx(row) for row in wanted]


def test_divergence_is_what_answering_so_costs():
    here, there = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    assert kl_divergence(here, there).tolist() == pytest.approx([0.5 * math.log(4 / 3), 0.0], abs=1e-6)


def test_no_predictor_is_better_than_the_bigram_and_others_lose_their_divergence_from_it():
    """Loss minus loss of the true posterior mean is a divergence from it in expectation; of another rule it is not."""
    chains = draw_chains(6000, 20, n_symbols=3, generator=torch.Generator().manual_seed(0))
    past, right = chains[:, :-1], chains[:, 1:, None]
    best = bigram_logprobs(past, 3)
    for predictor in (uniform_logprobs, unigram_logprobs):
        logprobs = predictor(past, 3)
        excess = (best - logprobs).gather(-1, right).mean().item()
        assert excess == pytest.approx(kl_divergence(best, logprobs).mean().item(), rel=0.04)
        assert excess > 0.05
