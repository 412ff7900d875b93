"""Attention on a GPU: check the kernels against the reference, then time them in turns with torch's dense ones.

    PYTHONPATH=src python benchmarks/gpu_attention.py --out benchmarks/results/gpu_attention.json

Forward and backward in bfloat16, 65536 tokens and 2048 columns whatever the length and the head width. A pattern's
limit is the rate of FLOP that dense flash attention reaches in the same rounds, spent on the pairs that it allows.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewshot.kernels import flex, reference, triton
from fewshot.kernels.interface import Requirements
from fewshot.patterns.intervals import pairs_in_blocks
from fewshot.patterns.pattern import Dense, Pattern
from fewshot.patterns.schedule import parse

OURS = {"triton": triton, "flex": flex}
CHECKED = parse(
    "alternate(dense, banded(1), banded(100), strided(7), fixed(128, 8), columns(60, 20, 1) | strided(64) | banded(2), "
    "perhead(banded(150) | strided(130), fixed(64, 8), dense))"
).patterns
TIMED = parse("alternate(dense, banded(256), strided(128), fixed(128, 8), banded(256) | strided(256))").patterns
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
TOKENS, COLUMNS = 65536, 2048
FLOP = 4 * 3.5  # a pair and a column of a head: two products forward, five backward, of two operations each
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(B: int, H: int, n: int, K: int, dtype: torch.dtype, *, n_queries: int | None = None) -> list[Tensor]:
    """Return q, k and v, laid out in memory as a model's: positions before heads."""
    made = (torch.randn(B, m, H, K, device="cuda", dtype=dtype) for m in (n_queries or n, n, n))
    return [x.transpose(1, 2).requires_grad_() for x in made]


def with_gradients(run: Run, qkv: list[Tensor], grad: Tensor) -> list[Tensor]:
    out = run(*qkv)
    return [out, *torch.autograd.grad(out, qkv, grad)]


def problem_of(kernel: Any, pattern: Pattern, dtype: torch.dtype, n: int) -> str | None:
    return kernel.supports(Requirements(pattern, "cuda", dtype, n, n, documents=True, dropout=0.0, training=True))


def attempt(what: Callable[[], Any]) -> Any:
    """Return what it gives, or the error as text: one failure must not cost a whole session on a lent machine."""
    try:
        return what()
    except Exception as error:  # noqa: BLE001 compilers raise what they like; it is reported, not hidden
        return f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"


