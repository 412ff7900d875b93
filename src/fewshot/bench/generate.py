"""Tokens a second of the engine beside the rate at which its weights can be read, and beside transformers' `generate`.

The model has GPT-2 small's shape, 2,048 positions and random weights: speed does not depend on them. Sides take turns.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fewshot.base.rng import numpy_rng
from fewshot.bench.harness import random_gpt2
from fewshot.bench.timing import in_turns
from fewshot.generate.engine import Engine
from fewshot.generate.request import Request
from fewshot.generate.sampling import GREEDY
from fewshot.kernels.invariant.linear import WEIGHT_TYPES
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.vocab import Tokenizer

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "n_ctx": 2048, "n_vocab": 50257}
PATTERNS = ("dense", "alternate(dense, banded(256))")
N_PROMPT, N_WRITTEN, N_STREAMS, N_PREFIX = 32, 48, 16, 1500
READ_BYTES = 1 << 28


class _Dots(Tokenizer):
    """Every id is a dot, none ends a text: each completion has all its tokens."""

    def __init__(self, n_vocab: int, eot: int = -1) -> None:
        self.n_vocab, self.eot = n_vocab, eot

    def encode_to_numpy(self, text: str) -> np.ndarray:
        raise NotImplementedError

    def to_json(self) -> str:
        raise NotImplementedError

    def _join(self, ids: list[int]) -> bytes:
        return b"." * len(ids)


def measure(*, rounds: int, say: Callable[[str], None], shape: dict[str, Any] = SHAPE) -> dict[str, Any]:
    """Return tokens a second of one and of many streams in each type, the gaps beside a long prompt, and prefixes."""
    engines = {}
    for pattern in PATTERNS:
        model = GPT(GPTConfig(**shape, pattern=pattern), seed=0).eval()
        for weight_type in WEIGHT_TYPES if pattern == "dense" else ["bfloat16"]:
            packed = PackedGPT(model, weight_type)
            engines[pattern, weight_type] = Engine(packed, _Dots(shape["n_vocab"]), cache_bytes=2 << 30)
    result = {
        "model": "GPT-2 small in shape, n_ctx 2048, random weights",
        "streams": _streams({kind: engines["dense", kind] for kind in WEIGHT_TYPES}, shape, rounds=rounds, say=say),
        "gaps": _gaps(engines["dense", "bfloat16"], say=say),
        "prefix": {pattern: _prefix(engines[pattern, "bfloat16"], rounds=rounds, say=say) for pattern in PATTERNS},
    }
    dense, banded = (engines[pattern, "bfloat16"].cache for pattern in PATTERNS)
    whole = [cache.bytes_of_text(shape["n_ctx"], n_new=1) for cache in (dense, banded)]
    result["memory"] = {"dense_bytes": whole[0], "banded_bytes": whole[1], "texts_in_a_budget": whole[0] / whole[1]}
    return result


def _prompts(n: int, length: int, name: str) -> list[list[int]]:
    return numpy_rng("bench generate", name).integers(50, 250, (n, length)).tolist()


def _write(engine: Engine, prompts: Sequence[Sequence[int]], n: int) -> list[float]:
    """Complete the prompts and return when each token came, from the first one of the last prompt on.

    One prompt is read in a step; those that begin sooner write more, so that all end together.
    """
    for place, prompt in enumerate(prompts):
        engine.submit(Request(prompt=prompt, max_tokens=n + len(prompts) - place, sampling=GREEDY))
    ends, n_begun = [], set()
    while engine.busy:
        grown = engine.step()
        n_begun |= {number for number, _ in grown}
        if len(n_begun) == len(prompts):
            ends += [time.perf_counter()] * len(grown)
    return ends


def _rate(ends: Sequence[float], n_streams: int) -> float:
    """Return tokens a second, between the first token of all streams and the last."""
    return (len(ends) - n_streams) / (ends[-1] - ends[0])


def _streams(
    engines: dict[str, Engine], shape: dict[str, Any], *, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return a row for each type and number of streams."""
    numbers = torch.zeros(READ_BYTES // 4)
    bandwidth: list[float] = []
    rates: dict[tuple[str, int], list[float]] = {}
    library = _library(shape)
    prompt = _prompts(1, N_PROMPT, "one")
    for number in range(rounds + 1):
        began = time.perf_counter()
        numbers.sum()
        bandwidth.append(READ_BYTES / (time.perf_counter() - began))
        for kind, engine in engines.items():
            for n_streams in (1, N_STREAMS):
                prompts = prompt if n_streams == 1 else _prompts(n_streams, N_PROMPT, "many")
                rate = _rate(_write(engine, prompts, N_WRITTEN), n_streams)
                rates.setdefault((kind, n_streams), []).append(rate)
        rates.setdefault(("transformers float32", 1), []).append(library(prompt))
        if number == 0:
            bandwidth.clear()
            rates.clear()
    peer = statistics.median(rates["transformers float32", 1])
    rows = []
    for (kind, n_streams), seen in rates.items():
        row: dict[str, Any] = {"type": kind, "streams": n_streams, "tokens_per_second": statistics.median(seen)}
        row["times_transformers_one_by_one"] = row["tokens_per_second"] / peer
        if kind in engines:
            n_bytes = engines[kind].model.n_bytes
            row["weight_bytes"] = n_bytes
            row["share_of_read_limit"] = row["tokens_per_second"] / n_streams * n_bytes / statistics.median(bandwidth)
        say(f"{kind}, {n_streams} streams: {row['tokens_per_second']:.1f} tokens/s")
        rows.append(row)
    say(f"memory is read at {statistics.median(bandwidth) / 1e9:.1f} GB/s")
    return rows


def _library(shape: dict[str, Any]) -> Callable[[Sequence[Sequence[int]]], float]:
    """Return what completes a prompt with transformers' `generate`, and tells its tokens a second."""
    tokenizer = _Dots(shape["n_vocab"], eot=0)  # which `generate` does not write before it may end
    names = {"n_embd": shape["d_model"], "n_layer": shape["n_layers"], "n_head": shape["n_heads"]}
    model = random_gpt2(tokenizer, n_ctx=shape["n_ctx"], init=0.02, **names)

    def run(prompts: Sequence[Sequence[int]]) -> float:
        ids = torch.tensor(prompts)
        times = []
        for n in (1, N_WRITTEN):
            began = time.perf_counter()
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
            times.append(time.perf_counter() - began)
        return (N_WRITTEN - 1) / (times[1] - times[0])

    return run


def _gaps(engine: Engine, *, say: Callable[[str], None]) -> dict[str, float]:
    """Return the longest gaps between tokens of running streams while a cold prompt is read, and the median before."""
    running = [
        engine.submit(Request(prompt=prompt, max_tokens=200, sampling=GREEDY))
        for prompt in _prompts(N_STREAMS - 1, N_PROMPT, "gaps")
    ]
    ends = [time.perf_counter()]
    for number in range(120):
        if number == 60:
            engine.submit(Request(prompt=_prompts(1, N_PREFIX, "cold")[0], max_tokens=1, sampling=GREEDY))
        engine.step()
        ends.append(time.perf_counter())
    for request in running:
        engine.cancel(request)
    gaps = [end - start for start, end in itertools.pairwise(ends)]
    median, beside = statistics.median(gaps[20:60]), sorted(gaps[60:])
    p99 = beside[int(0.99 * (len(beside) - 1))]
    say(f"gaps between tokens: median {1000 * median:.1f} ms, p99 {1000 * p99:.1f} ms beside a cold prompt")
    return {"median_seconds": median, "p99_seconds": p99, "ratio": p99 / median}


def _prefix(engine: Engine, *, rounds: int, say: Callable[[str], None]) -> dict[str, float]:
    """Return the seconds to the first token behind a long prefix, cold and cached, and of many questions on it."""
    numbers = iter(range(10**6))

    def cold() -> list[int]:
        return _prompts(1, N_PREFIX, f"prefix {next(numbers)}")[0]

    def ask(prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            engine.submit(Request(prompt=prompt, max_tokens=1, sampling=GREEDY))
        while engine.busy:
            engine.step()

    kept = cold()
    ask([[*kept, 1]])
    seconds = in_turns(
        {
            "cold": lambda: ask([cold()]),
            "cached": lambda: ask([[*kept, 1 + next(numbers) % 40, 7]]),
            "questions": lambda: ask([[*prefix, i + 1, 9, 8, 7] for prefix in [cold()] for i in range(16)]),
        },
        rounds=rounds,
    )
    result = {
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "cached_times_sooner": seconds["cold"] / seconds["cached"],
        "questions_times_faster_than_cold": 16 * seconds["cold"] / seconds["questions"],
    }
    say(
        f"behind {N_PREFIX} tokens: first token {seconds['cold']:.2f} s cold, {seconds['cached']:.3f} s cached; "
        f"16 questions {seconds['questions']:.2f} s"
    )
    return result
