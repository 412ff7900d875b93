from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot.base.errors import BadValue
from fewshot.base.rng import numpy_rng
from fewshot.generate import sampling as sampling_module
from fewshot.generate.sampling import GREEDY, RowSampling, Sampling

# by falling probability: tokens 2, 0, 3, 4, 1
P = [0.25, 0.04, 0.5, 0.15, 0.06]
LOGITS = torch.tensor([P]).log() + 7.0


def probabilities(logits: Tensor, *rows: Sampling) -> Tensor:
    """The distributions of rows with these settings, or of all rows with the only one."""
    return sampling_module.probabilities(logits, RowSampling.of(rows if len(rows) > 1 else rows * len(logits)))


def choose_tokens(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    return sampling_module.choose_tokens(logits, RowSampling.of([sampling] * len(logits)), draws)


def kept(sampling: Sampling, logits: Tensor = LOGITS) -> list[int]:
    return probabilities(logits, sampling)[0].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (Sampling(), [0, 1, 2, 3, 4]),
        (Sampling(top_k=1), [2]),
        (Sampling(top_k=3), [0, 2, 3]),
        (Sampling(top_k=99), [0, 1, 2, 3, 4]),
        (Sampling(top_p=1.0), [0, 1, 2, 3, 4]),
        (Sampling(top_p=1e-9), [2]),  # the likeliest is always kept
        (Sampling(top_p=0.49), [2]),
        (Sampling(top_p=0.51), [0, 2]),
        (Sampling(top_p=0.74), [0, 2]),
        (Sampling(top_p=0.76), [0, 2, 3]),
        (Sampling(top_p=0.97), [0, 1, 2, 3, 4]),
        (Sampling(top_k=2, top_p=0.6), [2]),  # top-k first: of 0.75, token 2 holds 0.667
        (Sampling(temperature=0.5, top_p=0.7), [2]),  # temperature first: token 2 holds 0.25 / 0.3427 = 0.73
    ],
    ids=str,
)
def test_exactly_these_tokens_are_kept(sampling: Sampling, tokens: list[int]) -> None:
    assert kept(sampling) == tokens


def test_kept_tokens_share_the_probability_in_proportion() -> None:
    torch.testing.assert_close(probabilities(LOGITS, Sampling()), torch.tensor([P]))
    for sampling in (Sampling(top_k=2), Sampling(top_p=0.7)):
        expected = torch.tensor([[0.25 / 0.75, 0, 0.5 / 0.75, 0, 0]])
        torch.testing.assert_close(probabilities(LOGITS, sampling), expected)


def test_temperature_is_an_exponent_of_one_over_itself() -> None:
    for temperature in (0.25, 2.0, 100.0):
        powers = torch.tensor([P]) ** (1 / temperature)
        torch.testing.assert_close(probabilities(LOGITS, Sampling(temperature=temperature)), powers / powers.sum())


def test_of_equals_no_more_are_kept_than_asked_for() -> None:
    assert len(kept(Sampling(top_k=2), torch.zeros(1, 4))) == 2
    assert kept(Sampling(top_p=0.5), torch.zeros(1, 4)) == [0, 1]


def test_temperature_zero_is_greedy_and_not_taken_for_the_default() -> None:
    assert Sampling(temperature=0.0).temperature == 0
    assert probabilities(LOGITS, GREEDY).tolist() == [[0, 0, 1, 0, 0]]
    for draw in (0.0, 0.3, 0.999):
        assert choose_tokens(LOGITS, GREEDY, torch.tensor([draw])).tolist() == [2]


@pytest.mark.parametrize(
    "sampling",
    [
        *(Sampling(temperature=t) for t in (1e-6, 1e-30, 6e-38, 1e-39, 1e-45, 1e-46, 1e-300, 5e-324)),
        *(Sampling(top_p=p) for p in (1e-39, 1e-46, 5e-324)),
        Sampling(temperature=1e-39, top_k=3, top_p=0.9),
    ],
    ids=str,
)
def test_the_limit_of_small_settings_is_greedy(sampling: Sampling) -> None:
    logits = torch.tensor([[3.0, -1.0, 3.5, -torch.inf], [-80.0, -81.0, -90.0, -79.0]])
    expected = torch.nn.functional.one_hot(torch.tensor([2, 3]), 4).float()
    assert torch.equal(probabilities(logits, sampling), expected)
    for draw in (0.0, 0.5, 1 - 2**-53):
        assert choose_tokens(logits, sampling, torch.full((2,), draw, dtype=torch.float64)).tolist() == [2, 3]


