"""Patterns as names and numbers, for programs that do not know ours: what each head of each layer reads."""

from __future__ import annotations

import dataclasses

from fewshot.base.errors import BadValue
from fewshot.model.config import GPTConfig
from fewshot.patterns.pattern import PATTERNS, SIMPLE

Part = list[str | int]  # the name of a simple pattern and its numbers, such as ["banded", 8]
Layers = list[list[list[Part]]]  # by layer, then by head (fewer than there are: cycled): it reads what any part allows


def plain_layers(config: GPTConfig) -> Layers:
    """Return what every head of every layer reads; raises BadValue for a pattern of a kind that others do not know."""
    names = {kind: name for name, kind in PATTERNS.items()}
    schedule = config.schedule()
    layers: Layers = []
    for i in range(config.n_layers):
        heads = schedule.for_layer(i).for_heads(config.n_heads)
        for part in (part for head in heads for part in head.parts if type(part) not in SIMPLE):
            raise BadValue(f"this model cannot be converted: the pattern {part.text} is known to fewshot alone")
        layers.append([[[names[type(part)], *_numbers(part)] for part in head.parts] for head in heads])
    return layers


def _numbers(part: object) -> list[int]:
    return [getattr(part, field.name) for field in dataclasses.fields(part)]  # type: ignore[arg-type]
