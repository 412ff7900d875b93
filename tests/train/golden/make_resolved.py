"""Write resolved.json: what each run of runs/ and the demo resolve to, so that a new rule cannot change an old run.

python tests/train/golden/make_resolved.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot.base.config import read_yaml, to_plain
from fewshot.base.files import write_json
from fewshot.demo.recipe import configuration
from fewshot.train.resolving.resolve import check_sections, data_config, resolve

HERE = Path(__file__).parent
RUNS = HERE.parents[2] / "runs"
MODEL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 32}
TYPED: dict[str, dict[str, Any]] = {  # as a user gives them, every size of the schedule left to the program
    "preset": {"preset": "tiny-4m", "n_tokens": 2_000_000},
    "published preset": {"preset": "gpt3-2.7b", "n_tokens": 5e9, "optimizer": {"lr": "1e-4"}},
    "sparse preset": {"preset": "st-cifar10", "n_tokens": 17_694_720_000},
    "shape": {"model": MODEL, "n_tokens": 6400, "data": {"tokenizer": "chars"}},
    "shape over preset": {"preset": "tiny-1m", "model": {"n_layers": 6}, "n_tokens": 100_000},
    "batch": {"model": MODEL, "n_tokens": 6400, "schedule": {"batch_tokens": 64}},
}


def resolved() -> dict[str, Any]:
    """The configurations by name, for 66 entries in the vocabulary and a million tokens of text."""
    runs = {path.stem: read_yaml(path) for path in sorted(RUNS.glob("*.yaml")) if not path.stem.startswith("meta_")}
    given = {**runs, "demo": configuration(Path("texts")), **TYPED}
    return {name: _resolved(one) for name, one in given.items()}


def _resolved(given: dict[str, Any]) -> dict[str, Any]:
    if "sources" not in given.get("data", {}):
        given = {**given, "text": ["a.txt"]}
    check_sections(given)
    data = data_config(given)
    return to_plain(resolve(given, data, n_vocab=66, n_text_tokens=10**6, device="cpu", say=lambda line: None))


if __name__ == "__main__":
    write_json(HERE / "resolved.json", resolved())
