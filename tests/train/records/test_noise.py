"""The noise scale of gradients whose noise is known, and what a run logs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.dataset.prepare import load_tokens
from fewshot.train.build import build
from fewshot.train.records.noise import noise_and_signal, noise_scale
from fewshot.train.run import read_run_config, start
from fewshot.train.schedule import step_after
from fewshot.train.step import gradient_of, micro_batch


def quiet(line: str) -> None:
    pass


def test_means_over_many_steps_give_the_true_noise_signal_and_scale() -> None:
    draw, true, deviation = np.random.default_rng(0), np.array([0.3, -0.1, 0.2]), 0.7
    rows = []
    for _ in range(4000):
        tokens = true + deviation * draw.standard_normal((64, 3))
        whole, part = (float(np.linalg.norm(tokens[:n].mean(0))) for n in (64, 16))
        estimates = noise_and_signal(whole, part, n_tokens=64, small_tokens=16)
        rows.append(dict(zip(("grad_noise", "grad_signal"), estimates, strict=True)))
    noise, signal = 3 * deviation**2, float(true @ true)
    assert np.mean([row["grad_noise"] for row in rows]) == pytest.approx(noise, rel=0.05)
    assert np.mean([row["grad_signal"] for row in rows]) == pytest.approx(signal, rel=0.05)
    assert noise_scale(rows) == pytest.approx(noise / signal, rel=0.05)


@pytest.mark.parametrize(
    ("small_norm", "small_tokens"),
    [(None, 16), (1.0, 64), (1.0, 100), (1.0, 0), (float("nan"), 16), (float("inf"), 16)],
)
def test_nothing_is_said_of_a_batch_in_one_part_or_of_broken_figures(
    small_norm: float | None, small_tokens: int
) -> None:
    assert noise_and_signal(1.0, small_norm, n_tokens=64, small_tokens=small_tokens) == (None, None)


@pytest.mark.parametrize(
    "rows",
    [[], [{"grad_noise": None, "grad_signal": None}], [{}], [{"grad_noise": 1.0, "grad_signal": -1.0}]],
)
def test_rows_that_do_not_tell_it_give_no_scale(rows: list[dict[str, Any]]) -> None:
    assert noise_scale(rows) is None


@pytest.mark.parametrize("exact", [False, True])
def test_a_run_logs_what_its_first_micro_batch_and_its_whole_batch_say(tmp_path: Path, tiny: Any, exact: bool) -> None:
    given = tiny(n_steps=2, loop={"micro_rows": 1}, parallel={"exact": exact})
    threads = torch.get_num_threads()
    first, _ = start(given, tmp_path / "run", say=quiet)
    torch.set_num_threads(threads)
    config = read_run_config(tmp_path / "run")
    setup = build(config, load_tokens(config.data, tmp_path / "run" / "data"), say=quiet)
    step = step_after(config.schedule, n_steps=0, n_rows=0, n_ctx=16)
    alone = gradient_of(setup, lambda number: micro_batch(setup, step, number), 1, n_tokens=16)
    assert first.grad_norm is not None
    expected = noise_and_signal(first.grad_norm, alone.norm, n_tokens=64, small_tokens=16)
    assert (first.grad_noise, first.grad_signal) == pytest.approx(expected, rel=1e-4)


def test_a_batch_that_goes_through_in_one_part_logs_none(tmp_path: Path, tiny: Any) -> None:
    reports = list(start(tiny(n_steps=2, loop={"micro_rows": 4}), tmp_path / "run", say=quiet))
    assert [(report.grad_noise, report.grad_signal) for report in reports] == [(None, None)] * 2
