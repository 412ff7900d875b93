"""`torch.compile` of one block, shared by all layers: a deep model compiles as fast as a shallow one."""

from __future__ import annotations

import torch

from fewshot.model.gpt import GPT


def compile_blocks(model: GPT) -> None:
    """Compile every block in place. Blocks with the same pattern share one compiled graph."""
    schedule = model.config.schedule()
    n_patterns = len({schedule.for_layer(i) for i in range(model.config.n_layers)})
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * n_patterns)
    for block in model.h:
        block.compile(dynamic=False)
