from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fewshot.base.config import read_yaml, write_yaml
from fewshot.base.errors import BadValue, KernelUnsupported, UnknownName
from fewshot.kernels import blocked, native, reference, sdpa
from fewshot.kernels.choose import KERNELS, Choice, choose, choose_for
from fewshot.kernels.interface import Requirements
from fewshot.patterns.pattern import Banded, Dense, Fixed, PerHead

REQUIREMENTS = Requirements(
    pattern=Banded(4),
    device="cpu",
    dtype=torch.float32,
    n_queries=7,
    n_keys=9,
    documents=False,
    dropout=0.0,
    training=True,
)
SECOND_ORDER = dataclasses.replace(REQUIREMENTS, second_order=True)


@pytest.fixture
def speeds(set_in_module: Callable[[object, str, object], None]) -> dict[str, float]:
    """The milliseconds that kernels seem to take: a test changes them at will."""
    speeds = {"native": 5.0, "blocked": 20.0, "sdpa": 90.0}
    set_in_module(
        choose_for, "time_kernels", lambda requirements, kernels: {name: speeds.get(name, 1.0) for name in kernels}
    )
    set_in_module(
        native, "supports", lambda requirements: "it has no second derivative" if requirements.second_order else None
    )
    return speeds


def test_auto_takes_the_fastest_and_says_why(speeds: dict[str, float]) -> None:
    kernel = choose("auto", REQUIREMENTS)
    assert (kernel.name, kernel.attend) == ("native", native.attend)
    assert kernel.why == "kernel native for banded(4): fastest here: 5 ms, blocked 20 ms, sdpa 90 ms"
    speeds["native"] = 100.0
    assert choose("auto", REQUIREMENTS).attend is blocked.attend


def test_auto_passes_over_what_does_not_fit_and_says_why(speeds: dict[str, float]) -> None:
    kernel = choose("auto", SECOND_ORDER)
    assert (kernel.name, kernel.attend) == ("reference", reference.attend)
    assert kernel.why == (
        "kernel reference for banded(4): not native, because it has no second derivative; "
        "not blocked, because it has no second derivative; "
        "not sdpa, because torch's fused attention has no second derivative"
    )


def test_a_named_kernel_is_taken() -> None:
    assert choose("reference", REQUIREMENTS).attend is reference.attend
    assert choose("sdpa", REQUIREMENTS) == Choice("sdpa", sdpa.attend, "kernel sdpa for banded(4): as configured")


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
        choose("sdp", REQUIREMENTS)


def test_requirements_are_hashable_so_that_decisions_can_be_remembered() -> None:
    assert {REQUIREMENTS: 1, SECOND_ORDER: 2}[dataclasses.replace(REQUIREMENTS)] == 1


def test_each_pattern_of_a_model_gets_a_kernel_that_fits_it(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    only_bands = SimpleNamespace(
        attend=lambda q, *args, **kwargs: q + 1,
        supports=lambda requirements: None if isinstance(requirements.pattern, Banded) else "only bands",
    )
    set_in_module(choose_for, "KERNELS", {"band": only_bands, "reference": reference})
    set_in_module(choose_for, "AUTO", {"cpu": ("band",)})
    kernels = choose_for([Dense(), Banded(4)], "auto", REQUIREMENTS)
    attend = kernels.attend
    q = torch.randn(1, 1, 3, 2)
    assert torch.equal(attend(q, q, q, Banded(4)), q + 1)
    torch.testing.assert_close(attend(q, q, q, Dense()), reference.attend(q, q, q, Dense()))
    assert kernels.names == {"dense": "reference", "banded(4)": "band"}
    assert kernels.reasons == [
        "kernel reference for dense: not band, because only bands",
        "kernel band for banded(4): no other fits",
    ]


def test_one_kernel_for_all_patterns_is_that_kernel_itself(speeds: dict[str, float]) -> None:
    assert choose_for([Dense(), Banded(4)], "auto", REQUIREMENTS).attend is native.attend


PATTERNS = [Dense(), Banded(4), Banded(2) | Fixed(6, 2), PerHead(Banded(3), Dense())]


def test_what_was_chosen_comes_back_from_a_file_whatever_is_fastest_then(
    speeds: dict[str, float], tmp_path: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    quickest = dict(zip(PATTERNS, ("native", "blocked", "sdpa", "native"), strict=True))
    set_in_module(
        choose_for,
        "time_kernels",
        lambda requirements, kernels: {name: float(name != quickest[requirements.pattern]) for name in kernels},
    )
    first = choose_for(PATTERNS, "auto", REQUIREMENTS)
    assert list(first.names.values()) == ["native", "blocked", "sdpa", "native"]
    write_yaml(tmp_path / "kernels.yaml", first.names)
    set_in_module(
        choose_for, "time_kernels", lambda requirements, kernels: {name: float(name != "sdpa") for name in kernels}
    )
    again = choose_for(PATTERNS, read_yaml(tmp_path / "kernels.yaml"), REQUIREMENTS)
    assert again.names == first.names
    assert again.reasons[1] == "kernel blocked for banded(4): as configured"
    q = torch.randn(1, 2, 7, 4)
    for pattern in PATTERNS:
        expected = KERNELS[first.names[pattern.text]].attend(q, q, q, pattern)
        assert torch.equal(again.attend(q, q, q, pattern), expected)


def test_a_pattern_may_be_spelled_as_anywhere_else_and_may_be_auto(speeds: dict[str, float]) -> None:
    names = {"DENSE": "sdpa", " banded( 4 )": "auto", "strided(2)": "native"}
    assert choose_for([Banded(4), Dense()], names, REQUIREMENTS).names == {"banded(4)": "native", "dense": "sdpa"}


def test_a_pattern_without_a_name_is_told_with_what_is_named() -> None:
    message = r"no kernel is named for 'dense' among {banded\(4\): sdpa}: add it, or give 'auto' for all"
    with pytest.raises(BadValue, match=message):
        choose_for([Banded(4), Dense()], {"banded(4)": "sdpa"}, REQUIREMENTS)


def test_a_kernel_that_was_chosen_and_cannot_be_had_any_more_is_refused_with_its_reason(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    set_in_module(
        native, "supports", lambda requirements: "there is no C++ compiler" if requirements.pattern == Dense() else None
    )
    with pytest.raises(
        KernelUnsupported, match="'native' does not fit dense: there is no C\\+\\+ compiler; use 'auto'"
    ):
        choose_for([Banded(4), Dense()], {"banded(4)": "native", "dense": "native"}, REQUIREMENTS)


@pytest.mark.parametrize("name", ["fastest", "", 7, None])
def test_a_stored_name_that_is_no_kernel_is_refused(name: object) -> None:
    with pytest.raises(UnknownName, match=f"unknown kernel '{name}'"):
        choose_for([Dense()], {"dense": name}, REQUIREMENTS)
