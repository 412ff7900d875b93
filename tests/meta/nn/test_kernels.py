"""A GPT in the inner loop: exact second order through `reference`, and what other kernels cannot do."""

from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import KernelUnsupported
from fewshot.kernels.choose import KERNELS, choose_for
from fewshot.kernels.interface import Requirements
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.maml import InnerLoop, query_losses, start_of
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.kernels import BATCHED, TWICE, check_kernels
from fewshot.meta.tasks.text_tasks import NO_TARGET, answer_loss
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

CONFIG = GPTConfig(
    n_layers=2, d_model=6, n_heads=2, n_ctx=7, n_vocab=11, pattern="alternate(banded(2), dense)", init_std=0.4
)


def gpt(kernel: str) -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG, attend=KERNELS[kernel].attend)


def sequences(n_tasks: int = 2) -> Episodes:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(CONFIG.n_vocab, (n_tasks, 5, 6), generator=generator)
    x, y = tokens[..., :-1], tokens[..., 1:].clone()
    y[..., :2] = NO_TARGET
    return Episodes(x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])


def outer_gradients_of(model: GPT, inner: InnerLoop, n_steps: int) -> dict[str, torch.Tensor]:
    start = start_of(model)
    mean = query_losses(model, start, sequences(), answer_loss, inner, after=[n_steps]).mean()
    return dict(zip(start.weights, torch.autograd.grad(mean, list(start.weights.values())), strict=True))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_second_order_through_reference_is_that_of_finite_differences(n_steps):
    """In float64, along a random direction of each weight: a wrong term in any one of them would show."""
    model, inner = gpt("reference").double(), InnerLoop(step_size=0.2)
    gradients = outer_gradients_of(model, inner, n_steps)
    first_order = outer_gradients_of(model, InnerLoop(step_size=0.2, second_order=False), n_steps)
    start = start_of(model).detached()

    def mean() -> float:
        return query_losses(model, start, sequences(), answer_loss, inner, after=[n_steps]).mean().item()

    generator, n_told_apart = torch.Generator().manual_seed(2), 0
    for name, weight in start.weights.items():
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        step, at = 1e-6, weight.clone()
        weight.copy_(at + step * direction)
        above = mean()
        weight.copy_(at - step * direction)
        below = mean()
        weight.copy_(at)
        difference = (above - below) / (2 * step)
        assert (gradients[name] * direction).sum().item() == pytest.approx(difference, rel=1e-5, abs=1e-8), name
        n_told_apart += (first_order[name] * direction).sum().item() != pytest.approx(difference, rel=1e-2)
    assert n_told_apart > len(gradients) / 2  # so the test can tell exact from first order


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # sdpa goes through the tasks in a loop
@pytest.mark.parametrize("kernel", [name for name in BATCHED if name != "reference"])
def test_in_first_order_the_other_kernels_give_the_references_gradient(kernel):
    inner = InnerLoop(step_size=0.2, second_order=False)
    check_kernels(gpt(kernel), second_order=False)
    ours, wanted = outer_gradients_of(gpt(kernel), inner, 3), outer_gradients_of(gpt("reference"), inner, 3)
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in TWICE])
def test_a_kernel_without_second_derivative_is_named_with_the_way_out(kernel):
    with pytest.raises(KernelUnsupported, match=rf"kernel '{kernel}' .*use 'reference'"):
        check_kernels(gpt(kernel), second_order=True)


def test_a_learner_says_so_before_it_draws_a_task():
    for config in (LearnerConfig(), LearnerConfig(first_order_share=0.5)):
        with pytest.raises(KernelUnsupported, match=r"kernel 'sdpa' .*use 'reference'"):
            WeightLearner(gpt("sdpa"), None, answer_loss, config)
    for config in (LearnerConfig(first_order_share=1.0), LearnerConfig(algorithm="pretrain")):
        WeightLearner(gpt("sdpa"), None, answer_loss, config)
        with pytest.raises(KernelUnsupported, match=r"kernel 'blocked' .*many tasks"):
            WeightLearner(gpt("blocked"), None, answer_loss, config)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in BATCHED])
def test_in_first_order_too_some_kernels_are_refused(kernel):
    with pytest.raises(KernelUnsupported, match=rf"kernel '{kernel}' .*many tasks.*use 'reference' or 'sdpa'"):
        check_kernels(gpt(kernel), second_order=False)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("kernel", "second_order"), [("sdpa", True), ("blocked", False)])
def test_what_is_refused_does_fail_in_torch(kernel, second_order):
    with pytest.raises(RuntimeError, match=r"not implemented|autograd\.Function"):
        outer_gradients_of(gpt(kernel), InnerLoop(step_size=0.2, second_order=second_order), 1)


def test_a_mixture_by_pattern_is_refused_as_auto_and_a_function_of_ones_own_is_let_through():
    patterns = CONFIG.schedule().patterns
    need = Requirements(patterns[0], "cpu", torch.float32, 7, 7, documents=False, dropout=0.0, training=True)
    model = gpt("reference")
    check_kernels(model, second_order=True)
    for block in model.h:
        block.attn.attend = lambda *args, **options: KERNELS["reference"].attend(*args, **options)
    check_kernels(model, second_order=True)
    mixed = choose_for(patterns, "reference", need).attend
    assert mixed is KERNELS["reference"].attend
    some_by_pattern = _mixture(patterns, need)
    model.h[0].attn.attend = some_by_pattern
    with pytest.raises(KernelUnsupported, match=r"kernel 'auto' .*use 'reference'"):
        check_kernels(model, second_order=True)


def _mixture(patterns, need):
    """As `choose_for` makes it where patterns differ in their fastest kernel."""
    names = zip((pattern.text for pattern in patterns), ("sdpa", "blocked"), strict=True)
    return choose_for(patterns, dict(names), need).attend
