"""What llama.cpp computes from an exported GGUF, in a process of its own: a fault of it ends that process alone.

    python -m fewshot.checkpoint.runtimes.llama_cpp

In, as JSON on standard input: the file, prompts with the number of tokens to write after each, texts, and of how many
tokens the log-probabilities are wanted. Out, as JSON: what was written, with these, and ids. llama.cpp gives
log-probabilities where it writes, and rounds in GELU: it looks up a table of float16.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fewshot.base.errors import ExportDiffers
from fewshot.checkpoint.runtimes.compare import GREEDY, PROMPT, Checked, NotChecked, compare_ids, sequences, texts_for
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

# By the type of the matrices, in nats: what a log-probability may differ by, and the mean of what is written.
LIMITS = {"f32": (2e-2, 2e-3), "f16": (5e-2, 1e-2), "q8_0": (0.5, 5e-2)}
LIKELIEST = 10  # tokens whose log-probabilities are compared
FEWEST = 8  # prompts with log-probabilities, below which nothing is said
SECONDS = 1800


@torch.no_grad()
def check_with_llama_cpp(folder: Path, model: GPT, tokenizer: Tokenizer, *, kind: str) -> Checked:
    """Compare log-probabilities, greedy text and ids; raises ExportDiffers.

    With float32 the text must be the model's own; with less than that it is told by how much the mean log-probability
    of what it wrote differs. Raises ModuleNotFoundError where llama.cpp's package, xllamacpp, is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise ModuleNotFoundError("xllamacpp", name="xllamacpp")
    if model.config.n_ctx < PROMPT + 4:
        raise NotChecked(f"a context of {model.config.n_ctx} tokens is too short for llama.cpp to write in")
    by, n_ctx = f"llama.cpp (xllamacpp {version('xllamacpp')})", model.config.n_ctx
    rows = [row.tolist() for tokens in sequences(model, tokenizer.n_vocab) for row in tokens]
    prompts = [row[: n_ctx - 2] for row in rows] + [rows[-1][:length] for length in range(1, min(GREEDY, n_ctx - 2))]
    openings, count = [row[:PROMPT] for row in rows[-3:]], min(GREEDY, n_ctx - PROMPT - 1)
    texts = texts_for(tokenizer)
    asked = [(prompt, 1) for prompt in prompts] + [(opening, count) for opening in openings]
    answer = ask(folder, n_ctx=n_ctx, prompts=asked, texts=texts, by=by)
    worst, apart, largest, lengths = 0.0, [], 0.0, set()
    limit, mean_limit = LIMITS[kind]
    for prompt, written in zip(prompts, answer["written"], strict=False):
        logits = model(torch.tensor([prompt]))[0, -1]
        largest = max(largest, logits.abs().max().item())
        ours = logits.log_softmax(-1)
        for token in written["likeliest"]:
            worst = max(worst, abs(ours[token["id"]].item() - token["logprob"]))
            lengths.add(len(prompt))
        apart += [ours[token["id"]].item() - token["logprob"] for token in written["likeliest"][:1]]
    if len(apart) < FEWEST:
        raise NotChecked(
            f"llama.cpp gives a log-probability for {len(apart)} of {len(prompts)} prompts alone: the likeliest tokens "
            "end within a character"
        )
    mean = abs(sum(apart)) / max(len(apart), 1)
    if not worst <= limit or not mean <= mean_limit:
        raise ExportDiffers(
            f"{by} computes something else: a log-probability differs by {worst:.2g} nats (allowed: {limit:g}), their "
            f"mean by {mean:.2g} ({mean_limit:g})"
        )
    greedy = 0
    for opening, written in zip(openings, answer["written"][len(prompts) :], strict=True):
        if kind == "f32":
            greedy += _count_greedy(model, opening, written["ids"], by=by, never=tokenizer.eot, limit=limit)
    ids_of = dict(zip(texts, answer["ids"], strict=True))
    return Checked(
        by=by,
        lengths=sorted(lengths),
        largest_logit=largest,
        largest_difference=worst,
        of=f"log-probabilities in nats (their mean by {mean:.1g})",
        greedy_tokens=greedy,
        texts=compare_ids(tokenizer, ids_of.__getitem__, by=by),
    )


def _count_greedy(model: GPT, opening: list[int], written: list[int], *, by: str, never: int, limit: float) -> int:
    """Return how many tokens were written; one that is not the model's, but for `never`, raises ExportDiffers."""
    logits = model(torch.tensor([opening + written]))[0, len(opening) - 1 : -1]
    logits[:, never] = float("-inf")
    for row, chosen in zip(logits, written, strict=True):
        if row.max() - row[chosen] > 2 * limit:
            raise ExportDiffers(f"{by} writes another text: token {chosen}, the model's is {int(row.argmax())}")
    return len(written)


def ask(
    folder: Path,
    *,
    n_ctx: int,
    prompts: Sequence[tuple[list[int], int]],
    texts: Sequence[str] = (),
    likeliest: int = LIKELIEST,
    by: str = "llama.cpp",
) -> dict[str, Any]:
    """Return what llama.cpp answers to the model in a folder: `written` after each prompt, and `ids` of each text."""
    file = str(folder / "model.gguf")
    question = {"file": file, "n_ctx": n_ctx, "prompts": prompts, "texts": texts, "likeliest": likeliest}
    command, asked = [sys.executable, "-m", "fewshot.checkpoint.runtimes.llama_cpp"], json.dumps(question)
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotChecked(f"llama.cpp takes longer than {SECONDS // 60} minutes") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ExportDiffers(f"{by} cannot read the export: {last[:300]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = question["file"]
    params.n_ctx, params.n_parallel, params.verbosity, params.warmup = question["n_ctx"], 1, -1, False
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads, threads.poll = os.cpu_count() or 1, 0  # not waiting in a loop: another program may compute
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        params.port = free.getsockname()[1]
    server = xllamacpp.Server(params)

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{server.listening_address}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    def write(prompt: list[int], count: int) -> dict[str, Any]:
        options = {"temperature": 0, "n_probs": question["likeliest"], "ignore_eos": True, "cache_prompt": False}
        answer = post("/completion", {"prompt": prompt, "n_predict": count, "return_tokens": True, **options})
        # Where a character is not complete it gives none.
        likeliest = [token["top_logprobs"] for token in answer.get("completion_probabilities", [])]
        return {"ids": answer["tokens"], "likeliest": likeliest[0] if count == 1 and likeliest else []}

    def ids(text: str) -> list[int]:
        its_ids: list[int] = post("/tokenize", {"content": text, "add_special": False, "parse_special": False})[
            "tokens"
        ]
        return its_ids

    return {
        "written": [write(prompt, count) for prompt, count in question["prompts"]],
        "ids": [ids(text) for text in question["texts"]],
    }


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))), flush=True)
    os._exit(0)  # its server has threads that never end
