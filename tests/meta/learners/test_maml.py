"""Gradients of the outer loop against finite differences, and against a case that is solved by hand."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue
from fewshot.meta.episodes import Episodes, Sinusoids
from fewshot.meta.learners.maml import (
    InnerLoop,
    Start,
    adapt,
    finite_or_nan,
    judge_adapted,
    loss_of_weights,
    outer_gradients,
    query_losses,
    start_of,
)
from fewshot.meta.tasks.classes import accuracy
from fewshot.meta.tasks.text_tasks import share_answered


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def waves(n_tasks: int = 3, n_support: int = 5, n_query: int = 4) -> Episodes:
    drawn = Sinusoids().draw(n_tasks, n_support, n_query, torch.Generator().manual_seed(1))
    return Episodes(*(part.double() for part in drawn.parts()))


@pytest.mark.parametrize("n_steps", [1, 5, 10])
def test_second_order_gradients_are_those_of_finite_differences(network, n_steps):
    episodes, inner = waves(), InnerLoop(step_size=0.05)
    value, gradients = outer_gradients(network, episodes, mse_loss, inner, n_steps=n_steps)
    weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    def mean() -> float:
        return query_losses(network, Start(weights=weights), episodes, mse_loss, inner, after=[n_steps]).mean().item()

    assert value.item() == pytest.approx(mean(), rel=1e-12)
    for name, weight in weights.items():
        flat = weight.view(-1)
        for place in range(len(flat)):
            at, step = flat[place].item(), 1e-6
            flat[place] = at + step
            above = mean()
            flat[place] = at - step
            below = mean()
            flat[place] = at
            assert gradients[name].view(-1)[place].item() == pytest.approx(
                (above - below) / (2 * step), rel=1e-5, abs=1e-8
            )


class Line(nn.Module):
    """y = w x, one weight."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x


@pytest.mark.parametrize("n_steps", [1, 5, 10])
@pytest.mark.parametrize("second_order", [True, False])
def test_a_quadratic_is_as_by_hand(n_steps, second_order):
    """Task i: support and query loss (w - c)^2, all at x = 1. A step of size a: w - c shrinks by r = 1 - 2a.

    After n steps the query loss is r^(2n) (w - c)^2. Its gradient: 2 r^(2n) (w - c); with inner gradients taken for
    constants d w_n / d w is 1, so 2 r^n (w - c).
    """
    w, a, targets = 0.7, 0.1, [2.0, -1.5]
    ones = torch.ones(2, 1, 1, dtype=torch.float64)
    wanted = torch.tensor(targets, dtype=torch.float64)[:, None, None]
    inner = InnerLoop(step_size=a, second_order=second_order)
    value, gradients = outer_gradients(Line(w), Episodes(ones, wanted, ones, wanted), mse_loss, inner, n_steps=n_steps)
    r = 1 - 2 * a
    assert value.item() == pytest.approx(sum(r ** (2 * n_steps) * (w - c) ** 2 for c in targets) / 2)
    power = 2 * n_steps if second_order else n_steps
    assert gradients["w"].item() == pytest.approx(sum(2 * r**power * (w - c) for c in targets) / 2)


def test_first_order_leaves_out_the_product_with_the_hessian(network):
    """One step: exact = (I - a H) g, first order = g, so they differ by a H g, in proportion to the step size a."""
    episodes = waves(n_tasks=1)

    def gradients(step_size: float, second_order: bool) -> torch.Tensor:
        inner = InnerLoop(step_size=step_size, second_order=second_order)
        gradients = outer_gradients(network, episodes, mse_loss, inner, n_steps=1)[1]
        return torch.cat([gradient.flatten() for gradient in gradients.values()])

    gaps = [(gradients(a, True) - gradients(a, False)).norm().item() for a in (1e-3, 2e-3)]
    assert gaps[0] > 0
    assert gaps[1] / gaps[0] == pytest.approx(2.0, rel=0.02)


