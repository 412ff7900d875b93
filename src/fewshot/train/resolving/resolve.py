"""From a partial configuration to a whole one: what the user does not give is chosen here, and the reason is printed.

In: a partial mapping, the size of the text. Out: a `RunConfig`. Knows nothing of files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import cast, from_plain, lay_over, to_plain
from fewshot.base.errors import BadValue, UnknownName, check, look_up
from fewshot.dataset.prepare import DataConfig, Say
from fewshot.kernels.choose import KERNELS
from fewshot.model.config import GPTConfig
from fewshot.model.machine import matmul_flops_per_second
from fewshot.model.plan import n_parameters
from fewshot.model.presets import PRESETS, PUBLISHED, SPARSE_TRANSFORMERS
from fewshot.tokenizer.bpe import check_size
from fewshot.train.config import LoopConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from fewshot.train.optim import OPTIMIZERS
from fewshot.train.resolving.overrides import MODEL_SIZES, SPELLINGS, at_home, one_spelling, paths, section
from fewshot.train.resolving.recipes import Recipe, optimizer_for, recipe_for, schedule_for
from fewshot.train.schedule import about_clocks, whole_rows

SECTIONS = ("preset", "start", *SPELLINGS, "data", "model", "schedule", "optimizer", "loop", "parallel", "yes")
KINDS: dict[str, Any] = {
    "data": DataConfig,
    "model": GPTConfig,
    "schedule": ScheduleConfig,
    "optimizer": OptimizerConfig,
    "loop": LoopConfig,
    "parallel": ParallelConfig,
}
SIZES = ("tiny-1m", "tiny-4m", "tiny-10m", "tiny-30m", "gpt3-small")  # what may be chosen where no model is named
TOKENS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022
MAX_EPOCHS = 4  # more passes over the same text gain little: Muennighoff et al. 2023
BUDGET_SECONDS = 6 * 60  # of training, where no length is given
EFFICIENCY = 0.5  # of the machine's matrix-product rate: tiny-1m on two quiet cores reached 0.55


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run needs, resolved."""

    preset: str | None
    start: str | None = None  # the model that it began with, if its weights are not random: a run, or hf:PATH
    data: DataConfig
    model: GPTConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    loop: LoopConfig
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        alike = self.model.qk_width == self.model.head_width
        check(
            alike or self.optimizer.name != "normuon",
            f"normuon cuts query, key and value into three equal parts, but d_qk is {self.model.qk_width} and d_head "
            f"{self.model.head_width}: take muon or adamw",
        )


EXAMPLE = {"n_layers": 1, "d_model": 128, "n_heads": 1}  # stands for the sizes that are chosen later


def check_sections(given: Mapping[str, Any]) -> None:
    """Raise for an unknown section, preset or optimizer, before any text is read."""
    for key in given:
        if key not in SECTIONS:
            owner = next((name for name, kind in KINDS.items() if key in kind.__dataclass_fields__), None)
            check(owner is None, f"{key} is a field of {owner}: give --{owner}.{key}, or put it into that section")
            raise UnknownName("key", str(key), SECTIONS)
    given = one_spelling(given)
    preset = cast(given.get("preset"), str | None, "preset")
    shape = section(given, "model")
    missing = [name for name in MODEL_SIZES if name not in shape]
    check(
        bool(preset) or "n_layers" not in shape or not missing,
        f"model gives n_layers and lacks {', '.join(missing)}: give all of {', '.join(MODEL_SIZES)}, or a --preset of "
        "'fewshot plan all' that has them",
    )
    base = to_plain(look_up("preset", preset, PRESETS)) if preset else EXAMPLE
    from_plain(GPTConfig, lay_over(base, shape), where="model")
    loop = from_plain(LoopConfig, section(given, "loop"), where="loop")
    for kernel in loop.kernel.values() if isinstance(loop.kernel, dict) else [loop.kernel]:
        look_up("kernel", str(kernel), {"auto": None, **KERNELS})
    optimizer = from_plain(OptimizerConfig, section(given, "optimizer"), where="optimizer")
    look_up("optimizer", optimizer.name, OPTIMIZERS)
    _length(given)
    cast(given.get("yes", False), bool, "yes")


