"""GPT-3 as software that people can use: raw text in, a trained few-shot learner out.

    import fewshot
    run = fewshot.load("out/books")
    print(run.generate("Once upon a time", max_tokens=40))

The names of `FACE` are here for those who write Python; each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

FACE = {  # name: the module that defines it
    "FewshotError": "fewshot.base.errors",
    "GPT": "fewshot.model.gpt",
    "GPTConfig": "fewshot.model.config",
    "PRESETS": "fewshot.model.presets",
    "Request": "fewshot.generate.request",
    "Run": "fewshot.face.run",
    "Sampling": "fewshot.generate.sampling",
    "complete": "fewshot.generate.complete",
    "complete_requests": "fewshot.generate.complete",
    "load": "fewshot.face.run",
    "load_run": "fewshot.checkpoint.load",
    "load_tokenizer": "fewshot.tokenizer.load",
    "make_task": "fewshot.evaluate.tasks.table",
    "parse": "fewshot.patterns.schedule",
    "resume": "fewshot.train.run",
    "start": "fewshot.train.run",
    "stream": "fewshot.generate.complete",
    "train_on": "fewshot.face.run",
}


def __getattr__(name: str) -> Any:
    """Return the object called `name`, imported now."""
    if name not in FACE:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}; it has: {', '.join(FACE)}")
    return getattr(importlib.import_module(FACE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *FACE])
