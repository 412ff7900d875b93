"""Time sparse attention against dense, against itself at other lengths, and against what others offer.

Every ratio comes from one interleaved run. Peers are transformers' GPT-Neo, the local-attention package and torch's
FlexAttention (forward: on a CPU it has no backward).
"""

from __future__ import annotations

import gc
import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.base.errors import BadValue, check
from fewshot.bench.timing import in_turns
from fewshot.kernels.choose import Choice, choose, choose_for
from fewshot.kernels.compiler import compiler_problem
from fewshot.kernels.interface import Requirements
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device, requirements_of
from fewshot.patterns.layout import density
from fewshot.patterns.pattern import Banded, Dense, Fixed, Pattern, PerHead, Strided

N_HEADS, WIDTH = 8, 64
PATTERNS: tuple[Pattern, ...] = (
    Banded(256),
    PerHead(Banded(128), Strided(128)),
    Fixed(128, 8),
    Strided(128),
    Banded(128) | Strided(128),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Say = Callable[[str], None]


def _inputs(n: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Return q, k, v, which need gradients, and the gradient of the result: [1, 8, n, 64] each."""
    torch.manual_seed(n)
    tensors = [torch.randn(1, N_HEADS, n, WIDTH, dtype=dtype, device=device) for _ in range(4)]
    return [tensor.requires_grad_(number < 3) for number, tensor in enumerate(tensors)]


def _kernel(pattern: Pattern, n: int, dtype: torch.dtype, device: str, *, training: bool = True) -> Choice:
    requirements = Requirements(
        pattern=pattern,
        device=device,
        dtype=dtype,
        n_queries=n,
        n_keys=n,
        documents=False,
        dropout=0.0,
        training=training,
    )
    return choose("auto", requirements)


def _step(attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """Return what runs forward and backward."""
    q, k, v, grad = inputs
    return lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), grad)


def _training_step(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """Return what runs forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def _dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def against_dense(*, n: int, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Time each pattern against torch's dense causal attention, forward and backward; return a row for each.

    The limit is the number of causal pairs over the allowed ones: what a kernel would gain that runs at the speed of
    torch's dense one. A kernel that is faster than torch's on each pair goes beyond it.
    """
    device, rows = machine_device(), []
    for name, dtype in DTYPES.items():
        inputs = _inputs(n, dtype, device)
        sides: dict[str, Callable[[], object]] = {"torch dense": _step(_dense, inputs)}
        kernels = {pattern: _kernel(pattern, n, dtype, device) for pattern in (*PATTERNS, Dense())}
        for pattern, kernel in kernels.items():
            sides[pattern.text] = _step(partial(kernel.attend, pattern=pattern), inputs)
        seconds = in_turns(sides, rounds=rounds)
        for pattern, kernel in kernels.items():
            limit = 1 / density(pattern, n)
            ratio = seconds["torch dense"] / seconds[pattern.text]
            rows.append(
                {"pattern": pattern.text, "dtype": name, "n": n, "kernel": kernel.name,
                 "milliseconds": 1e3 * seconds[pattern.text], "dense_milliseconds": 1e3 * seconds["torch dense"],
                 "ratio": ratio, "flop_limit": limit, "fraction_of_limit": ratio / limit}
            )  # fmt: skip
            say(f"{name} {pattern}: {ratio:.1f} times torch's dense, {ratio / limit:.2f} of the FLOP limit {limit:.1f}")
    return rows


def growth(*, short: int, long: int, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Time patterns at two lengths, forward and backward in float32; return a row for each, with its extra memory."""
    device, rows = machine_device(), []

    def strided(n: int) -> Pattern:
        stride = round(n**0.5)
        return PerHead(Banded(stride), Strided(stride))

    families: dict[str, Callable[[int], Pattern]] = {
        "banded(256)": lambda n: Banded(256),
        "perhead(banded(l), strided(l)), l = sqrt(n)": strided,
        "fixed(128, 8)": lambda n: Fixed(128, 8),
        "dense": lambda n: Dense(),
    }
    inputs = {n: _inputs(n, torch.float32, device) for n in (short, long)}
    for name, of_length in families.items():
        sides = {}
        for n in (short, long):
            pattern = of_length(n)
            attend = _kernel(pattern, n, torch.float32, device).attend
            sides[str(n)] = _step(partial(attend, pattern=pattern), inputs[n])
        seconds = in_turns(sides, rounds=rounds)
        ratio = seconds[str(long)] / seconds[str(short)]
        qkv_bytes = 3 * inputs[long][0].nbytes
        peak = peak_extra_bytes(sides[str(long)])
        rows.append(
            {"pattern": name, "short": short, "long": long,
             "short_milliseconds": 1e3 * seconds[str(short)], "long_milliseconds": 1e3 * seconds[str(long)],
             "ratio": ratio, "slope": math.log(ratio) / math.log(long / short), "qkv_bytes": qkv_bytes,
             "peak_extra_bytes": peak,
             "peak_in_qkv": None if peak is None else peak / qkv_bytes}
        )  # fmt: skip
        memory = "not measured" if peak is None else f"{peak / qkv_bytes:.2f} times the bytes of q, k and v"
        say(f"{name}: time({long}) / time({short}) = {ratio:.2f}; extra memory at its peak: {memory}")
    return rows


def peak_extra_bytes(run: Callable[[], object]) -> int | None:
    """Return the bytes that the process holds at most during `run` beyond those before; None if Linux does not say."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        gc.collect()
        clear.write_text("5")  # sets the high-water mark to what is held now
        before = _kilobytes(status, "VmRSS")
        run()
        return 1024 * (_kilobytes(status, "VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def against_peers(*, lengths: tuple[int, ...], rounds: int, say: Say) -> list[dict[str, Any]]:
    """Time a band of 256 keys against GPT-Neo, local-attention and FlexAttention, float32; return a row for each."""
    rows: list[dict[str, Any]] = []
    for n in lengths:
        for compare in (_gpt_neo, _local_attention, _flex_attention):
            row = compare(n, rounds)
            rows.append({"n": n, **row})
            say(f"n = {n}: {row['peer']}, {row['what']}: ours is {row['ratio']:.2f} times as fast")
    return rows


def _faster(
    peer: str, what: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> dict[str, Any]:
    seconds = in_turns({"ours": ours, "theirs": theirs}, rounds=rounds)
    return {
        "peer": peer,
        "what": what,
        "milliseconds": 1e3 * seconds["ours"],
        "peer_milliseconds": 1e3 * seconds["theirs"],
        "ratio": seconds["theirs"] / seconds["ours"],
    }


def check_peers() -> None:
    """Raise BadValue, before anything is measured, where a peer or its compiler is missing."""
    missing = [name for name in ("transformers", "local_attention") if importlib.util.find_spec(name) is None]
    check(not missing, f"peers are not installed: {', '.join(missing)}; pip install -e '.[bench]', or leave out peers")
    problem = compiler_problem("cpu")
    check(problem is None, f"FlexAttention cannot be compiled, {problem}: choose other --parts")


def _gpt_neo(n: int, rounds: int) -> dict[str, Any]:
    """Time training steps of two local layers: d_model 256, 4 heads, bytes as tokens, one row of n tokens."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    theirs = GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=256, max_position_embeddings=n, hidden_size=256, num_layers=2, num_heads=4, window_size=256,
            attention_types=[[["local"], 2]], embed_dropout=0.0, attention_dropout=0.0, resid_dropout=0.0,
            bos_token_id=None, eos_token_id=None,
        )
    ).train()  # fmt: skip
    pattern = Banded(256)
    config = GPTConfig(n_layers=2, d_model=256, n_heads=4, n_ctx=n, n_vocab=256, pattern=pattern.text)
    ours = GPT(config, attend=_kernel(pattern, n, torch.float32, "cpu").attend)
    tokens = torch.randint(256, (1, n + 1))

    def their_loss() -> Tensor:
        return F.cross_entropy(theirs(tokens[:, :-1], use_cache=False).logits[0], tokens[0, 1:])

    return _faster(
        "transformers GPT-Neo, local layers",
        "training step, 2 layers, d_model 256",
        _training_step(ours, lambda: ours.loss(tokens[:, :-1], tokens[:, 1:])),
        _training_step(theirs, their_loss),
        rounds,
    )


def _local_attention(n: int, rounds: int) -> dict[str, Any]:
    """Time its exact window of 128 x 2 keys before the query: `banded(257)`."""
    from local_attention import LocalAttention

    pattern, inputs = Banded(257), _inputs(n, torch.float32, "cpu")
    attend = _kernel(pattern, n, torch.float32, "cpu").attend
    peer = LocalAttention(
        window_size=128, look_backward=2, causal=True, autopad=True, exact_windowsize=True, use_rotary_pos_emb=False
    )
    q, k, v, _ = inputs
    check_equal(attend(q, k, v, pattern), peer(q, k, v), "local-attention")
    return _faster("local-attention", "banded(257), forward and backward",
                   _step(partial(attend, pattern=pattern), inputs), _step(peer, inputs), rounds)  # fmt: skip


def _flex_attention(n: int, rounds: int) -> dict[str, Any]:
    """Time it compiled, with the block mask made beforehand; forward only."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern, inputs = Banded(256), _inputs(n, torch.float32, "cpu")
    attend = _kernel(pattern, n, torch.float32, "cpu", training=False).attend
    mask = create_block_mask(lambda b, h, q, k: pattern.allows(q, k), 1, None, n, n, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    q, k, v, _ = (tensor.detach() for tensor in inputs)
    with torch.no_grad():
        check_equal(attend(q, k, v, pattern), compiled(q, k, v, block_mask=mask), "FlexAttention")
        return _faster("torch FlexAttention, compiled", "banded(256), forward", lambda: attend(q, k, v, pattern),
                       lambda: compiled(q, k, v, block_mask=mask), rounds)  # fmt: skip


def check_equal(ours: Tensor, theirs: Tensor, peer: str) -> None:
    """Raise BadValue if results differ: a ratio between two different functions would mean nothing."""
    difference = (ours - theirs).abs().max().item()
    if difference > 1e-4:
        raise BadValue(f"{peer} computes something else: results differ by {difference}")


def whole_model(*, n_ctx: int, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Time training of 6 layers, d_model 256, 4 heads: dense, alternating and banded ones; return a row for each."""
    device, models = machine_device(), {}
    tokens = torch.randint(256, (1, n_ctx + 1), device=device)
    texts = ("dense", "alternate(dense, banded(256))", "banded(256)")
    for text in texts:
        config = GPTConfig(n_layers=6, d_model=256, n_heads=4, n_ctx=n_ctx, n_vocab=256, pattern=text)
        requirements = requirements_of(config, device=device, dtype=torch.float32, training=True)
        attend = choose_for(config.patterns, "auto", requirements).attend
        torch.manual_seed(0)
        models[text] = GPT(config, attend=attend).to(device)
    models["dense, torch's kernel"] = GPT(models["dense"].config).to(device)

    sides = {
        name: _training_step(model, partial(model.loss, tokens[:, :-1], tokens[:, 1:]))
        for name, model in models.items()
    }
    seconds = in_turns(sides, rounds=rounds)
    rows = []
    for name, taken in seconds.items():
        row = {"pattern": name, "n_ctx": n_ctx, "tokens_per_second": n_ctx / taken, "ratio": seconds["dense"] / taken,
               "ratio_to_torch": seconds["dense, torch's kernel"] / taken}  # fmt: skip
        rows.append(row)
        say(f"{name}: {n_ctx / taken:,.0f} tokens/s, {row['ratio']:.2f} times dense, "
            f"{row['ratio_to_torch']:.2f} times dense by torch's kernel")  # fmt: skip
    return rows


def measure(parts: Sequence[str], *, n: int | None, rounds: int, say: Say) -> dict[str, Any]:
    """Run the chosen parts of the bench at their own lengths, or at `n` (growth: from n / 4 on); return their rows."""
    if "peers" in parts:
        check_peers()
    runs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "against_dense": lambda: against_dense(n=n or 8192, rounds=rounds, say=say),
        "growth": lambda: growth(short=(n or 16384) // 4, long=n or 16384, rounds=rounds, say=say),
        "peers": lambda: against_peers(lengths=(n,) if n else (2048, 8192), rounds=rounds, say=say),
        "whole_model": lambda: whole_model(n_ctx=n or 16384, rounds=rounds, say=say),
    }
    return {part: runs[part]() for part in parts}
