"""A curve over demonstrations in one request, against one request for every prompt.

  PYTHONPATH=src python benchmarks/curve.py --text FOLDER --vocabulary FOLDER --out benchmarks/results/curve.json

20 questions with 4 choices each, behind 0 to 16 shared demonstrations of about 40 tokens: pieces of real text. The
model has GPT-2 small's shape, n_ctx 1024 and random weights in bfloat16. A real server answers over HTTP. Beside the
curve a random part of its numbers is asked for one by one, with `echo`, as lm_eval does: by another key each time,
whose requests share nothing that was read (as servers do that keep no scores of prompts), and by one key, whose
requests share. Their time is that of all numbers in proportion. The curve begins with nothing cached.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch

from fewshot.base.errors import check
from fewshot.base.files import write_json
from fewshot.bench.hardware import hardware
from fewshot.generate.engine import Engine
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.serve.app import make_app
from fewshot.serve.completions import Served
from fewshot.serve.limits.protect import Limits
from fewshot.serve.server import Server
from fewshot.serve.worker import Worker
from fewshot.tokenizer.bpe import load_gpt2
from fewshot.tokenizer.vocab import Tokenizer

SHOTS, N_QUESTIONS, N_CHOICES = list(range(17)), 20, 4
KEYS = [f"key-{n}" for n in range(400)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of texts")
    parser.add_argument("--vocabulary", type=Path, required=True, help="folder with GPT-2's vocabulary")
    parser.add_argument("--n_layers", type=int, default=12)
    parser.add_argument("--sample", type=int, default=24, help="numbers asked for one by one, of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = load_gpt2(args.vocabulary)
    body = question_body(args.text)
    url = begin_server(tokenizer, args.n_layers)
    rng, rounds = random.Random(0), []
    for number in range(args.rounds):
        key = f"Bearer {KEYS[number]}"
        started = time.perf_counter()
        answer = post(url, "/v1/fewshot/curve", body, key)
        of_curve = time.perf_counter() - started
        asked = [(point, choice) for point in answer["points"] for choice in range(N_CHOICES)]
        chosen = rng.sample(asked, args.sample)
        seconds = {"sharing nothing": 0.0, "sharing": 0.0}
        n_different = 0
        for i, (point, choice) in enumerate(chosen):
            for kind in seconds:
                its_key = KEYS[100 + number * args.sample + i] if kind == "sharing nothing" else KEYS[50 + number]
                started = time.perf_counter()
                logprob = one_by_one(url, tokenizer, body, point, choice, f"Bearer {its_key}")
                seconds[kind] += time.perf_counter() - started
                n_different += logprob != point["logprobs"][choice]
        times = {kind: spent / len(chosen) * len(asked) / of_curve for kind, spent in seconds.items()}
        rounds.append({"curve_seconds": of_curve, "times_as_fast": times, "different": n_different})
        print(rounds[-1], flush=True)
    middle = sorted(rounds, key=lambda numbers: numbers["times_as_fast"]["sharing nothing"])[len(rounds) // 2]
    result = {
        "bench": "curve",
        "machine": hardware(),
        "load": os.getloadavg()[0],
        "n_layers": args.n_layers,
        "numbers": len(SHOTS) * N_QUESTIONS * N_CHOICES,
        "asked_one_by_one": args.sample,
        "median_round": middle,
        "rounds": rounds,
    }
    write_json(args.out, result)


def question_body(folder: Path) -> dict[str, Any]:
    words = " ".join(path.read_text("utf-8", errors="replace") for path in sorted(folder.iterdir())[:3]).split()
    check(len(words) >= 62_000, f"{folder}: its first three files have {len(words):,} words, 62,000 are needed")

    def piece(at: int, n: int) -> str:
        return " ".join(words[at : at + n])

    demonstrations = [f"Q: {piece(5000 + 100 * i, 22)}\nA: {piece(20_000 + 9 * i, 3)}" for i in range(max(SHOTS))]
    questions = [
        {
            "context": f"Q: {piece(40_000 + 100 * i, 22)}\nA:",
            "choices": [f" {piece(60_000 + 50 * i + 7 * j, 3)}" for j in range(N_CHOICES)],
            "answer": i % N_CHOICES,
        }
        for i in range(N_QUESTIONS)
    ]
    return {"demonstrations": demonstrations, "questions": questions, "shots": SHOTS, "delimiter": "\n\n"}


def begin_server(tokenizer: Tokenizer, n_layers: int) -> str:
    shape = {"n_layers": n_layers, "d_model": 768, "n_heads": 12, "n_ctx": 1024, "n_vocab": 50257}
    packed = PackedGPT(GPT(GPTConfig(**shape, pattern="alternate(dense, banded(256))"), seed=0).eval(), "bfloat16")
    worker = Worker(Engine(packed, tokenizer, cache_bytes=2 << 30))
    served = Served(name="it", tokenizer=tokenizer, n_ctx=1024, identity={})
    limits = Limits(hosts=["127.0.0.1"], keys=KEYS)
    server = Server(
        make_app(worker, served, limits), worker, limits, host="127.0.0.1", port=0, name="it", grace_seconds=1
    )
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def post(url: str, path: str, body: dict[str, Any], key: str) -> Any:
    headers = {"Authorization": key, "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)


def one_by_one(
    url: str, tokenizer: Tokenizer, body: dict[str, Any], point: dict[str, Any], choice: int, key: str
) -> float:
    """Return the log-probability of one choice, asked for alone."""
    question = body["questions"][point["question"]]
    shown = body["demonstrations"][: point["n_demonstrations"]]
    text = body["delimiter"].join([*shown, question["context"]])
    context = [tokenizer.start, *tokenizer.encode(text)]
    whole = [tokenizer.start, *tokenizer.encode(text + question["choices"][choice])]
    asked = {"prompt": whole, "max_tokens": 0, "echo": True, "logprobs": 1}
    answer = post(url, "/v1/completions", asked, key)
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"][len(context) :])


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
