"""In which type a run's products are computed, and whether its blocks are compiled: what a measurement says.

In: a configuration and this machine. Out: a `Choice` with its reasons. On a CPU one block of each pattern and the loss
are timed, forward and backward, in each way that may be taken. A GPU takes bfloat16 and the compiler where it has them.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fewshot.base.machine import processor_name
from fewshot.base.timings import stored_times
from fewshot.kernels.choose import Choices
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.parameters import n_parameters
from fewshot.model.layers import TransformerBlock
from fewshot.model.loss import mean_cross_entropy
from fewshot.train.config import LoopConfig
from fewshot.train.precision import Precision, possible_precisions

QUICK_FLOPS = 1e12  # a run of some seconds: not worth measuring
COMPILING_SECONDS = 30  # about, where nothing is stored from before
WORTH = 20  # times as long a run must take before compiling is tried
MARGIN = 1.05  # so many times as fast, or the simpler way is taken
TOKENS = 2048  # of a measurement, about
SHORT = "the run is too short to gain from it"
MOST_VOCAB = 8192  # entries of the output matrix that are timed; the rest takes in proportion
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a run is computed."""

    precision: Precision
    compiled: bool
    reason: str  # why it is compiled, or is not


def fastest(
    config: GPTConfig,
    loop: LoopConfig,
    *,
    n_tokens: int,
    device: str,
    problem: str | None,
    kernels_for: Callable[[torch.dtype], Choices],
) -> Choice:
    """Return the fastest way to train on `n_tokens`, within what `loop` leaves open.

    `problem`: why nothing can be compiled, if so; `kernels_for` chooses the kernels for a type.
    """
    precisions = possible_precisions(loop.precision, device)
    given = {"never": Choice(precision=precisions[0], compiled=False, reason="switched off")}
    given["always"] = Choice(precision=precisions[0], compiled=True, reason="as configured")
    known = given.get(loop.compile)
    if known is None and problem:
        known = Choice(precision=precisions[0], compiled=False, reason=problem)
    if device != "cpu":
        return known or Choice(precision=precisions[0], compiled=True, reason="on a GPU")
    is_quick = 6.0 * n_parameters(config) * n_tokens < QUICK_FLOPS
    if is_quick and len(precisions) > 1:
        precisions = [replace(precisions[0], reason="for a run of seconds")]
    if is_quick and known is None:
        known = Choice(precision=precisions[0], compiled=False, reason=SHORT)

    def seconds(precision: Precision, *, compiled: bool) -> float:
        return _seconds_a_token(config, loop, precision, kernels_for(precision.dtype), compiled=compiled)

    precision, eager = precisions[0], 0.0
    if len(precisions) > 1 or known is None:
        times = {precision.name: seconds(precision, compiled=False) for precision in precisions}
        for other in precisions[1:]:
            gain = times[precision.name] / times[other.name]
            precision = other if gain > MARGIN else precision
            precision = replace(precision, reason=f"bfloat16 is {gain:.2f} times as fast as float32 here")
        eager = times[precision.name]
    if known is not None:
        return replace(known, precision=precision)
    if eager * n_tokens < WORTH * COMPILING_SECONDS:
        return Choice(precision=precision, compiled=False, reason=SHORT)
    gain = eager / seconds(precision, compiled=True)
    return Choice(precision=precision, compiled=gain > MARGIN, reason=f"{gain:.2f} times as fast here")


def _seconds_a_token(
    config: GPTConfig, loop: LoopConfig, precision: Precision, kernels: Choices, *, compiled: bool
) -> float:
    """Return about how long a step takes for each of its tokens; stored, so that a run begun again takes the same."""
    n_rows = max(1, min(loop.micro_rows or 1, TOKENS // config.n_ctx))
    where = (processor_name(), torch.get_num_threads(), torch.__version__)
    what = (dataclasses.astuple(config), n_rows, precision.name, compiled, sorted(kernels.names.items()))

    def measure() -> dict[str, float]:
        return _time(config, n_rows, precision, kernels, compiled=compiled)

    times = stored_times("training", [where, what], ["block", "loss"], measure)
    again = {"none": 1.0, "selective": 10 / 9, "full": 4 / 3}[loop.recompute]
    return (config.n_layers * again * times["block"] + times["loss"]) / (n_rows * config.n_ctx)


def _time(
    config: GPTConfig, n_rows: int, precision: Precision, kernels: Choices, *, compiled: bool
) -> dict[str, float]:
    """Return the seconds of a block, the mean over the patterns, and of the loss, forward and backward."""
    blocks = [TransformerBlock(config, pattern, kernels.attend) for pattern in config.patterns]
    x = torch.randn(n_rows, config.n_ctx, config.d_model, requires_grad=True)
    gradient = torch.randn_like(x)
    matrix = torch.randn(min(config.n_vocab, MOST_VOCAB), config.d_model, requires_grad=True)
    targets = torch.zeros(n_rows * config.n_ctx, dtype=torch.long)

    def through(block: TransformerBlock) -> None:
        with precision.autocast("cpu"):
            y = block(x)
        y.backward(gradient)

    def loss() -> None:
        with precision.autocast("cpu"):
            value = mean_cross_entropy(x.flatten(0, 1), matrix, targets)
        value.backward()

    if compiled:
        for block in blocks:
            block.compile(dynamic=False)
    of_blocks = [_median(functools.partial(through, block)) for block in blocks]
    return {"block": statistics.fmean(of_blocks), "loss": _median(loss) * config.n_vocab / len(matrix)}


def _median(run: Callable[[], None]) -> float:
    """Return the seconds of a run, the median of some after one that does not count."""
    run()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
