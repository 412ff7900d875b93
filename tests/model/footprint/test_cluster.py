from __future__ import annotations

import dataclasses

import pytest

from fewshot.base.errors import BadValue, FewshotError
from fewshot.model.footprint.cluster import ClusterPlan, Wishes, plan_cluster, wishes_from
from fewshot.model.footprint.gpus import GPUS
from fewshot.model.presets import PRESETS

LARGE = Wishes(n_gpus=1024, gpu="h100", batch_tokens=3_200_000, n_tokens=300_000_000_000)


def planned(wishes: Wishes, name: str = "gpt3-175b") -> ClusterPlan:
    return plan_cluster(name, PRESETS[name], wishes)


def test_what_is_planned_fits_and_takes_all_gpus_in_the_order_of_the_rule() -> None:
    plan = planned(LARGE)
    choices = [plan.chosen, *plan.others]
    assert all(choice.memory.peak <= plan.usable_bytes for choice in choices)
    assert {choice.layout.n_processes for choice in choices} == {1024}
    order = [(choice.layout.tp, choice.layout.pp) for choice in choices]
    assert order == sorted(order)


def test_the_time_is_that_of_the_flops_at_the_assumed_share_of_the_peak() -> None:
    plan = planned(dataclasses.replace(LARGE, mfu=0.5))
    assert plan.seconds == pytest.approx(6 * 174_604_259_328 * 3e11 / (1024 * 989e12 * 0.5))
    assert plan.checkpoint_weight_bytes == 4 * 174_604_259_328


REFUSED = {
    "too few": (dataclasses.replace(LARGE, n_gpus=8), "gpt3-175b does not fit 8 x h100: "),
    "copies": (dataclasses.replace(LARGE, dp=1024), "76 GB are usable; what fits"),
    "no divisor": (dataclasses.replace(LARGE, tp=7), "tp 7 takes 7 GPUs or a multiple, but --gpus is 1,024"),
    "too few for more than twice as many": (dataclasses.replace(LARGE, n_gpus=8), "on 128 GPUs it fits: --parallel."),
    "more than rows": (
        dataclasses.replace(LARGE, n_gpus=2**17, batch_tokens=8192),
        "has 4; take fewer GPUs, or a larger --sch",
    ),
    "heads": (dataclasses.replace(LARGE, tp=64), "parallel.tp is 64, but model.n_heads 96 is not a multiple of it"),
    "rows": (dataclasses.replace(LARGE, fsdp=1024, micro_rows=2), "read 2,048 rows at once, 2 each, but a batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_fit_is_refused_with_the_reason(name: str) -> None:
    wishes, message = REFUSED[name]
    with pytest.raises(BadValue) as caught:
        planned(wishes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_training_become_wishes() -> None:
    given = {
        "parallel": {"tp": 8, "pp": "16"},
        "loop": {"recompute": "full", "micro_rows": 2},
        "optimizer": {"name": "muon"},
    }
    wishes = wishes_from(given, mfu=None, n_gpus=1024, gpu="h100", n_tokens=10**9, batch_tokens=10**6)
    assert (wishes.tp, wishes.pp, wishes.recompute, wishes.micro_rows, wishes.optimizer) == (8, 16, "full", 2, "muon")


@pytest.mark.parametrize(
    "given",
    [
        {"paralel": {"tp": 8}},
        {"parallel": {"tq": 8}},
        {"parallel": 8},
        {"parallel": {"tp": 0}},
        {"loop": {"recompute": "half"}},
        {"loop": {"recompute": True}},
    ],
)
def test_options_that_are_not_understood_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(FewshotError):
        wishes_from(given, mfu=None, n_gpus=8, gpu="h100", n_tokens=10**9, batch_tokens=10**6)


def test_an_unknown_gpu_names_the_nearest() -> None:
    with pytest.raises(BadValue, match="unknown gpu 'h101'; nearest: 'h10"):
        dataclasses.replace(LARGE, gpu="h101")
    assert GPUS["h100"].usable_bytes == pytest.approx(76e9)
