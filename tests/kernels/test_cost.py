from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot.kernels import cost, reference
from fewshot.kernels.interface import Requirements
from fewshot.patterns.pattern import Banded, Pattern, PerHead, Strided


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def requirements(pattern: Pattern = Banded(4), **changes: object) -> Requirements:
    plain = {"device": "cpu", "dtype": torch.float32, "n_queries": 9, "n_keys": 11, "documents": False, "dropout": 0.0,
             "training": True}  # fmt: skip
    return Requirements(pattern=pattern, **{**plain, **changes})


class Clock:
    """Seconds that pass only when a kernel says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """The reference, later by the clock."""

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self.seconds, self.clock, self.shapes = seconds, clock or Clock(), []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, **how: object) -> Tensor:
        self.shapes.append((tuple(q.shape), tuple(k.shape), how["q_start"]))
        self.clock.now += self.seconds
        return reference.attend(q, k, v, pattern, **how)


def test_the_slower_kernel_takes_longer_and_both_see_the_same() -> None:
    clock = Clock()
    quick, slow = Slow(0.001, clock), Slow(0.02, clock)
    times = cost.time_kernels(requirements(), {"quick": quick, "slow": slow}, clock=clock)
    assert times == {"quick": pytest.approx(1.0), "slow": pytest.approx(20.0)}
    assert set(quick.shapes) == set(slow.shapes) == {((1, 4, 9, 64), (1, 4, 11, 64), 2)}


def test_a_first_call_that_compiles_does_not_count() -> None:
    class Compiled(Slow):
        def __call__(self, *args: object, **how: object) -> Tensor:
            self.seconds = 0.002 if self.shapes else 0.3
            return super().__call__(*args, **how)

    clock = Clock()
    times = cost.time_kernels(
        requirements(), {"steady": Slow(0.005, clock), "compiled": Compiled(0.0, clock)}, clock=clock
    )
    assert times == {"steady": pytest.approx(5.0), "compiled": pytest.approx(2.0)}


def test_the_fastest_of_all_rounds_counts() -> None:
    class Disturbed(Slow):
        def __call__(self, *args: object, **how: object) -> Tensor:
            self.seconds = 0.004 if len(self.shapes) == 2 else 0.009
            return super().__call__(*args, **how)

    clock = Clock()
    assert cost.time_kernels(requirements(), {"it": Disturbed(0.0, clock)}, clock=clock) == {"it": pytest.approx(4.0)}


NO_MEASUREMENTS = {
    "a list": "[]",
    "nothing": "",
    "cut short": '{"a": 1.0, "b": 0.0',
    "text": '{"a": 1.0, "b": "2.0"}',
    "true": '{"a": 1.0, "b": true}',
    "null": '{"a": 1.0, "b": null}',
    "a kernel less": '{"a": 1.0}',
    "a kernel more": '{"a": 1.0, "b": 2.0, "c": 3.0}',
    "negative": '{"a": 1.0, "b": -2.0}',
    "no time at all": '{"a": 1.0, "b": 0.0}',
    "NaN": '{"a": 1.0, "b": NaN}',
    "infinite": '{"a": 1.0, "b": Infinity}',
    "larger than any number": '{"a": 1.0, "b": 1e999}',
    "nested": '{"a": 1.0, "b": {"b": 2.0}}',
    "nested deeply": "[" * 100_000,
    "a number of ten thousand digits": '{"a": 1.0, "b": ' + "9" * 10_000 + "}",
    "binary": "\0\0\0\0",
    "another encoding": b'{"a": 1.0, "b\xe9": 2.0}',
}


@pytest.mark.parametrize("stored", NO_MEASUREMENTS.values(), ids=NO_MEASUREMENTS.keys())
def test_what_is_no_measurement_is_measured_again(fresh_cache: Path, stored: str | bytes) -> None:
    clock = Clock()
    kernels = {"a": Slow(0.003, clock), "b": Slow(0.005, clock)}
    expected = {"a": pytest.approx(3.0), "b": pytest.approx(5.0)}
    assert cost.time_kernels(requirements(), kernels, clock=clock) == expected
    (file,) = (fresh_cache / "kernels").iterdir()
    file.write_bytes(stored if isinstance(stored, bytes) else stored.encode())
    for _ in range(2):  # and it is kept again
        assert cost.time_kernels(requirements(), kernels, clock=clock) == expected
    assert json.loads(file.read_text()) == expected


def test_a_folder_in_the_place_of_a_measurement_is_no_obstacle(fresh_cache: Path) -> None:
    clock = Clock()
    kernels = {"slow": Slow(0.003, clock)}
    cost.time_kernels(requirements(), kernels, clock=clock)
    (file,) = (fresh_cache / "kernels").iterdir()
    file.unlink()
    file.mkdir()
    assert cost.time_kernels(requirements(), kernels, clock=clock) == {"slow": pytest.approx(3.0)}


def test_what_was_measured_is_not_measured_again(fresh_cache: Path) -> None:
    clock = Clock()
    slow = Slow(0.001, clock)
    times = cost.time_kernels(requirements(), {"slow": slow}, clock=clock)
    n_calls = len(slow.shapes)
    assert cost.time_kernels(requirements(), {"slow": slow}, clock=clock) == times
    assert len(slow.shapes) == n_calls
    cost.time_kernels(requirements(Banded(5)), {"slow": slow})
    assert len(slow.shapes) > n_calls


def test_a_cache_that_cannot_be_written_is_no_obstacle(fresh_cache: Path) -> None:
    fresh_cache.write_text("not a folder")
    clock = Clock()
    assert cost.time_kernels(requirements(), {"slow": Slow(0.003, clock)}, clock=clock) == {"slow": pytest.approx(3.0)}


def test_long_texts_are_measured_at_a_length_that_takes_no_time() -> None:
    slow = Slow(0.0)
    cost.time_kernels(requirements(n_queries=100_000, n_keys=100_000, training=False), {"slow": slow})
    assert {shape for shape, _, _ in slow.shapes} == {(1, 4, cost.LONGEST, 64)}


def test_a_pattern_without_a_fast_way_is_measured_at_a_length_that_takes_no_time() -> None:
    class Unlisted(Banded):
        pass

    slow = Slow(0.0)
    cost.time_kernels(
        requirements(Banded(3) | Unlisted(4), n_queries=2048, n_keys=2048, training=False), {"slow": slow}
    )
    assert {shape for shape, _, _ in slow.shapes} == {(1, 4, cost.LONGEST_SLOW, 64)}


def test_every_head_of_a_pattern_is_there() -> None:
    slow = Slow(0.0)
    cost.time_kernels(requirements(PerHead(*(Strided(n) for n in range(1, 7))), documents=True), {"slow": slow})
    assert {shape[1] for shape, _, _ in slow.shapes} == {6}
