"""A whole training run on many GPUs: memory by kind, time, checkpoint. In: a shape, a GPU, wishes. Out: a plan.

Refuses what cannot fit, with the reason and the layouts that do. The memory is arithmetic that was compared with runs
on CPUs (bench/plan.py), not on GPUs. The time rests on an assumed share of the GPUs' stated peak (MFU); how fast the
network is is not considered.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import cast
from fewshot.base.errors import BadValue, check, look_up
from fewshot.base.machine import in_bytes
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import RECOMPUTE
from fewshot.model.footprint.gpus import GPUS, USABLE, Gpu
from fewshot.model.footprint.layout import SIZES, TRIED, Layout, layouts, why_not
from fewshot.model.footprint.memory import OPTIMIZERS, PRODUCT_BYTES, Footprint, Work, checkpoint_bytes, footprint
from fewshot.model.footprint.parameters import n_parameters

# The order of layouts, of which the first is taken.
RULE = "least tp, least pp, least recomputation, most free memory"
WORDS = {"none": "no recomputation", "selective": "selective recomputation", "full": "recomputation of whole blocks"}
MFU = 0.40  # an assumption: public trainers report .33 to .48 for large models on H100
N_PROPOSED = 3  # layouts in an error, and other layouts in a table
MAX_GPUS = 2**17  # of more, with many divisors, comparing all layouts takes long


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user asks of a run; sizes that are None are chosen."""

    n_gpus: int
    gpu: str
    dp: int | None = None
    fsdp: int | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    micro_rows: int = 1  # rows of one forward pass
    recompute: str | None = None  # None: the least that fits
    precision: str = "bfloat16"
    optimizer: str = "adamw"
    mfu: float = MFU
    batch_tokens: int
    n_tokens: int

    def __post_init__(self) -> None:
        look_up("gpu", self.gpu, GPUS)
        look_up("optimizer", self.optimizer, dict.fromkeys(OPTIMIZERS))
        look_up("precision", self.precision, PRODUCT_BYTES)
        check(1 <= self.n_gpus <= MAX_GPUS, f"gpus is {self.n_gpus}, must be in 1..{MAX_GPUS}")
        for name, size in self.sizes.items():
            check(size >= 1, f"parallel.{name} is {size}, must be at least 1")
        look_up("recompute", self.recompute or "none", dict.fromkeys(RECOMPUTE))
        check(self.micro_rows >= 1, f"loop.micro_rows is {self.micro_rows}, must be at least 1")
        check(0 < self.mfu <= 1, f"mfu is {self.mfu}, must be above 0 and at most 1")
        check(self.batch_tokens >= 1, f"schedule.batch_tokens is {self.batch_tokens}, must be at least 1")

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that are given."""
        return {name: getattr(self, name) for name in SIZES if getattr(self, name) is not None}


# The options of a training run that a plan takes, by section.
FIELDS = {
    "parallel": SIZES,
    "loop": ("micro_rows", "recompute", "precision"),
    "optimizer": ("name",),
    "schedule": ("batch_tokens",),
}


def wishes_from(given: Mapping[str, Any], *, mfu: float | None, **others: Any) -> Wishes:
    """Return what is asked for by the sections of a training run's options, laid over `others`."""
    chosen: dict[str, Any] = {**others, **({} if mfu is None else {"mfu": mfu})}
    hints = typing.get_type_hints(Wishes)
    for section, values in given.items():
        look_up("section", section, {**FIELDS, "model": ()})
        if not isinstance(values, Mapping):
            raise BadValue(f"--{section} needs a field: one of {', '.join(FIELDS[section])}, as in --parallel.tp 8")
        for key, value in values.items():
            look_up(f"field of {section} in a plan", key, dict.fromkeys(FIELDS[section]))
            field = "optimizer" if section == "optimizer" else key
            chosen[field] = cast(value, hints[field], f"{section}.{key}")
    return Wishes(**chosen)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A layout that fits."""

    layout: Layout
    work: Work
    memory: Footprint

    @property
    def options(self) -> str:
        """The options of a training run that make it."""
        recompute = "" if self.work.recompute == "none" else f" --loop.recompute {self.work.recompute}"
        return f"{self.layout.options} --loop.micro_rows {self.work.micro_rows}{recompute}"


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A run that fits."""

    name: str
    n_parameters: int
    n_gpus: int
    gpu: str
    memory_bytes: int  # of one GPU
    usable_bytes: int
    peak_flops: float  # a second, of one GPU in bfloat16
    chosen: Choice
    others: list[Choice]
    n_tokens: int
    batch_tokens: int
    n_steps: int
    flops: float  # 6 a parameter and token, attention left out, as in GPT-3's Table D.1
    mfu: float  # assumed
    seconds: float
    idle: float  # the share of a step that a stage of the pipeline waits; the MFU is after it
    checkpoint_weight_bytes: int
    checkpoint_optimizer_bytes: int

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain = dataclasses.asdict(self)
        for choice, shown in zip([self.chosen, *self.others], [plain["chosen"], *plain["others"]], strict=True):
            shown["options"] = choice.options
            shown["free_bytes"] = self.usable_bytes - choice.memory.peak
        assumptions = {
            "mfu": self.mfu,
            "peak_flops_per_gpu": self.peak_flops,
            "usable_share_of_memory": USABLE,
            "network": "not considered",
            "memory": "by arithmetic; compared with runs on CPUs, not on GPUs",
        }
        return {**plain, "rule": RULE, "assumptions": assumptions}