def largest_error(kernel: Any, pattern: Pattern, dtype: torch.dtype, K: int, n: int, q_start: int, docs: bool) -> float:
    """Return the error of result and gradients, relative to the largest number; the reference is in float32."""
    torch.manual_seed(0)
    qkv = inputs(2, 3, n, K, dtype, n_queries=n - q_start)
    documents = torch.stack([torch.arange(n) // 90, torch.arange(n) // 333]).cuda() if docs else None
    how: dict[str, Any] = {"q_start": q_start, "documents": documents}
    grad = torch.randn_like(qkv[0])
    exact = [x.detach().float().requires_grad_() for x in qkv]
    got = with_gradients(lambda q, k, v: kernel.attend(q, k, v, pattern, **how), qkv, grad)
    expected = with_gradients(lambda q, k, v: reference.attend(q, k, v, pattern, **how), exact, grad.float())
    errors = [
        (actual.detach().float() - right.detach()).abs().max().item() / max(1.0, right.detach().abs().max().item())
        for actual, right in zip(got, expected, strict=True)
    ]
    return max(errors)


def check_all() -> list[dict[str, Any]]:
    """Check each kernel over patterns, types, head widths, lengths, offsets and documents; return a row each."""
    shapes = [(64, 1000, 0, False), (128, 513, 0, True), (80, 700, 300, False)]
    rows = []
    for name, kernel in OURS.items():
        for pattern in CHECKED:
            for dtype in (torch.bfloat16, torch.float16, torch.float32) if name == "triton" else (torch.bfloat16,):
                for K, n, q_start, docs in shapes:
                    error = problem_of(kernel, pattern, dtype, n) or attempt(
                        functools.partial(largest_error, kernel, pattern, dtype, K, n, q_start, docs)
                    )
                    good = isinstance(error, float) and error <= TOLERANCE[dtype]
                    case = {"kernel": name, "pattern": str(pattern), "dtype": str(dtype), "d_head": K, "n": n}
                    rows.append({**case, "q_start": q_start, "documents": docs, "error": error, "good": good})
                    if not good:
                        print("WRONG", rows[-1], flush=True)
    print(f"checked: {sum(row['good'] for row in rows)} of {len(rows)} good", flush=True)
    return rows


def dense_by(backend: SDPBackend) -> Run:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return run


def contenders(n: int) -> dict[str, tuple[Run, Pattern]]:
    """Return, by name, what is timed, and the pattern that it computes."""
    runs: dict[str, tuple[Run, Pattern]] = {
        "flash dense": (dense_by(SDPBackend.FLASH_ATTENTION), Dense()),
        "cudnn dense": (dense_by(SDPBackend.CUDNN_ATTENTION), Dense()),
    }
    for pattern in TIMED:
        for name, kernel in OURS.items():
            if problem_of(kernel, pattern, torch.bfloat16, n) is None:
                runs[f"{name} {pattern}"] = (functools.partial(kernel.attend, pattern=pattern), pattern)
    return runs


def milliseconds(run: Run, qkv: list[Tensor], grad: Tensor) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    with_gradients(run, qkv, grad)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def time_all(K: int, n: int, rounds: int) -> list[dict[str, Any]]:
    """Return medians over rounds in which every contender has one turn."""
    B, H = max(1, TOKENS // n), COLUMNS // K
    torch.manual_seed(0)
    qkv = inputs(B, H, n, K, torch.bfloat16)
    grad = torch.randn_like(qkv[0])
    racing = contenders(n)
    warm = {
        name: attempt(lambda run=run: [milliseconds(run, qkv, grad) for _ in range(3)])
        for name, (run, _) in racing.items()
    }
    failed = {name: outcome for name, outcome in warm.items() if isinstance(outcome, str)}
    times: dict[str, list[float]] = {name: [] for name in warm if name not in failed}
    for _ in range(rounds):
        for name in times:
            times[name].append(milliseconds(racing[name][0], qkv, grad))
    pairs = {str(pattern): int(pairs_in_blocks(pattern, n, n, 128).sum()) for _, pattern in racing.values()}
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    flash = medians.get("flash dense")
    rows = []
    for name, (_, pattern) in racing.items():
        row: dict[str, Any] = {"name": name, "d_head": K, "n": n, "pairs": pairs[str(pattern)]}
        if name in medians:
            row |= {"ms": medians[name], "ms_least": min(times[name]), "ms_most": max(times[name])}
            row["tflops"] = FLOP * row["pairs"] * K * B * H / medians[name] / 1e9
            row["fraction_of_limit"] = flash and flash * row["pairs"] / pairs["dense"] / medians[name]
        rows.append(row | ({"problem": failed[name]} if name in failed else {}))
        print(
            {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True
        )
    return rows


def hardware() -> dict[str, Any]:
    """Return the GPU and the versions; fewshot itself need not be installed."""
    device = torch.cuda.get_device_properties(0)
    about = {
        "gpu": device.name,
        "memory_bytes": device.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    return about | {name: attempt(functools.partial(version, name)) for name in ("torch", "triton", "numpy")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--n", type=int, nargs="+", default=[2048, 4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--d-head", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "rows": [],
    }
    result["checks"] = check_all()
    torch.compiler.reset()  # the graphs of the checks count against a limit
    for K in given.d_head:
        for n in given.n:
            result["rows"] += time_all(K, n, given.rounds)
            given.out.write_text(json.dumps(result, indent=1) + "\n")  # kept if a later one is cut off


if __name__ == "__main__":
    main()
