"""Whether a token's log-probabilities depend on its own text alone: the same requests alone and in company, bit by bit.

    PYTHONPATH=src python benchmarks/same_bits.py --text ../shared/data/text/books \
        --vocabulary ../shared/data/vocab/gpt2 --out benchmarks/results/same_bits.json
    PYTHONPATH=src python benchmarks/same_bits.py --cost --out benchmarks/results/same_bits.json   # on a quiet machine

200 prompts of 1 to 300 tokens, each greedy and at T = 1, for every type of weights and kind of pattern. Compared with
each request alone in an empty cache, read whole, on one thread: the tokens, their log-probabilities, those of the 20
likeliest at every place, and of every 25th prompt those of its own tokens. Other conditions than neighbours have a part
of the requests each. What --out has is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot.base.rng import python_rng
from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.save import save
from fewshot.corpus.builtin import builtin_documents
from fewshot.generate.engine import Engine
from fewshot.generate.request import MOST_TOP, Completion, Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.kernels.invariant.linear import WEIGHT_TYPES
from fewshot.kernels.library import library
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.bpe import load_gpt2, train_bpe
from fewshot.tokenizer.vocab import Tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "wide": {"n_layers": 2, "d_model": 768, "n_heads": 12, "n_ctx": 512, "n_vocab": 50257, "init_std": 0.06},
    "small": {"n_layers": 2, "d_model": 96, "n_heads": 3, "n_ctx": 512, "n_vocab": 50257, "init_std": 0.15},
}
PATTERNS = (
    "dense", "alternate(dense, banded(64))", "strided(16)", "fixed(32, 4)", "perhead(dense, banded(48))",
)  # fmt: skip
LONGEST, MOST_WRITTEN, MOST_ROWS = 300, 4, 16
WHOLE = 512  # a chunk that no prompt fills
CONTROL = "control: neighbours, with torch's own linear layers and GELU"  # the one condition that may differ
CHUNKS = ((16, 60), (64, 20), (WHOLE, MOST_ROWS))  # and texts for which there is room: many, some, only those that run
COST_SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "n_ctx": 1024}
COST_PROMPT, COST_TIMED = 32, 24  # tokens of each text


@dataclass(frozen=True)
class Bits:
    """What a model said of a text: the tokens that it wrote, the likeliest at every place, log-probabilities in nats.

    A place has the log-probability of its own token and of the likeliest; those of a prompt come first.
    """

    tokens: Sequence[int]
    likeliest: Sequence[int]
    logprobs: np.ndarray

    @classmethod
    def of(cls, done: Completion) -> Bits:
        scores = [*done.prompt_scores, *done.scores]
        values = [value for score in scores for value in (score.logprob, *(value for _, value in score.top))]
        return cls(done.tokens, [token for score in scores for token, _ in score.top], as_float32(values))

    @property
    def digest(self) -> str:
        ids = repr((list(self.tokens), list(self.likeliest)))
        return hashlib.sha256(ids.encode() + self.logprobs.tobytes()).hexdigest()[:16]

    @property
    def counts(self) -> Counter[str]:
        numbers = {"tokens": len(self.tokens), "likeliest": len(self.likeliest), "logprobs": len(self.logprobs)}
        return Counter({"requests": 1, **numbers})

    def differences(self, other: Bits) -> Counter[str]:
        """Return how many tokens differ, and bits of log-probabilities; what only one side has differs."""
        n = min(len(self.logprobs), len(other.logprobs))
        bits = (self.logprobs[:n].view(np.uint32) ^ other.logprobs[:n].view(np.uint32)).view(np.uint8)
        counts = {
            "different_tokens": _n_different(self.tokens, other.tokens),
            "different_likeliest": _n_different(self.likeliest, other.likeliest),
            "different_bits": int(np.unpackbits(bits).sum()) + 32 * abs(len(self.logprobs) - len(other.logprobs)),
        }
        return Counter({"different_requests": int(any(counts.values())), **counts})


def _n_different(these: Sequence[int], those: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(these, those, strict=False)) + abs(len(these) - len(those))


def as_float32(values: Sequence[float]) -> np.ndarray:
    numbers = np.array(values, dtype=np.float32)
    assert np.array_equal(numbers.astype(np.float64), np.array(values)), "a log-probability is no float32"
    return numbers


# --- what is asked


def texts_and_tokenizer(text: Path | None, vocabulary: Path | None) -> tuple[list[str], Tokenizer]:
    """Return real text and GPT-2's tokenizer; built-in text, and a tokenizer of it, where there are no folders."""
    texts = [path.read_text(errors="replace") for path in sorted(text.iterdir())[:20]] if text else []
    texts = texts or [document.text for document in builtin_documents(max_chars=300_000)]
    return texts, load_gpt2(vocabulary) if vocabulary else train_bpe(texts, n_vocab=1000)


