"""Fine-tuning's settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue, Diverged
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.finetune import FineTuning, choose_settings
from fewshot.meta.learners.maml import InnerLoop, judge_adapted, start_of


class Shift(nn.Module):
    """y = w: a step of SGD of size 1/2 on (w - c)^2 leads to c at once."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.25]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w.expand(len(x), 1)


def constants(n_tasks: int = 70) -> Episodes:
    y = torch.linspace(-1, 1, n_tasks)[:, None, None]
    return Episodes(torch.zeros(n_tasks, 3, 1), y.expand(-1, 3, 1), torch.zeros(n_tasks, 2, 1), y.expand(-1, 2, 1))


def exactness(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return -(mse_loss(predicted, wanted) * 1000).round()  # so that equals are equal


def test_the_best_settings_are_chosen_and_of_equals_the_fewest_steps():
    tried = FineTuning(sgd=(0.1, 0.5), adam=(0.05,), steps=(1, 2, 4))
    choice = choose_settings(Shift(), constants(), mse_loss, exactness, tried)
    assert (choice.inner.optimizer, choice.inner.step_size, choice.n_steps) == ("sgd", 0.5, 1)
    assert choice.value == 0.0
    assert str(choice) == "sgd 0.5 x 1"
    slow = choose_settings(Shift(), constants(), mse_loss, exactness, FineTuning(sgd=(0.1,), adam=(), steps=(4, 1, 2)))
    assert slow.n_steps == 4


def test_tasks_are_measured_in_their_order_however_many_are_held_at_once():
    module, inner = Shift(), InnerLoop(step_size=0.1, second_order=False)
    values = judge_adapted(module, start_of(module), constants(), mse_loss, exactness, inner, [0, 2])
    gap = torch.linspace(-1, 1, 70) - 0.25
    torch.testing.assert_close(values, torch.stack([-gap.square(), -(gap * 0.8**2).square()], 1).mul(1000).round())
    assert not values.requires_grad


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"sgd": (), "adam": ()}, "neither"), ({"steps": ()}, "steps is"), ({"steps": (0, 1)}, "steps is"),
     ({"tasks": 0}, "tasks is 0"), ({"adam": (-1.0,)}, "step_size is -1")],
)  # fmt: skip
def test_what_cannot_be_tried_is_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        FineTuning(**wrong)


def test_fine_tuning_passes_over_settings_that_lead_nowhere_and_says_so_if_all_do():
    given, wild = (Shift(), constants(), mse_loss, exactness), torch.finfo(torch.float32).max
    with pytest.raises(Diverged, match=r"finetune.sgd"):
        choose_settings(*given, FineTuning(sgd=(wild,), adam=(), steps=(20,)))
    choice = choose_settings(*given, FineTuning(sgd=(wild, 0.5), adam=(), steps=(2,)))
    assert (choice.inner.step_size, choice.value) == (0.5, 0.0)
