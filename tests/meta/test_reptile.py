from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.meta.maml import InnerLoop, start_of
from fewshot.meta.reptile import batches, pull


def test_an_outer_step_of_one_takes_the_weights_to_the_mean_of_where_tasks_lead():
    """y = w x at x = 1: a step of size a on (w - c)^2 leaves w - c shrunk by 1 - 2a, for c = 2 and c = -1."""
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, 0.5)
    x, y = torch.ones(2, 3, 1), torch.tensor([2.0, -1.0])[:, None, None].expand(2, 3, 1)
    inner = InnerLoop(step_size=0.1, second_order=False)
    slopes, loss = pull(line, start_of(line), x, y, torch.zeros(2, 4, 2, dtype=torch.int64), mse_loss, inner)
    ends = torch.tensor([c + 0.8**4 * (0.5 - c) for c in (2.0, -1.0)])
    assert torch.allclose(0.5 - slopes["weight"].squeeze(), ends.mean())
    assert torch.allclose(loss, torch.stack([(end - c) ** 2 for end, c in zip(ends, (2.0, -1.0), strict=True)]).mean())


def test_batches_pass_through_all_examples_before_any_comes_again():
    picks = batches(3, 7, n_steps=5, batch=3, generator=torch.Generator().manual_seed(0))
    assert picks.shape == (3, 5, 3)
    for task in picks.flatten(1):
        assert sorted(task[:7].tolist()) == sorted(task[7:14].tolist()) == list(range(7))
    assert not torch.equal(picks[0], picks[1])