def test_tasks_at_once_are_as_tasks_one_by_one(network):
    episodes, inner = waves(n_tasks=4), InnerLoop(step_size=0.05)
    weights = dict(network.named_parameters())
    together = query_losses(network, start_of(network), episodes, mse_loss, inner, after=[3])[:, 0]
    for i in range(4):
        own = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
        for _ in range(3):
            loss = mse_loss(torch.func.functional_call(network, own, (episodes.support_x[i],)), episodes.support_y[i])
            gradients = torch.autograd.grad(loss, list(own.values()))
            own = {
                name: (w - 0.05 * s).detach().requires_grad_()
                for (name, w), s in zip(own.items(), gradients, strict=True)
            }
        alone = mse_loss(torch.func.functional_call(network, own, (episodes.query_x[i],)), episodes.query_y[i])
        assert together[i].item() == pytest.approx(alone.item(), rel=1e-10)


def after(n_steps: int, *given) -> dict[str, torch.Tensor]:
    return next(islice(adapt(*given), n_steps, None))


def test_anil_moves_the_head_alone_and_learned_step_sizes_take_the_place_of_the_one(network):
    start, episodes = start_of(network), waves(n_tasks=1)
    loss_of = loss_of_weights(network, mse_loss)
    x, y = episodes.support_x[0], episodes.support_y[0]
    head = after(2, loss_of, start, x, y, InnerLoop(step_size=0.05, adapts="2."))
    assert {name for name, w in start.weights.items() if not torch.equal(head[name], w)} == {"2.weight", "2.bias"}
    by_weight = {name: torch.full((1, *w.shape), 0.05) for name, w in start.weights.items()}
    plain = after(2, loss_of, start, x, y, InnerLoop(step_size=0.05))
    learned = after(2, loss_of, Start(weights=start.weights, step_sizes=by_weight), x, y, InnerLoop())
    assert all(torch.allclose(plain[name], learned[name]) for name in start.weights)
    by_step = {name: torch.tensor([0.05, 0.0]) for name in start.weights}  # nothing moves from the second step on
    stopped = after(4, loss_of, Start(weights=start.weights, step_sizes=by_step), x, y, InnerLoop())
    once = after(1, loss_of, start, x, y, InnerLoop(step_size=0.05))
    assert all(torch.allclose(stopped[name], once[name]) for name in start.weights)
    with pytest.raises(BadValue, match=r"begins with 'absent'; there are 0\.weight"):
        after(1, loss_of, start, x, y, InnerLoop(adapts="absent"))


def test_a_weight_by_step_has_its_row_in_each_state_and_the_last_one_beyond(network):
    rows = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    weights = {name: w for name, w in network.named_parameters() if name != "2.bias"}
    start, episodes = Start(weights=weights, by_step={"2.bias": rows}), waves(n_tasks=1)
    loss_of = loss_of_weights(network, mse_loss)
    states = list(islice(adapt(loss_of, start, episodes.support_x[0], episodes.support_y[0], InnerLoop()), 5))
    assert [state["2.bias"].item() for state in states] == [1, 2, 3, 3, 3]


def test_batches_of_the_support_set_are_those_that_are_picked(network):
    episodes, inner = waves(n_tasks=1), InnerLoop(step_size=0.05)
    x, y = episodes.support_x[0], episodes.support_y[0]
    loss_of = loss_of_weights(network, mse_loss)
    picks = torch.tensor([[3, 1], [0, 3]])
    states = list(adapt(loss_of, start_of(network), x, y, inner, picks))
    assert len(states) == 3
    first = after(1, loss_of, start_of(network), x[[3, 1]], y[[3, 1]], inner)
    second = after(1, loss_of, Start(weights=first), x[[0, 3]], y[[0, 3]], inner)
    assert all(torch.allclose(states[2][name], second[name]) for name in second)