def data_config(given: Mapping[str, Any]) -> DataConfig:
    """Return the `data` section, in which `text` is short for one source.

    The presets of Sparse Transformers read bytes if no tokenizer is given.
    """
    plain = dict(section(one_spelling(given), "data"))
    if given.get("preset") in SPARSE_TRANSFORMERS:
        plain.setdefault("tokenizer", "bytes")
    data = from_plain(DataConfig, plain, where="data")
    check(
        data.n_vocab is None or data.tokenizer == "bpe",
        f"data.n_vocab is {data.n_vocab}, but data.tokenizer {data.tokenizer} has its own size: leave one of them out",
    )
    if data.n_vocab is not None:
        check_size(data.n_vocab)
    for source in data.sources:  # strict for new runs; older ones may have other names
        check(
            re.fullmatch(r"[\w-]{1,100}", source.name) is not None,
            f"the source name {source.name!r} is not allowed, as it becomes a file name: use letters, digits, - and _",
        )
    sources = tuple(dataclasses.replace(source, text=tuple(paths(source.text, "text"))) for source in data.sources)
    return dataclasses.replace(data, sources=sources, tokenizer=at_home(data.tokenizer))


def wanted_vocab(given: Mapping[str, Any]) -> int | None:
    """Return the vocabulary size for a new tokenizer: the given one, or that of a published model; else None."""
    preset = given.get("preset")
    explicit = cast(section(given, "model").get("n_vocab"), int | None, "model.n_vocab")
    return explicit or (PUBLISHED[preset].n_vocab if preset in PUBLISHED else None)


def resolve(
    given: Mapping[str, Any], data: DataConfig, *, n_vocab: int, n_text_tokens: int, device: str, say: Say
) -> RunConfig:
    """Return the whole configuration; `say` is told what was chosen, and which given values do not fit together."""
    given = one_spelling(given)
    preset, shape = given.get("preset"), section(given, "model")
    if preset is None and "n_layers" not in shape:
        preset = _choose_preset(n_text_tokens, device, say)
    base = to_plain(PRESETS[preset]) if preset else {}
    model = from_plain(GPTConfig, lay_over({**base, "n_vocab": n_vocab}, shape), where="model")
    if model.n_vocab < n_vocab:
        raise BadValue(f"model.n_vocab is {model.n_vocab}, below the tokenizer's {n_vocab}: leave it out")
    if preset and not _is_of(model, preset, shape):
        say(f"model: no longer {preset}, because other {', '.join(MODEL_SIZES)} are given")
        preset = None
    n_model = n_parameters(model)
    n_tokens = _length(given) or _choose_length(n_model, n_text_tokens, device, say)
    recipe = recipe_for(preset, n_model)
    optimizer = to_plain(optimizer_for(recipe, name="adamw" if preset in PUBLISHED else "muon"))
    config = RunConfig(
        preset=preset,
        start=given.get("start"),
        data=data,
        model=model,
        schedule=_schedule(section(given, "schedule"), recipe, n_tokens=n_tokens, n_ctx=model.n_ctx, say=say),
        optimizer=from_plain(OptimizerConfig, lay_over(optimizer, section(given, "optimizer")), where="optimizer"),
        loop=from_plain(LoopConfig, section(given, "loop"), where="loop"),
        parallel=from_plain(ParallelConfig, section(given, "parallel"), where="parallel"),
    )
    say(f"model: {_name_of(model, preset)}; {n_model:,} parameters, {model.n_layers} layers, attention {model.pattern}")
    say(
        f"training: {config.schedule.n_tokens:,} tokens in batches of {config.schedule.batch_tokens:,}; "
        f"optimizer {config.optimizer.summary}"
    )
    return config


