from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.learners.maml import InnerLoop, Start, start_of
from fewshot.meta.learners.reptile import batches, reptile_gradients
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner, configured_start, learner_options
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop


def test_an_outer_step_of_one_takes_the_weights_to_the_mean_of_where_tasks_lead():
    """y = w x at x = 1: a step of size a on (w - c)^2 leaves w - c shrunk by 1 - 2a, for c = 2 and c = -1."""
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, 0.5)
    x, y = torch.ones(2, 3, 1), torch.tensor([2.0, -1.0])[:, None, None].expand(2, 3, 1)
    inner = InnerLoop(step_size=0.1, second_order=False)
    difference, loss = reptile_gradients(
        line, start_of(line), x, y, torch.zeros(2, 4, 2, dtype=torch.int64), mse_loss, inner
    )
    ends = torch.tensor([c + 0.8**4 * (0.5 - c) for c in (2.0, -1.0)])
    assert torch.allclose(0.5 - difference.weights["weight"].squeeze(), ends.mean())
    assert torch.allclose(loss, torch.stack([(end - c) ** 2 for end, c in zip(ends, (2.0, -1.0), strict=True)]).mean())


def test_with_one_task_and_an_outer_step_of_one_it_is_torchs_adam_going_on():
    """Two iterations of four steps are eight steps of Adam: its running squares go on."""
    torch.manual_seed(0)
    ours, torchs = nn.Linear(3, 2), nn.Linear(3, 2)
    torchs.load_state_dict(ours.state_dict())
    x, y = torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    picks = batches(1, 6, n_steps=8, batch=2, generator=torch.Generator().manual_seed(0))
    start = configured_start(ours, LearnerConfig(**learner_options("reptile")))
    inner = InnerLoop(step_size=0.01, optimizer="adam", second_order=False)
    for part in picks.split(4, 1):
        difference, _ = reptile_gradients(ours, start.detached(), x, y, part, mse_loss, inner)
        parts = zip(start.parts().items(), difference.parts().values(), strict=True)
        start = Start(**{part: {n: t - back[n] for n, t in begun.items()} for (part, begun), back in parts})
    adam = torch.optim.Adam(torchs.parameters(), lr=0.01, betas=(0.0, 0.999))
    for batch in picks[0]:
        adam.zero_grad()
        mse_loss(torchs(x[0, batch]), y[0, batch]).backward()
        adam.step()
    assert start.moments["steps"] == 8
    for name, weight in torchs.named_parameters():
        assert torch.allclose(start.weights[name], weight, atol=1e-6)


def test_batches_pass_through_all_examples_before_any_comes_again():
    picks = batches(3, 7, n_steps=5, batch=3, generator=torch.Generator().manual_seed(0))
    assert picks.shape == (3, 5, 3)
    for task in picks.flatten(1):
        assert sorted(task[:7].tolist()) == sorted(task[7:14].tolist()) == list(range(7))
    assert not torch.equal(picks[0], picks[1])


def test_a_run_that_was_stopped_goes_on_with_its_running_squares(tmp_path):
    def loop() -> OuterLoop:
        network = perceptron(1, (5,), 1, seed=0)
        config = LearnerConfig(**learner_options("reptile"), n_tasks=3, n_steps=2, batch=4)
        learner = WeightLearner(network, Sinusoids(), mse_loss, config)
        outer = OuterConfig(n_iterations=6, optimizer="sgd", lr=1.0, schedule="linear", report_every=3)
        return OuterLoop(learner.start.named(), learner.step, outer)

    whole, cut, again = loop(), loop(), loop()
    list(whole.run())
    next(cut.run())
    cut.save(tmp_path / "state", about={})
    again.load(tmp_path / "state", about={})
    list(again.run())
    assert again.learned["moments.steps"] == 12
    assert all(torch.equal(tensor, again.learned[name]) for name, tensor in whole.learned.items())


def test_it_learns_no_step_sizes():
    with pytest.raises(BadValue, match="reptile learns weights only"):
        LearnerConfig(**{**learner_options("reptile"), "step_sizes": "layer"})