def test_adam_without_momentum_takes_torchs_steps(network):
    episodes = waves(n_tasks=1)
    x, y = episodes.support_x[0], episodes.support_y[0]
    loss_of = loss_of_weights(network, mse_loss)
    inner = InnerLoop(step_size=0.01, optimizer="adam", second_order=False)
    ours = after(3, loss_of, start_of(network).detached(), x, y, inner)
    adam = torch.optim.Adam(network.parameters(), 0.01, betas=(0.0, 0.999))
    for _ in range(3):
        adam.zero_grad()
        mse_loss(network(x), y).backward()
        adam.step()
    assert all(torch.allclose(ours[name], w, atol=1e-9) for name, w in network.named_parameters())


def test_losses_along_the_way_are_those_of_each_number_of_steps_and_a_judge_takes_the_place_of_the_loss(network):
    episodes, inner, start = waves(), InnerLoop(step_size=0.05), start_of(network)
    along = query_losses(network, start, episodes, mse_loss, inner, after=[3, 0, 1])
    for place, n in enumerate([3, 0, 1]):
        alone = query_losses(network, start, episodes, mse_loss, inner, after=[n])
        assert torch.allclose(along[:, place], alone[:, 0])

    def judge(predictions, targets):
        return (predictions - targets).abs().mean()

    judged = query_losses(network, start, episodes, mse_loss, inner, after=[0], judge=judge)
    outputs = network(episodes.query_x)
    assert torch.allclose(judged[:, 0], (outputs - episodes.query_y).abs().mean((1, 2)))
    with pytest.raises(BadValue, match=r"after is \[\]"):
        query_losses(network, start, episodes, mse_loss, inner, after=[])


@pytest.mark.parametrize("wrong", [{"step_size": 0.0}, {"optimizer": "adamw"}, {"optimizer": "adam"}])
def test_an_inner_loop_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadValue, match=r"must be|allowed|no second derivative"):
        InnerLoop(**wrong)


def test_sinusoids_are_the_papers():
    drawn = Sinusoids().draw(20_000, 3, 2, torch.Generator().manual_seed(0))
    assert drawn.support_x.shape == (20_000, 3, 1)
    assert drawn.query_y.shape == (20_000, 2, 1)
    assert -5 <= drawn.query_x.min() < -4.99 < 4.99 < drawn.query_x.max() <= 5
    assert drawn.query_y.square().mean().item() == pytest.approx(4.25, rel=0.03)  # predicting 0
    best = -1.623 * torch.cos(drawn.query_x)  # the best function that knows no task
    assert (drawn.query_y - best).square().mean().item() == pytest.approx(3.00, rel=0.03)
    assert drawn.support_y.abs().max() <= 5
    again = Sinusoids().draw(20_000, 3, 2, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.support_y, again.support_y)
    assert math.isclose(Sinusoids().phases[1], math.pi)


def logits_with(*values: float) -> torch.Tensor:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0]])
    for i, value in enumerate(values):
        logits.view(-1)[i] = value
    return logits


@pytest.mark.parametrize("values", [(math.nan,), (math.inf,), (-math.inf,), (0.0, math.nan), [math.nan] * 6])
@pytest.mark.parametrize("judge", [accuracy, share_answered, mse_loss])
def test_what_is_judged_must_be_finite_whatever_judges_it(judge, values):
    y = logits_with() if judge is mse_loss else torch.tensor([0, 1, 0])
    assert finite_or_nan(judge)(logits_with(), y) == judge(logits_with(), y)
    assert finite_or_nan(judge)(logits_with(*values), y).isnan()


class Logits(nn.Module):
    """Logits w x, the same for every example of a task."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w.expand(len(x), 2) * x


def test_of_several_tasks_those_that_are_lost_are_known():
    x = torch.tensor([1.0, 1e30, 1.0])[:, None, None].expand(3, 4, 1)
    y = torch.ones(3, 4, dtype=torch.long)
    module, inner = Logits(), InnerLoop(step_size=1e30, second_order=False)
    values = judge_adapted(
        module, start_of(module), Episodes(x, y, x, y), nn.functional.cross_entropy, accuracy, inner, [0, 2]
    )
    assert values[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert values[:, 1].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 0.0, -1.0])
def test_a_step_size_is_a_finite_number_above_0(value):
    with pytest.raises(BadValue, match="step_size is"):
        InnerLoop(step_size=value)