def _length(given: Mapping[str, Any]) -> int | None:
    length = cast(section(given, "schedule").get("n_tokens"), int | None, "n_tokens")
    check(length is None or length >= 1, f"n_tokens is {length}, must be at least 1")
    return length


def _is_of(model: GPTConfig, preset: str, shape: Mapping[str, Any]) -> bool:
    """Return whether a model still counts as the preset: not if all its sizes are given and differ."""
    as_published = all(getattr(model, name) == getattr(PRESETS[preset], name) for name in MODEL_SIZES)
    return as_published or any(name not in shape for name in MODEL_SIZES)


def _name_of(model: GPTConfig, preset: str | None) -> str:
    """Return the preset and what differs from it, such as "tiny-1m with n_layers 6"."""
    if preset is None:
        return "as configured"
    published = {**to_plain(PRESETS[preset]), "n_vocab": model.n_vocab}  # which follows the tokenizer
    changed = [f"{key} {value}" for key, value in to_plain(model).items() if value != published[key]]
    return f"{preset} with {', '.join(changed)}" if changed else preset


def _schedule(given: Mapping[str, Any], recipe: Recipe, *, n_tokens: int, n_ctx: int, say: Say) -> ScheduleConfig:
    """Return the schedule that is run: values that are not given follow those that are; batches are whole rows."""
    known = {
        key: cast(value, int, f"schedule.{key}")
        for key, value in given.items()
        if key in ("batch_tokens", "batch_start_tokens", "warmup_tokens", "decay_tokens")
    }
    chosen = to_plain(schedule_for(recipe, n_tokens=n_tokens, n_ctx=n_ctx, given=known))
    schedule = from_plain(ScheduleConfig, lay_over(chosen, {**given, "n_tokens": n_tokens}), where="schedule")
    for line in about_clocks(schedule, n_ctx=n_ctx):
        say(line)
    batch, start = (whole_rows(n, n_ctx) * n_ctx for n in (schedule.batch_tokens, schedule.batch_start_tokens))
    for name, done, wanted in (
        ("batch_tokens", batch, schedule.batch_tokens),
        ("batch_start_tokens", start, schedule.batch_start_tokens),
    ):
        if done != wanted:
            say(f"schedule: {name} {done:,} in whole rows, because {wanted:,} is not a multiple of n_ctx {n_ctx:,}")
    return dataclasses.replace(schedule, batch_tokens=batch, batch_start_tokens=start)


def _budget_flops(device: str) -> float:
    return matmul_flops_per_second(device) * EFFICIENCY * BUDGET_SECONDS


def _choose_preset(n_text_tokens: int, device: str, say: Say) -> str:
    """Return the largest size whose compute-optimal training fits the text and six minutes on this machine."""
    by_time = (_budget_flops(device) / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    most = min(by_time, MAX_EPOCHS * n_text_tokens / TOKENS_PER_PARAMETER)
    fitting = [name for name in SIZES if n_parameters(PRESETS[name]) <= most]
    preset = fitting[-1] if fitting else SIZES[0]
    say(
        f"size: {preset}, chosen for {n_text_tokens:,} tokens of text and six minutes of training on this machine; "
        "to choose another: --preset NAME"
    )
    return preset


def _choose_length(n_model: int, n_text_tokens: int, device: str, say: Say) -> int:
    """Return how many tokens to train on: 20 a parameter, at most 4 passes over the text and six minutes."""
    limits = {
        f"{TOKENS_PER_PARAMETER} tokens per parameter": TOKENS_PER_PARAMETER * n_model,
        f"{MAX_EPOCHS} passes over the text": MAX_EPOCHS * n_text_tokens,
        f"about {BUDGET_SECONDS // 60} minutes on this machine": int(_budget_flops(device) / (6 * n_model)),
    }
    why = min(limits, key=lambda name: limits[name])
    say(f"length: {limits[why]:,} tokens, which is {why}; to choose another: --n_tokens N")
    return limits[why]
