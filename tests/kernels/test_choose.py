from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from fewshot.base.errors import KernelUnsupported, UnknownName
from fewshot.kernels import blocked, native, reference, sdpa
from fewshot.kernels import choose as choose_module
from fewshot.kernels.choose import choose, choose_for
from fewshot.kernels.need import Need
from fewshot.patterns.pattern import Banded, Dense

NEED = Need(
    pattern=Banded(4),
    device="cpu",
    dtype=torch.float32,
    n_queries=7,
    n_keys=9,
    documents=False,
    dropout=0.0,
    training=True,
)
SECOND_ORDER = dataclasses.replace(NEED, second_order=True)


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What is "measured": changed by a test at will."""
    speeds = {"native": 5.0, "blocked": 20.0, "sdpa": 90.0}
    monkeypatch.setattr(
        choose_module, "measured", lambda need, kernels: {name: speeds.get(name, 1.0) for name in kernels}
    )
    monkeypatch.setattr(native, "supports", lambda need: "it has no second derivative" if need.second_order else None)
    return speeds


def test_auto_takes_the_fastest_and_says_why(speeds: dict[str, float]) -> None:
    attend, why = choose("auto", NEED)
    assert attend is native.attend
    assert why == "kernel native for banded(4): measured 5 ms here, blocked 20, sdpa 90"
    speeds["native"] = 100.0
    assert choose("auto", NEED)[0] is blocked.attend


def test_auto_passes_over_what_does_not_fit_and_says_why(speeds: dict[str, float]) -> None:
    attend, why = choose("auto", SECOND_ORDER)
    assert attend is reference.attend
    assert why == (
        "kernel reference for banded(4): not native, because it has no second derivative; "
        "not blocked, because it has no second derivative; "
        "not sdpa, because torch's fused attention has no second derivative"
    )


def test_a_named_kernel_is_taken() -> None:
    assert choose("reference", NEED)[0] is reference.attend
    assert choose("sdpa", NEED) == (sdpa.attend, "kernel sdpa for banded(4): asked for by name")


def test_a_named_kernel_that_does_not_fit_raises_with_the_reason() -> None:
    with pytest.raises(
        KernelUnsupported, match=r"'sdpa' does not fit banded\(4\): .* no second derivative; use 'auto'"
    ):
        choose("sdpa", SECOND_ORDER)


def test_an_unknown_kernel_gets_the_nearest_name() -> None:
    with pytest.raises(
        UnknownName,
        match="unknown kernel 'sdp'; nearest: 'sdpa'; allowed: auto, blocked, flex, native, reference, sdpa, triton",
    ):
        choose("sdp", NEED)


def test_a_need_is_hashable_so_that_decisions_can_be_remembered() -> None:
    assert {NEED: 1, SECOND_ORDER: 2}[dataclasses.replace(NEED)] == 1


def test_each_pattern_of_a_model_gets_a_kernel_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    only_bands = SimpleNamespace(
        attend=lambda q, *args, **kwargs: q + 1,
        supports=lambda need: None if isinstance(need.pattern, Banded) else "only bands",
    )
    monkeypatch.setattr(choose_module, "KERNELS", {"band": only_bands, "reference": reference})
    monkeypatch.setattr(choose_module, "AUTO", {"cpu": ("band",)})
    attend, reasons = choose_for([Dense(), Banded(4)], "auto", NEED)
    q = torch.randn(1, 1, 3, 2)
    assert torch.equal(attend(q, q, q, Banded(4)), q + 1)
    torch.testing.assert_close(attend(q, q, q, Dense()), reference.attend(q, q, q, Dense()))
    assert reasons == [
        "kernel reference for dense: not band, because only bands",
        "kernel band for banded(4): no other fits",
    ]


def test_one_kernel_for_all_patterns_is_that_kernel_itself(speeds: dict[str, float]) -> None:
    assert choose_for([Dense(), Banded(4)], "auto", NEED)[0] is native.attend
