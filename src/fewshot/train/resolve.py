"""From what a run was given to a whole configuration: what is not said is chosen here, and said why.

In: a partial mapping, the size of the text. Out: a `RunConfig`. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import cast, from_plain, lay_over, to_plain
from fewshot.base.errors import BadValue, UnknownName, check, look_up
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import count_parameters
from fewshot.model.presets import PRESETS, PUBLISHED, SPARSE_TRANSFORMERS
from fewshot.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from fewshot.train.data import DataConfig, Say
from fewshot.train.optim import OPTIMIZERS
from fewshot.train.recipes import optimizer_for, recipe_for, schedule_for
from fewshot.train.throughput import matmul_flops_per_second

SECTIONS = ("preset", "text", "n_tokens", "data", "model", "schedule", "optimizer", "loop")
SIZES = ("tiny-1m", "tiny-4m", "tiny-10m", "tiny-30m", "gpt3-small")  # what may be chosen where no model is named
TOKENS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022
MAX_EPOCHS = 4  # more passes over the same text gain little: Muennighoff et al. 2023
BUDGET_SECONDS = 6 * 60  # of training, where no length is given
EFFICIENCY = 0.5  # of the machine's matrix-product rate: tiny-1m on two quiet cores reached 0.55


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run needs, resolved."""

    preset: str | None
    data: DataConfig
    model: GPTConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    loop: LoopConfig

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
            raise UnknownName("key", str(key), SECTIONS)
    preset = cast(given.get("preset"), str | None, "preset")
    base = to_plain(look_up("preset", preset, PRESETS)) if preset else EXAMPLE
    from_plain(GPTConfig, lay_over(base, section(given, "model")), where="model")
    from_plain(LoopConfig, section(given, "loop"), where="loop")
    optimizer = from_plain(OptimizerConfig, section(given, "optimizer"), where="optimizer")
    look_up("optimizer", optimizer.name, OPTIMIZERS)
    length = cast(given.get("n_tokens"), int | None, "n_tokens")
    check(length is None or length >= 1, f"n_tokens is {length}, must be at least 1")


def data_config(given: Mapping[str, Any]) -> DataConfig:
    """The `data` section; `text` is short for one source. A Sparse Transformer reads bytes unless it is told not to."""
    plain = dict(section(given, "data"))
    if given.get("text"):
        text = cast([given["text"]] if isinstance(given["text"], str) else given["text"], tuple[str, ...], "text")
        plain["sources"] = [{"name": "text", "text": list(text)}]
    if given.get("preset") in SPARSE_TRANSFORMERS:
        plain.setdefault("tokenizer", "bytes")
    return from_plain(DataConfig, plain, where="data")


def wanted_vocab(given: Mapping[str, Any]) -> int | None:
    """The vocabulary that the model asks a new tokenizer for: an explicit one, or that of a published model."""
    preset = given.get("preset")
    explicit = cast(section(given, "model").get("n_vocab"), int | None, "model.n_vocab")
    return explicit or (PUBLISHED[preset].n_vocab if preset in PUBLISHED else None)


def resolve(
    given: Mapping[str, Any], data: DataConfig, *, n_vocab: int, n_text_tokens: int, device: str, say: Say
) -> RunConfig:
    """The whole configuration; `say` is told what was chosen."""
    preset, shape = given.get("preset"), section(given, "model")
    if preset is None and "n_layers" not in shape:
        preset = _choose_preset(n_text_tokens, device, say)
    base = to_plain(PRESETS[preset]) if preset else {}
    model = from_plain(GPTConfig, lay_over({**base, "n_vocab": n_vocab}, shape), where="model")
    if model.n_vocab < n_vocab:
        raise BadValue(f"model.n_vocab is {model.n_vocab}, below the tokenizer's {n_vocab}: leave it out")
    n_parameters = count_parameters(model)["total"]
    length = cast(section(given, "schedule").get("n_tokens", given.get("n_tokens")), int | None, "n_tokens")
    n_tokens = length or _choose_length(n_parameters, n_text_tokens, device, say)
    recipe = recipe_for(preset, n_parameters)
    schedule = to_plain(schedule_for(recipe, n_tokens=n_tokens, n_ctx=model.n_ctx))
    optimizer = to_plain(optimizer_for(recipe, name="adamw" if preset in PUBLISHED else "muon"))
    config = RunConfig(
        preset=preset,
        data=data,
        model=model,
        schedule=from_plain(ScheduleConfig, lay_over(schedule, section(given, "schedule")), where="schedule"),
        optimizer=from_plain(OptimizerConfig, lay_over(optimizer, section(given, "optimizer")), where="optimizer"),
        loop=from_plain(LoopConfig, section(given, "loop"), where="loop"),
    )
    say(f"model: {preset or 'as configured'}, {n_parameters:,} parameters, {model.n_layers} layers, {model.pattern}")
    say(
        f"training: {config.schedule.n_tokens:,} tokens in batches of {config.schedule.batch_tokens:,}, "
        f"{config.optimizer.summary}"
    )
    return config


def section(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a partial configuration; anything but keys and values raises BadValue."""
    section = given.get(name, {})
    if not isinstance(section, Mapping):
        raise BadValue(f"{name} must hold keys and values, found {section!r}")
    return section


def _budget_flops(device: str) -> float:
    return matmul_flops_per_second(device) * EFFICIENCY * BUDGET_SECONDS


def _choose_preset(n_text_tokens: int, device: str, say: Say) -> str:
    """The largest size whose compute-optimal training fits the text and six minutes on this machine."""
    by_time = (_budget_flops(device) / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    most = min(by_time, MAX_EPOCHS * n_text_tokens / TOKENS_PER_PARAMETER)
    fitting = [name for name in SIZES if count_parameters(PRESETS[name])["total"] <= most]
    preset = fitting[-1] if fitting else SIZES[0]
    say(f"size: {preset}, by {n_text_tokens:,} tokens of text and six minutes on this machine (--preset NAME)")
    return preset


def _choose_length(n_parameters: int, n_text_tokens: int, device: str, say: Say) -> int:
    """Tokens to train on: 20 a parameter, at most 4 passes over the text and six minutes."""
    limits = {
        f"{TOKENS_PER_PARAMETER} tokens a parameter": TOKENS_PER_PARAMETER * n_parameters,
        f"{MAX_EPOCHS} passes over the text": MAX_EPOCHS * n_text_tokens,
        f"about {BUDGET_SECONDS // 60} minutes on this machine": int(_budget_flops(device) / (6 * n_parameters)),
    }
    why = min(limits, key=lambda name: limits[name])
    say(f"length: {limits[why]:,} tokens = {why} (--n_tokens N)")
    return limits[why]
