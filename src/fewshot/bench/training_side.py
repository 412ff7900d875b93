"""One side of `fewshot bench train`, in a process of its own: `python -m fewshot.bench.training_side JSON`.

In: a JSON object with a shape and the side's name; then a line on standard input for each turn, the number of steps to
take. Out: a JSON line when the side is ready, one for each turn with its seconds. A process of its own, because
what one side sets (threads, the allocator, the compiler's caches) must not reach another.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

Options = Mapping[str, Any]
Turn = Callable[[int], dict[str, Any]]  # a number of steps -> what is reported of them

LR = 1e-4
LETTERS = 16_000  # most different characters of the text that ours reads
FIRST_LETTER = 0x4E00  # 20,000 letters follow one another from there on
MANY = 10_000  # steps: more than a bench takes
RAMP_STEPS = 6


@dataclass
class Stopwatch:
    """Adds up the seconds that functions take, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return timed


def ours(options: Options) -> tuple[Turn, dict[str, Any]]:
    """Return turns of the training loop as users run it, on random text; the first step is done, and timed."""
    from fewshot.train import loop as loop_module
    from fewshot.train import run as run_module
    from fewshot.train import step as step_module

    watch, folder = Stopwatch(), tempfile.mkdtemp(dir=options["folder"])
    text = Path(folder) / "text.txt"
    n_vocab, n_ctx, n_rows = options["n_vocab"], options["n_ctx"], options["n_rows"]
    drawn = random.Random(0).choices(range(min(n_vocab - 1, LETTERS)), k=(64 * n_rows) * n_ctx)
    text.write_text("".join(chr(FIRST_LETTER + letter) for letter in drawn), encoding="utf-8")
    first_rows = 1 if options["ramp"] else n_rows
    batch = n_rows * n_ctx
    ramp = {"batch_start_tokens": first_rows * n_ctx, "ramp_tokens": RAMP_STEPS * batch if options["ramp"] else 0}
    given = {
        "text": [str(text)],
        "yes": True,
        "data": {"tokenizer": "chars", "val_fraction": 0.0},
        "model": {key: options[key] for key in ("n_layers", "d_model", "n_heads", "n_ctx", "n_vocab")},
        "schedule": {"n_tokens": MANY * batch, "batch_tokens": batch, "warmup_tokens": 0, **ramp},
        "optimizer": {"name": options["optimizer"], "lr": LR, "matrix_lr": LR},
        "loop": {"micro_rows": n_rows, "checkpoint_every": MANY, "validate_every": MANY, **options["loop"]},
    }
    built: list[Any] = []
    plain = loop_module.train

    def watched(setup: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        built.append(setup)
        model = setup.model
        model.read = watch.around("forward_blocks", model.read)
        model.loss = watch.around("forward", model.loss)
        setup.optimizers.step = watch.around("optimizer", setup.optimizers.step)
        return plain(setup, *args, **kwargs)

    run_module.train = watched
    step_module.load_batch = watch.around("data", step_module.load_batch)
    run_module.build = watch.around("build", run_module.build)
    torch.autograd.backward = watch.around("backward", torch.autograd.backward)
    began = time.perf_counter()
    reports = run_module.start(given, Path(folder) / "run", say=_say)
    next(reports)
    first = time.perf_counter() - began
    loop = built[0].config.loop
    ready = {
        "first_step_seconds": first,
        "build_seconds": watch.seconds["build"],
        "precision": loop.precision,
        "compile": loop.compile,
        "kernel": loop.kernel,
        "graphs": _n_graphs(),
    }

    def turn(steps: int) -> dict[str, Any]:
        watch.seconds.clear()
        began = time.perf_counter()
        for _ in range(steps):
            next(reports)
        total = time.perf_counter() - began
        parts = dict(watch.seconds)
        parts["forward_loss"] = parts.pop("forward") - parts["forward_blocks"]
        parts["rest"] = total - sum(parts.values())
        return {"seconds": total, "parts": parts, "graphs": _n_graphs()}

    return turn, ready


def _n_graphs() -> int:
    """Return how many graphs torch.compile has made so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def products(options: Options) -> tuple[Turn, dict[str, Any]]:
    """Return turns of the matrix products of one step alone: forward, and both of the backward pass.

    The products of attention are taken whole and reported by themselves, as a causal kernel needs only some of them.
    """
    dtype = getattr(torch, options["dtype"])
    width, n_tokens, n_ctx = options["d_model"], options["n_rows"] * options["n_ctx"], options["n_ctx"]
    per_layer = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    sizes = [size for size in per_layer for _ in range(options["n_layers"])] + [(width, options["n_vocab"])]
    tensors: dict[tuple[int, ...], Tensor] = {}

    def filled(*shape: int) -> Tensor:
        """Return random numbers of this shape, the same ones each time."""
        if shape not in tensors:
            tensors[shape] = torch.randn(shape).to(dtype)
        return tensors[shape]

    def linear() -> None:
        for n_in, n_out in sizes:
            x, weight, grad = filled(n_tokens, n_in), filled(n_out, n_in), filled(n_tokens, n_out)
            _ = x @ weight.T, grad @ weight, grad.T @ x

    def attention() -> None:
        heads = options["n_rows"] * options["n_heads"]
        x, scores = filled(heads, n_ctx, width // options["n_heads"]), filled(heads, n_ctx, n_ctx)
        for _ in range(2 * options["n_layers"]):  # scores, and mixed values
            _ = x @ x.mT, scores @ x, scores.mT @ x

    flops = {
        "linear": 6.0 * n_tokens * sum(n_in * n_out for n_in, n_out in sizes),
        "attention": 12.0 * n_tokens * n_ctx * width * options["n_layers"],
    }

    def turn(steps: int) -> dict[str, Any]:
        watch = Stopwatch()
        for _ in range(steps):
            watch.around("linear", linear)()
            watch.around("attention", attention)()
        allowed = (n_ctx + 1) / (2 * n_ctx)  # of the pairs, in causal attention
        return {"seconds": watch.seconds["linear"] + allowed * watch.seconds["attention"], "parts": watch.seconds}

    turn(1)
    return turn, {"flops": flops}


def nanogpt(options: Options) -> tuple[Turn, dict[str, Any]]:
    """Return turns of nanoGPT's model from its folder, in the loop of its train.py."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(options["path"]) / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    model = module.GPT(
        module.GPTConfig(
            block_size=options["n_ctx"], vocab_size=options["n_vocab"], n_layer=options["n_layers"],
            n_head=options["n_heads"], n_embd=options["d_model"], dropout=0.0, bias=True,
        )
    )  # fmt: skip
    optimizer = model.configure_optimizers(0.1, LR, (0.9, 0.95), "cpu")
    run = torch.compile(model) if options["compiled"] else model
    dtype = getattr(torch, options["dtype"])

    def step(tokens: Tensor, targets: Tensor) -> None:
        context = torch.autocast("cpu", dtype=dtype) if dtype != torch.float32 else contextlib.nullcontext()
        with context:
            _, loss = run(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return _peer_turns(step, options)


def transformers(options: Options) -> tuple[Turn, dict[str, Any]]:
    """Return turns of transformers' GPT-2, eager, in float32, in the loop that its users write."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=options["n_vocab"], n_positions=options["n_ctx"], n_embd=options["d_model"],
        n_layer=options["n_layers"], n_head=options["n_heads"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def step(tokens: Tensor, targets: Tensor) -> None:
        logits = model(tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return _peer_turns(step, options)


def _peer_turns(step: Callable[[Tensor, Tensor], None], options: Options) -> tuple[Turn, dict[str, Any]]:
    """Return turns of a peer's step on random tokens; the first one is done, and timed."""
    generator = torch.Generator().manual_seed(0)

    def next_step() -> None:
        size = (options["n_rows"], options["n_ctx"] + 1)
        rows = torch.randint(options["n_vocab"], size, generator=generator)
        step(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

    def turn(steps: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(steps):
            next_step()
        return {"seconds": time.perf_counter() - began}

    return turn, {"first_step_seconds": turn(1)["seconds"]}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


SIDES = {"ours": ours, "products": products, "nanogpt": nanogpt, "transformers": transformers}


def main() -> None:
    """Make the side that the argument names, then take a turn for each line of standard input."""
    options = json.loads(sys.argv[1])
    answers = sys.stdout
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):  # peers print what they do
        turn, ready = SIDES[cast(str, options["side"])](options)
        print(json.dumps(ready), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(turn(int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