def plan_cluster(name: str, config: GPTConfig, wishes: Wishes) -> ClusterPlan:
    """Return the plan of a run; raises BadValue with the reason and the numbers if no layout as wished fits."""
    gpu = GPUS[wishes.gpu]
    fitting = _fitting(config, wishes, gpu)
    if not fitting:
        raise BadValue(_refusal(name, config, wishes, gpu))
    chosen = fitting[0]
    others = [choice for choice in _fitting(config, _freed(wishes), gpu) if choice.layout != chosen.layout]
    n_model = n_parameters(config)
    flops = 6.0 * n_model * wishes.n_tokens
    weights, moments = checkpoint_bytes(config, wishes.optimizer)
    return ClusterPlan(
        name=name,
        n_parameters=n_model,
        n_gpus=wishes.n_gpus,
        gpu=wishes.gpu,
        memory_bytes=int(gpu.memory_gb * 1e9),
        usable_bytes=int(gpu.usable_bytes),
        peak_flops=gpu.peak_tflops * 1e12,
        chosen=chosen,
        others=others[:N_PROPOSED],
        n_tokens=wishes.n_tokens,
        batch_tokens=_n_rows(config, wishes) * config.n_ctx,
        n_steps=math.ceil(wishes.n_tokens / (_n_rows(config, wishes) * config.n_ctx)),
        flops=flops,
        mfu=wishes.mfu,
        seconds=flops / (wishes.n_gpus * gpu.peak_tflops * 1e12 * wishes.mfu),
        idle=(chosen.layout.pp - 1) / (chosen.work.n_micro + chosen.layout.pp - 1),
        checkpoint_weight_bytes=weights,
        checkpoint_optimizer_bytes=moments,
    )


def _n_rows(config: GPTConfig, wishes: Wishes) -> int:
    return max(1, round(wishes.batch_tokens / config.n_ctx))


def _work(config: GPTConfig, wishes: Wishes, layout: Layout, *, recompute: str) -> Work:
    return Work(
        micro_rows=wishes.micro_rows,
        n_micro=math.ceil(_n_rows(config, wishes) / (layout.n_data * wishes.micro_rows)),
        recompute=recompute,
        precision=wishes.precision,
        optimizer=wishes.optimizer,
    )


def _problem(config: GPTConfig, wishes: Wishes, layout: Layout) -> str | None:
    """Return why a layout cannot be, whatever the memory is."""
    rows, needed = _n_rows(config, wishes), layout.n_data * wishes.micro_rows
    if needed > rows:
        return (
            f"dp {layout.dp} x fsdp {layout.fsdp} read {needed:,} rows at once, {wishes.micro_rows} each, but a batch "
            f"of {wishes.batch_tokens:,} tokens has {rows:,}"
        )
    return why_not(layout, config)