def test_a_draw_is_looked_up_in_the_cumulated_distribution() -> None:
    edges = [0.0, 0.25, 0.29, 0.79, 0.94, 1.0]
    for token in range(5):
        for draw in (edges[token] + 1e-6, edges[token + 1] - 1e-6):
            chosen = choose_tokens(LOGITS, Sampling(), torch.tensor([draw], dtype=torch.float64))
            assert chosen.tolist() == [token]


def test_rows_are_chosen_each_by_its_own_draw() -> None:
    logits = torch.cat([LOGITS, LOGITS, LOGITS.flip(1)])
    draws = torch.tensor([0.1, 0.5, 0.1], dtype=torch.float64)
    assert choose_tokens(logits, Sampling(), draws).tolist() == [0, 2, 1]


ROWS = [
    Sampling(),
    GREEDY,
    Sampling(temperature=0.7, top_k=4),
    Sampling(top_p=0.9),
    Sampling(temperature=3.0, top_k=11, top_p=0.5),
    Sampling(temperature=1e-39),
    Sampling(top_k=1),
    Sampling(top_k=999, top_p=1.0),
    GREEDY,
]


@pytest.mark.parametrize("n_levels", [3, 10**6])  # with so few, many logits are equal
def test_rows_of_one_batch_have_settings_of_their_own_and_neighbours_change_no_bit(n_levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(n_levels, (len(ROWS), 97), generator=generator) * (9 / n_levels)
    draws = torch.rand(len(ROWS), dtype=torch.float64, generator=generator)
    together = probabilities(logits, *ROWS)
    tokens = sampling_module.choose_tokens(logits, RowSampling.of(ROWS), draws)
    for i, row in enumerate(ROWS):
        assert torch.equal(together[i], probabilities(logits[i : i + 1], row)[0])
        assert tokens[i] == choose_tokens(logits[i : i + 1], row, draws[i : i + 1])[0]
    assert tokens[[1, 8]].tolist() == logits[[1, 8]].argmax(-1).tolist()
    assert torch.equal(together.flip(0), probabilities(logits.flip(0), *ROWS[::-1]))


def test_of_equals_top_k_keeps_the_first_whatever_the_neighbours_ask_for() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0]] * 3)
    rows = [Sampling(top_k=3), Sampling(top_k=4), Sampling(top_k=5)]
    assert [row.nonzero().flatten().tolist() for row in probabilities(logits, *rows)] == [
        [0, 1, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
    ]


def test_frequencies_are_the_probabilities() -> None:
    n = 40_000
    draws = torch.from_numpy(numpy_rng("frequencies").random(n))
    for sampling in (Sampling(), Sampling(temperature=0.7, top_k=4), Sampling(top_p=0.9)):
        expected = probabilities(LOGITS, sampling)[0]
        counts = torch.bincount(choose_tokens(LOGITS.expand(n, -1), sampling, draws), minlength=5)
        for count, p in zip(counts.tolist(), expected.tolist(), strict=True):
            assert abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p))  # and so never one of probability 0


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_least_and_the_greatest_draw_find_kept_tokens(draw: float) -> None:
    draws = torch.tensor([draw], dtype=torch.float64)
    logits = torch.tensor([[-1.0, 3.0, 2.0, -2.0]])
    assert choose_tokens(logits, Sampling(top_k=2), draws).tolist() == [1 if draw == 0 else 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, must be at least 0 (0 is greedy)"),
        ({"temperature": float("nan")}, "temperature is nan, must be at least 0 (0 is greedy)"),
        (
            {"temperature": float("inf")},
            "temperature is inf, must be at most 1e6 (above it, all tokens are almost equally likely)",
        ),
        (
            {"temperature": 1e39},
            "temperature is 1e+39, must be at most 1e6 (above it, all tokens are almost equally likely)",
        ),
        ({"top_k": 0}, "top_k is 0, must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0, must be in (0, 1]"),
        ({"top_p": 1.1}, "top_p is 1.1, must be in (0, 1]"),
    ],
)
def test_values_that_mean_nothing_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue) as caught:
        Sampling(**changed)
    assert str(caught.value) == message