def make_requests(texts: Sequence[str], tokenizer: Tokenizer, n_prompts: int) -> list[Request]:
    """Return two requests a prompt, greedy and at T = 1; two prompts of five begin like the first of their five."""
    requests: list[Request] = []
    first: list[int] = []
    for number in range(n_prompts):
        rng = python_rng("same bits", number)
        text = rng.choice([text for text in texts if len(text) > 10 * LONGEST] or texts)
        at = rng.randrange(max(1, len(text) - 10 * LONGEST))
        prompt = tokenizer.encode(text[at : at + 10 * LONGEST])
        if number % 5 == 0:
            first = prompt
        length = round(math.exp(rng.uniform(0, math.log(LONGEST))))
        if number % 5 in (1, 2):
            n_shared = rng.randint(1, 80)
            prompt, length = first[:n_shared] + prompt, min(LONGEST, n_shared + length)
        for sampling in (GREEDY, Sampling()):
            requests.append(
                Request(
                    prompt=prompt[:length],
                    max_tokens=rng.randint(1, MOST_WRITTEN),
                    sampling=sampling,
                    top_logprobs=MOST_TOP,
                    prompt_logprobs=number % 25 == 0,
                    seed=number,
                )
            )
    return requests


def every(n: int, requests: Sequence[Request], first: int = 0) -> list[int]:
    """Return the places of every n-th five prompts, which begin alike."""
    return [place for place in range(len(requests)) if place // 10 % n == first]


def make_model(shape: dict[str, Any], pattern: str) -> GPT:
    return GPT(GPTConfig(**shape, pattern=pattern), seed=0).eval()


# --- how it is run


def new_engine(model: PackedGPT, tokenizer: Tokenizer, *, n_texts: int, chunk: int) -> Engine:
    need = Engine(model, tokenizer, cache_bytes=0).cache.bytes_of_text(LONGEST + MOST_WRITTEN, n_new=chunk)
    return Engine(model, tokenizer, cache_bytes=n_texts * need, chunk=chunk)


def alone(model: PackedGPT, tokenizer: Tokenizer, request: Request, *, chunk: int = WHOLE) -> Bits:
    return next(in_turn(new_engine(model, tokenizer, n_texts=1, chunk=chunk), [request]))


def in_turn(engine: Engine, requests: Sequence[Request]) -> Iterator[Bits]:
    """Yield what each request gives when it runs alone, after those before it."""
    for request in requests:
        engine.submit(request)
        while engine.busy:
            for _, state in engine.step():
                if state.ended:
                    yield Bits.of(state.completion())


def in_company(engine: Engine, requests: Sequence[Request], name: str) -> tuple[list[Bits], list[int]]:
    """Return what the requests give, begun at random steps beside 1 to 15 others, and the rows of each step."""
    rng, order = python_rng("company", name), list(range(len(requests)))
    rng.shuffle(order)
    running: dict[int, int] = {}
    done: dict[int, Bits] = {}
    rows, most = [], MOST_ROWS
    while order or running:
        if rng.random() < 0.1:
            most = rng.randint(2, MOST_ROWS)
        for _ in range(rng.randint(0, 3)):
            if order and len(running) < most:
                place = order.pop()
                running[engine.submit(requests[place])] = place
        rows.append(len(running))
        for number, state in engine.step():
            if state.ended:
                done[running.pop(number)] = Bits.of(state.completion())
    return [done[place] for place in range(len(requests))], rows


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


def in_a_fresh_process(args: argparse.Namespace, weight_type: str, pattern: str, n_threads: int) -> list[str]:
    """Return the digests of the sampled requests, each alone, as another process with other threads makes them."""
    words = [*sys.argv, "--again", weight_type, pattern]
    env = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    ran = subprocess.run([sys.executable, *words], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout)


# --- over HTTP


@contextmanager
def served(run: Path, weight_type: str) -> Iterator[str]:
    """Run `fewshot serve` and yield its address."""
    command = [sys.executable, "-m", "fewshot", "serve", str(run), "--port", "0", "--weight_type", weight_type]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(line.split(" at ")[1].split(";")[0] for line in process.stderr if line.startswith("serving "))
    finally:
        process.terminate()
        process.communicate()


def over_http(url: str, request: Request, *, stream: bool) -> Bits:
    """Return what a server says, whose stream is joined; its likeliest tokens have no ids, so those are left out."""
    body = {
        "prompt": list(request.prompt),
        "max_tokens": request.max_tokens,
        "temperature": request.sampling.temperature,
        "seed": request.seed,
        "logprobs": request.top_logprobs,
        "echo": request.prompt_logprobs,
        "return_token_ids": True,
        "stream": stream,
    }
    with urllib.request.urlopen(urllib.request.Request(f"{url}/completions", json.dumps(body).encode())) as answer:
        lines = answer.read().decode().split("\n") if stream else ["data: " + answer.read().decode()]
    pieces = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    tokens = [token for piece in pieces for token in piece["token_ids"]]
    values: list[float] = []
    for piece in pieces:
        for own, top in zip(piece["logprobs"]["token_logprobs"], piece["logprobs"]["top_logprobs"], strict=True):
            if own is not None:  # as that of the prompt's first token is
                values += [own, *list(top.values())[: request.top_logprobs]]
    return Bits(tokens[len(request.prompt) if request.prompt_logprobs else 0 :], [], as_float32(values))


def as_told(bits: Bits, request: Request, eot: int) -> Bits:
    """Return what the API tells of it: no ids of the likeliest tokens, nothing of the token that ends the text."""
    tokens, logprobs = bits.tokens, bits.logprobs
    if tokens[-1] == eot:
        tokens, logprobs = tokens[:-1], logprobs[: -1 - request.top_logprobs]
    return Bits(tokens, [], logprobs)


# --- the parts


class Row:
    """What came of one type of weights and one pattern, condition by condition."""

    def __init__(self, expected: Sequence[Bits]) -> None:
        self.expected, self.conditions = expected, dict[str, dict[str, int]]()

    def compare(self, name: str, seen: dict[int, Bits], expected: dict[int, Bits] | None = None) -> None:
        counts: Counter[str] = Counter()
        for place, bits in seen.items():
            own = expected[place] if expected else self.expected[place]
            counts.update(own.counts)
            counts.update(own.differences(bits))
        self.note(name, dict(counts))

    def note(self, name: str, counts: dict[str, int]) -> None:
        self.conditions[name] = counts
        print(f"  {name}: {in_short(counts)}", flush=True)


def with_torchs_layers(model: GPT) -> PackedGPT:
    """Return the model with torch's linear layers and GELU, as the engine would run it without kernels of its own."""
    twin: Any = copy.copy(model)
    twin.cache_dtype = torch.float32
    return twin


def in_short(counts: dict[str, int]) -> str:
    return "  ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())


def measure(
    args: argparse.Namespace, model: GPT, run: Path, tokenizer: Tokenizer, requests: Sequence[Request], weight_type: str
) -> dict[str, Any]:
    """Return the row of one type of weights and one pattern."""
    began = time.perf_counter()
    packed, pattern = PackedGPT(model, weight_type), model.config.pattern
    row = Row([alone(packed, tokenizer, request) for request in requests])
    everything = "".join(bits.digest for bits in row.expected)
    print(f"{weight_type}, {pattern}: {len(requests)} alone in {time.perf_counter() - began:.0f} s", flush=True)
    rows: list[int] = []

    def company(name: str, places: Sequence[int], *, n_texts: int, chunk: int, apart: bool = False) -> None:
        asked = [replace(requests[place], key=str(place) if apart else "") for place in places]
        engine = new_engine(packed, tokenizer, n_texts=n_texts, chunk=chunk)
        seen, own_rows = in_company(engine, asked, f"{weight_type}, {pattern}, {name}")
        rows.extend(own_rows)
        row.compare(name, dict(zip(places, seen, strict=True)))

    some = every(10, requests)
    company("neighbours, nothing cached", range(len(requests)), n_texts=MOST_ROWS, chunk=WHOLE, apart=True)
    for number, (chunk, n_texts) in enumerate(CHUNKS):
        places = every(len(CHUNKS), requests, number)
        company(f"neighbours, beginnings cached, chunks of {chunk}", places, n_texts=n_texts, chunk=chunk)
    for n_threads in (2, 3):
        with threads(n_threads):
            company(f"neighbours, beginnings cached, {n_threads} threads", some, n_texts=20, chunk=64)
    places = every(4, requests)
    answers = in_turn(new_engine(packed, tokenizer, n_texts=60, chunk=WHOLE), [requests[place] for place in places])
    row.compare("one after another, beginnings cached", dict(zip(places, answers, strict=True)))
    for chunk in (16, 64):
        seen = {place: alone(packed, tokenizer, requests[place], chunk=chunk) for place in some}
        row.compare(f"alone, chunks of {chunk}", seen)
    with served(run, weight_type) as url, ThreadPoolExecutor(8) as pool:
        told = {place: as_told(row.expected[place], requests[place], tokenizer.eot) for place in some}
        for how, stream in (("whole", False), ("streamed", True)):
            heard = pool.map(lambda place, stream=stream: over_http(url, requests[place], stream=stream), some)
            row.compare(f"over HTTP, 8 at once, {how}", dict(zip(some, heard, strict=True)), told)
    digests = in_a_fresh_process(args, weight_type, pattern, n_threads=2)
    n_different = sum(row.expected[i].digest != digest for i, digest in zip(some, digests, strict=True))
    fresh = {"requests": len(some), "different_requests": n_different}
    row.note("alone, in a fresh process with 2 threads", fresh)
    if weight_type == "float32":
        ordinary = with_torchs_layers(model)
        asked = [requests[place] for place in some]
        row.expected = [alone(ordinary, tokenizer, request) for request in asked]
        engine = new_engine(ordinary, tokenizer, n_texts=MOST_ROWS, chunk=WHOLE)
        row.compare(CONTROL, dict(enumerate(in_company(engine, asked, CONTROL)[0])))
    return {
        "weight_type": weight_type,
        "pattern": pattern,
        "digest": hashlib.sha256(everything.encode()).hexdigest()[:16],
        "rows_in_company": {"mean": statistics.fmean(rows), "most": max(rows)},
        "seconds": round(time.perf_counter() - began),
        "conditions": row.conditions,
    }


def cost(tokenizer: Tokenizer, rounds: int) -> dict[str, Any]:
    """Return tokens a second of 16 streams by the engine and by transformers on one batch of equal lengths, in turns.

    GPT-2 small's shape; the time of the prompts is not counted. transformers' batch is the ordinary way: its matrix
    products take the rows of all texts at once and its attention is torch's, so that bits change with the batch.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {**COST_SHAPE, "n_vocab": tokenizer.n_vocab}
    names = {"n_embd": shape["d_model"], "n_layer": shape["n_layers"], "n_head": shape["n_heads"]}
    config = GPT2Config(**names, n_positions=shape["n_ctx"], vocab_size=shape["n_vocab"])
    model = make_model(shape, "dense")
    prompts = np.random.default_rng(0).integers(0, tokenizer.eot, (MOST_ROWS, COST_PROMPT)).tolist()
    n_tokens = MOST_ROWS * COST_TIMED

    def engine_rate(packed: PackedGPT) -> float:
        engine = Engine(packed, tokenizer, cache_bytes=1 << 30)
        for prompt in prompts:
            engine.submit(Request(prompt=prompt, max_tokens=2 * COST_TIMED, sampling=GREEDY))
        while len(engine.step()) < MOST_ROWS:
            pass
        began = time.perf_counter()
        n_written = sum(len(engine.step()) for _ in range(COST_TIMED))
        seconds = time.perf_counter() - began
        assert n_written == n_tokens, "a text has ended before the others"
        return n_tokens / seconds

    @torch.inference_mode()
    def library_rate(peer: Any) -> float:
        out = peer(torch.tensor(prompts), use_cache=True)
        began = time.perf_counter()
        for _ in range(COST_TIMED):
            tokens = out.logits[:, -1:].argmax(-1)
            out = peer(tokens, past_key_values=out.past_key_values, use_cache=True)
        return n_tokens / (time.perf_counter() - began)

    sides: dict[str, Callable[[], float]] = {}
    for kind in WEIGHT_TYPES:
        sides[f"engine, {kind}"] = partial(engine_rate, PackedGPT(model, kind))
    for kind in ("float32", "bfloat16"):
        peer = GPT2LMHeadModel(config).eval().to(getattr(torch, kind))
        sides[f"transformers, {kind}"] = partial(library_rate, peer)
    load, rates = os.getloadavg(), dict[str, list[float]]()
    for number in range(rounds + 1):  # the first does not count
        for name, side in sides.items():
            rate = side()
            rates.setdefault(name, []).extend([rate] if number else [])
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name}: {rate:.1f} tokens/s", flush=True)
    return {
        "model": shape,
        "streams": MOST_ROWS,
        "threads": torch.get_num_threads(),
        "load_before": load,
        "tokens_per_second": medians,
        "engine_over_transformers": {
            kind: medians[f"engine, {kind}"] / medians[f"transformers, {kind}"] for kind in ("float32", "bfloat16")
        },
    }


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the sums over all rows, by condition."""
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        for name, counts in row["conditions"].items():
            sums.setdefault(name, Counter()).update(counts)
    return {name: dict(counts) for name, counts in sums.items()}


def main() -> None:
    """Measure what --out does not have yet, and write it row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="a folder of texts (default: the documentation on this machine)")
    parser.add_argument("--vocabulary", type=Path, help="GPT-2's two files (default: a small BPE trained on the text)")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--shape", default="wide", choices=SHAPES)
    parser.add_argument("--types", nargs="+", default=WEIGHT_TYPES, choices=WEIGHT_TYPES)
    parser.add_argument("--patterns", nargs="+", default=PATTERNS)
    parser.add_argument("--cost", action="store_true", help="measure tokens a second instead")
    parser.add_argument("--rounds", type=int, default=5, help="of --cost")
    parser.add_argument("--again", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    texts, tokenizer = texts_and_tokenizer(args.text, args.vocabulary)
    requests = make_requests(texts, tokenizer, args.prompts)
    if args.again:
        packed = PackedGPT(make_model(SHAPES[args.shape], args.again[1]), args.again[0])
        print(json.dumps([alone(packed, tokenizer, requests[place]).digest for place in every(10, requests)]))
        return
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"bench": "same_bits"}

    def write() -> None:
        result["totals"] = totals(result.get("rows", []))
        args.out.write_text(json.dumps(result, indent=1) + "\n")

    if args.cost:
        result["cost"] = {"date": _now(), "machine": hardware(), **cost(tokenizer, args.rounds)}
        write()
        return
    torch.set_num_threads(1)
    lengths = [len(request.prompt) for request in requests[::2]]
    setting = {
        "machine": hardware(),
        "kernels": "C++" if library().problem is None else "torch",
        "model": {**SHAPES[args.shape], "weights": "random"},
        "tokenizer": {"n_vocab": tokenizer.n_vocab, "fingerprint": tokenizer.fingerprint},
        "prompts": {"number": len(lengths), "shortest": min(lengths), "median": statistics.median(lengths),
                    "longest": max(lengths), "tokens": sum(lengths)},
    }  # fmt: skip
    assert all(result.get(name, value) == value for name, value in setting.items()), f"{args.out} has another setting"
    result |= {"date": _now(), **setting}
    rows = result.setdefault("rows", [])
    for pattern in args.patterns:
        kinds = [kind for kind in args.types if not any((kind, pattern) == _name(row) for row in rows)]
        if not kinds:
            continue
        model = make_model(SHAPES[args.shape], pattern)
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder(Path(folder) / "run")
            save(run.path, model, step=0)
            tokenizer.save(run.tokenizer)
            for kind in kinds:
                rows.append(measure(args, model, run.path, tokenizer, requests, kind))
                write()
    for name, counts in result["totals"].items():
        print(f"{name}: {in_short(counts)}")


def _name(row: dict[str, Any]) -> tuple[str, str]:
    return row["weight_type"], row["pattern"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
