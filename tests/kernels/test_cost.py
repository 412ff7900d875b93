from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot.kernels import cost, reference
from fewshot.kernels.need import Need
from fewshot.patterns.pattern import Banded, Pattern, PerHead, Strided


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def need(pattern: Pattern = Banded(4), **changes: object) -> Need:
    plain = {"device": "cpu", "dtype": torch.float32, "n_queries": 9, "n_keys": 11, "documents": False, "dropout": 0.0,
             "training": True}  # fmt: skip
    return Need(pattern=pattern, **{**plain, **changes})


class Slow:
    """The reference, later."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.shapes = seconds, []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, **how: object) -> Tensor:
        self.shapes.append((tuple(q.shape), tuple(k.shape), how["q_start"]))
        time.sleep(self.seconds)
        return reference.attend(q, k, v, pattern, **how)


def test_the_slower_kernel_takes_longer_and_both_see_the_same() -> None:
    quick, slow = Slow(0.0), Slow(0.02)
    found = cost.measured(need(), {"quick": quick, "slow": slow})
    assert found["slow"] > 20 > found["quick"]
    assert set(quick.shapes) == set(slow.shapes) == {((1, 4, 9, 64), (1, 4, 11, 64), 2)}


def test_a_first_call_that_compiles_does_not_count() -> None:
    class Compiled(Slow):
        def __call__(self, *args: object, **how: object) -> Tensor:
            self.seconds = 0.0 if self.shapes else 0.3
            return super().__call__(*args, **how)

    found = cost.measured(need(), {"steady": Slow(0.005), "compiled": Compiled(0.0)})
    assert found["compiled"] < found["steady"]


@pytest.mark.parametrize("stored", ["[]", '{"slow": "fast"}', "half a fi"])
def test_what_is_no_measurement_is_measured_again(fresh_cache: Path, stored: str) -> None:
    cost.measured(need(), {"slow": Slow(0.0)})
    (file,) = (fresh_cache / "kernels").iterdir()
    file.write_text(stored)
    assert cost.measured(need(), {"slow": Slow(0.0)})["slow"] > 0


def test_what_was_measured_is_not_measured_again(fresh_cache: Path) -> None:
    slow = Slow(0.001)
    found = cost.measured(need(), {"slow": slow})
    n_calls = len(slow.shapes)
    assert cost.measured(need(), {"slow": slow}) == found
    assert len(slow.shapes) == n_calls
    cost.measured(need(Banded(5)), {"slow": slow})
    assert len(slow.shapes) > n_calls


def test_a_cache_that_cannot_be_written_is_no_obstacle(fresh_cache: Path) -> None:
    fresh_cache.write_text("not a folder")
    assert cost.measured(need(), {"slow": Slow(0.0)})["slow"] > 0


def test_long_texts_are_measured_at_a_length_that_takes_no_time() -> None:
    slow = Slow(0.0)
    cost.measured(need(n_queries=100_000, n_keys=100_000, training=False), {"slow": slow})
    assert {shape for shape, _, _ in slow.shapes} == {(1, 4, cost.LONGEST, 64)}


def test_every_head_of_a_pattern_is_there() -> None:
    slow = Slow(0.0)
    cost.measured(need(PerHead(*(Strided(n) for n in range(1, 7))), documents=True), {"slow": slow})
    assert {shape[1] for shape, _, _ in slow.shapes} == {6}