def _candidates(config: GPTConfig, wishes: Wishes) -> Iterator[Choice]:
    """Yield every layout that can be, with its memory, least recomputation first."""
    possible = [
        layout for layout in layouts(wishes.n_gpus, given=wishes.sizes) if _problem(config, wishes, layout) is None
    ]
    for recompute in RECOMPUTE if wishes.recompute is None else (wishes.recompute,):
        for layout in possible:
            work = _work(config, wishes, layout, recompute=recompute)
            yield Choice(layout=layout, work=work, memory=footprint(config, layout, work))


def _fitting(config: GPTConfig, wishes: Wishes, gpu: Gpu) -> list[Choice]:
    """Return the layouts that fit, in the order of `RULE`; of several that differ in dp and fsdp alone the freest."""
    best: dict[tuple[int, int, int], Choice] = {}
    for choice in _candidates(config, wishes):
        layout = choice.layout
        key = (layout.tp, layout.pp, RECOMPUTE.index(choice.work.recompute))
        if choice.memory.peak <= gpu.usable_bytes and (key not in best or choice.memory.peak < best[key].memory.peak):
            best[key] = choice
    return [best[key] for key in sorted(best)]


def _refusal(name: str, config: GPTConfig, wishes: Wishes, gpu: Gpu) -> str:
    """Return one line: why nothing as wished can be, and what can."""
    given = wishes.sizes
    fixed = math.prod(given.values())
    said = " x ".join(f"{key} {size}" for key, size in given.items())
    if wishes.n_gpus % fixed or (given.keys() >= {*TRIED} and fixed != wishes.n_gpus):
        mismatch = f"{said} takes {fixed:,} GPUs or a multiple, but --gpus is {wishes.n_gpus:,}"
        return mismatch + (_proposals(config, wishes, gpu) or "; change one of them")
    considered = list(_candidates(config, wishes))
    if not considered:
        tried = {"fsdp": wishes.n_gpus // fixed, **given}  # as training takes what is left
        problem = next(_problem(config, wishes, layout) for layout in layouts(wishes.n_gpus, given=tried))
        instead = _proposals(config, wishes, gpu) or "; take fewer GPUs, or a larger --schedule.batch_tokens"
        return f"{name} cannot be divided over {wishes.n_gpus:,} GPUs so: {problem}{instead}"
    least = min(considered, key=lambda choice: choice.memory.peak)
    kinds = sorted(least.memory.kinds.items(), key=lambda item: -item[1])[:3]
    most = ", ".join(f"{kind} {in_bytes(n)}" for kind, n in kinds)
    return (
        f"{name} does not fit {wishes.n_gpus:,} x {wishes.gpu}: {least.layout.text} "
        f"with {WORDS[least.work.recompute]} needs {in_bytes(least.memory.peak)} a GPU "
        f"({most}), {in_bytes(gpu.usable_bytes)} are usable"
        f"{_proposals(config, wishes, gpu) or _with_more_gpus(config, wishes, gpu)}"
    )


def _proposals(config: GPTConfig, wishes: Wishes, gpu: Gpu) -> str:
    """Return layouts of as many GPUs that fit instead, with as little as can be of the wishes given up; or nothing."""
    for tried in (_freed(wishes), _freed(wishes, recompute=None), _freed(wishes, recompute=None, micro_rows=1)):
        if fitting := _fitting(config, tried, gpu):
            listed = "; ".join(f"{choice.options} ({in_bytes(choice.memory.peak)})" for choice in fitting[:N_PROPOSED])
            return f"; what fits ({RULE}): {listed}"
    return ""


def _with_more_gpus(config: GPTConfig, wishes: Wishes, gpu: Gpu) -> str:
    """Return from how many GPUs on a model that needs more memory fits, doubling their number; else another way out."""
    n = wishes.n_gpus
    while (n := 2 * n) <= min(64 * wishes.n_gpus, MAX_GPUS):
        tried = _freed(wishes, recompute=None, micro_rows=1, n_gpus=n)
        if fitting := _fitting(config, tried, gpu):
            return f"; on {n:,} GPUs it fits: {fitting[0].options} ({in_bytes(fitting[0].memory.peak)})"
    return "; take a GPU with more memory, or a smaller model"


def _freed(wishes: Wishes, **changed: Any) -> Wishes:
    """Return wishes for any layout, with other values `changed`."""
    anything: dict[str, Any] = dict.fromkeys(SIZES)
    return dataclasses.replace(wishes, **anything, **changed)
