"""lm-evaluation-harness over HTTP, with no tokenizer of its own, against our evaluator and its own `hf` model.

    PYTHONPATH=src python benchmarks/harness_scores.py --data ../shared/data/eval \
        --vocabulary ../shared/data/vocab/gpt2 --out benchmarks/results/harness_scores.json

`scores`: three tasks by the commands `lm_eval run --model local-completions` against `fewshot serve`, by `lm_eval run
--model hf`, and by our `evaluate` with the harness's prompts, on the same random weights of a small model. `speed`:
both models of the harness on GPT-2 small's shape; each with the best of several batch sizes, in turns, and with a fresh
server every time, so that nothing is cached from the turn before. Give `speed` a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fewshot.base.machine import n_cores
from fewshot.bench.hardware import hardware
from fewshot.bench.harness import harness_scores, local_task, write_rows
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.save import save
from fewshot.cli.main import main as fewshot
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.load import load
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import load_gpt2

PARTS = ("scores", "speed")
TASKS = {  # the harness's own file, and the split that it asks
    "lambada": ("lambada/lambada_openai.yaml", "test"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
    "piqa": ("piqa/piqa.yaml", "validation"),
}
N_CTX, SHOTS = 1024, 5  # of the tasks that are timed with demonstrations too
SMALL: dict[str, Any] = {"n_layers": 4, "d_model": 128, "n_heads": 4, "init_std": 0.15}  # far from uniform answers
LARGE: dict[str, Any] = {"n_layers": 12, "d_model": 768, "n_heads": 12}  # GPT-2 small
CLIENTS = ((1, 16), (8, 1), (4, 16), (32, 1))  # requests at once, prompts in each
BATCHES = (1, 4, 16, 64)  # of `hf`
N_TUNED = 12  # questions on which they are chosen
Samples = list[list[tuple[float, bool]]]  # log-likelihood and whether greedy, of each choice of each question


@dataclass(frozen=True)
class Scored:
    """What came of a task: its metrics, and every log-likelihood."""

    scores: Mapping[str, float]
    samples: Samples
    n_tokens: Sequence[int] = ()  # of each choice, where the side tells them


# --- the same questions for all


def questions_of(task: Task, n: int) -> list[dict[str, Any]]:
    """Return rows as the harness's file of the task reads them."""
    examples = [episode.example for episode in task.episodes(n, 0, 0)]
    if task.name == "lambada":
        return [{"text": example.context + example.completions[0]} for example in examples]
    choices = [[text.removeprefix(" ") for text in example.completions] for example in examples]
    if task.name == "hellaswag":
        return [
            {"query": example.context, "choices": texts, "label": example.gold}
            for example, texts in zip(examples, choices, strict=True)
        ]
    goals = [example.context.removeprefix("Question: ").removesuffix("\nAnswer:") for example in examples]
    return [
        {"goal": goal, "sol1": texts[0], "sol2": texts[1], "label": example.gold}
        for goal, texts, example in zip(goals, choices, examples, strict=True)
    ]


def local(task: Task, folder: Path, n: int, **changed: Any) -> dict[str, Any]:
    """Return the harness's own task on the first `n` questions; of hellaswag they are read as it has cleaned them."""
    file, split = TASKS[task.name]
    rows = write_rows(folder / f"{task.name}.jsonl", questions_of(task, n))
    without = {"training_split": None} | ({"process_docs": None} if task.name == "hellaswag" else {})
    return local_task(file, {split: rows}, task=task.name, **without, **changed)


def make_run(shape: dict[str, Any], vocabulary: Path, folder: Path) -> Path:
    """Write a run with random weights and GPT-2's tokenizer; what `fewshot convert` makes of it is beside it, in hf."""
    run = RunFolder(folder / "run")
    save(run.path, GPT(GPTConfig(**shape, n_ctx=N_CTX), seed=0), step=0)
    load_gpt2(vocabulary).save(run.tokenizer)
    assert fewshot(["convert", str(run.path), str(folder / "hf")]) == 0
    return run.path


# --- the three sides


@contextmanager
def served(run: Path, *words: str) -> Iterator[str]:
    """Run `fewshot serve` and yield the address of its completions."""
    command = [sys.executable, "-m", "fewshot", "serve", str(run), "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = next(line.split(" at ")[1].split(";")[0] for line in process.stderr if line.startswith("serving "))
        yield f"{url}/completions"
    finally:
        process.terminate()
        process.communicate()


def by_command(model: str, model_args: str, tasks: Sequence[str], folder: Path) -> dict[str, Scored]:
    """Return what `lm_eval run` says of the tasks, whose files are in `folder`."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args", model_args]
        command += ["--include_path", str(folder), "--tasks", ",".join(f"{name}_local" for name in tasks)]
        command += ["--num_fewshot", "0", "--batch_size", "8", "--device", "cpu", "--log_samples", "--output_path", out]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run(command, env={**os.environ, **offline}, check=True, stdout=sys.stderr)
        (results,) = Path(out).rglob("results_*.json")
        metrics = json.loads(results.read_text())["results"]
        return {name: _read_samples(name, metrics[f"{name}_local"], results.parent) for name in tasks}


def _read_samples(name: str, metrics: Mapping[str, Any], folder: Path) -> Scored:
    (file,) = folder.glob(f"samples_{name}_local_*.jsonl")
    rows = sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda row: row["doc_id"])
    plain = {key.removesuffix(",none"): value for key, value in metrics.items() if key.endswith(",none")}
    scores = {key: value for key, value in plain.items() if "stderr" not in key}
    return Scored(scores, [_pairs(row["filtered_resps"]) for row in rows])


def _pairs(answers: Sequence[Any]) -> list[tuple[float, bool]]:
    """Return log-likelihoods and whether greedy; the harness writes both as text."""
    return [(float(logprob), str(greedy) == "True") for logprob, greedy in answers]


def by_evaluator(run: Path, task: Task, n: int) -> Scored:
    """Return what our evaluator says of the task."""
    loaded = load(str(run))
    (answered,) = evaluate(loaded.lm, loaded.tokenizer, task, shots=[0], limit=n, seed=0)
    samples = [list(zip(answer.logprobs, answer.greedy, strict=True)) for answer in answered.answers]
    n_tokens = [n for answer in answered.answers for n in answer.n_tokens]
    return Scored({result.metric: result.value for result in answered.results()}, samples, n_tokens)


# --- the parts


def compare(a: Scored, b: Scored) -> dict[str, Any]:
    """Return how far two sides are apart."""
    pairs = [pair for mine, theirs in zip(a.samples, b.samples, strict=True) for pair in zip(mine, theirs, strict=True)]
    apart = [abs(mine[0] - theirs[0]) for mine, theirs in pairs]
    n_tokens = a.n_tokens or b.n_tokens
    return {
        "log_likelihoods": len(pairs),
        "largest_nats": max(abs(mine[0]) for mine, _ in pairs),
        "largest_difference_nats": max(apart),
        "largest_difference_a_token": max(nats / n for nats, n in zip(apart, n_tokens, strict=True))
        if n_tokens
        else None,
        "within_1e-5": sum(nats <= 1e-5 for nats in apart),
        "largest_relative_difference": max(abs(mine[0] / theirs[0] - 1) for mine, theirs in pairs),
        "greedy_differs": sum(mine[1] != theirs[1] for mine, theirs in pairs),
        "largest_difference_of_scores": max(  # relative where they are above 1
            abs(a.scores[name] - b.scores[name]) / max(1.0, b.scores[name]) for name in {*a.scores, *b.scores}
        ),
    }


def scores(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return a row for each task: the scores of the three sides, and how far they are apart."""
    import lm_eval.tasks

    run, tasks = make_run(SMALL, args.vocabulary, folder), _tasks(args)
    (folder / "tasks").mkdir()
    for name, task in tasks.items():
        own = local(task, folder, args.limit)
        changed = {key: own[key] for key in ("dataset_path", "dataset_name", "dataset_kwargs", "training_split")}
        changed |= {"process_docs": None} if "process_docs" in own else {}
        text = {"include": str(Path(lm_eval.tasks.__file__).parent / TASKS[name][0]), "task": f"{name}_local"}
        (folder / "tasks" / f"{name}.yaml").write_text(json.dumps(text | changed))
    with served(run) as url:
        over_http = f"model=run,base_url={url},tokenizer_backend=remote,max_length={N_CTX},num_concurrent=4"
        http = by_command("local-completions", over_http, list(tasks), folder / "tasks")
    hf = by_command("hf", f"pretrained={folder / 'hf'},dtype=float32", list(tasks), folder / "tasks")
    rows: list[dict[str, Any]] = []
    for name, task in tasks.items():
        ours = by_evaluator(run, task, args.limit)
        rows.append(
            {
                "task": name,
                "questions": len(ours.samples),
                "scores": {"over_http": http[name].scores, "our_evaluator": ours.scores, "lm_eval_hf": hf[name].scores},
                "over_http_and_our_evaluator": compare(http[name], ours),
                "over_http_and_lm_eval_hf": compare(http[name], hf[name]),
                "our_evaluator_and_lm_eval_hf": compare(ours, hf[name]),
            }
        )
        print(json.dumps(rows[-1], indent=1), flush=True)
    return {"model": _described(SMALL), "rows": rows}


def _tasks(args: argparse.Namespace) -> dict[str, Task]:
    return {name: make_task(name, data=DataFolder(args.data), protocol=HARNESS) for name in TASKS}


def timed(model: Any, task: dict[str, Any], *, shots: int, limit: int) -> tuple[float, Samples]:
    """Return the seconds that a model of the harness takes for the requests of a task, and its answers."""
    seconds, ask = 0.0, model.loglikelihood

    def loglikelihood(*arguments: Any, **settings: Any) -> Any:
        nonlocal seconds
        began = time.perf_counter()
        answers = ask(*arguments, **settings)
        seconds += time.perf_counter() - began
        return answers

    model.loglikelihood = loglikelihood
    outcome = harness_scores(model, task, shots=shots, limit=limit)
    model.loglikelihood = ask
    return seconds, [_pairs(sample["filtered_resps"]) for sample in outcome["samples"]]


def speed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the questions a second of both models of the harness, in turns."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    run, tasks = make_run(LARGE, args.vocabulary, folder), _tasks(args)
    cases = {f"{name}, 0 shots": (local(task, folder, args.questions), 0) for name, task in tasks.items()}
    shown = {"fewshot_split": "validation", "fewshot_config": {"sampler": "first_n", "split": "validation"}}
    cases[f"hellaswag, {SHOTS} shots"] = (local(tasks["hellaswag"], folder, args.questions, **shown), SHOTS)
    peer = HFLM(pretrained=str(folder / "hf"), device="cpu", dtype="float32", batch_size=1)

    def over_http(task: dict[str, Any], shots: int, limit: int, how: tuple[int, int]) -> tuple[float, Samples]:
        with served(run, "--weight_type", args.weight_type) as url:
            settings = {"model": "run", "base_url": url, "tokenizer_backend": "remote", "max_length": N_CTX}
            client = LocalCompletionsAPI(**settings, num_concurrent=how[0], batch_size=how[1])
            client.loglikelihood([_request("Once upon", " a time")])
            return timed(client, task, shots=shots, limit=limit)

    def by_hf(task: dict[str, Any], shots: int, limit: int, batch_size: int) -> tuple[float, Samples]:
        peer.batch_size_per_gpu = batch_size
        return timed(peer, task, shots=shots, limit=limit)

    rows, n_tuned = [], min(N_TUNED, args.questions)
    for name, (task, shots) in cases.items():
        client = _best(name, "over HTTP", CLIENTS, partial(over_http, task, shots, n_tuned))
        batch_size = _best(name, "hf", BATCHES, partial(by_hf, task, shots, n_tuned))
        asked = (task, shots, args.questions)
        turns = [(over_http(*asked, client), by_hf(*asked, batch_size)) for _ in range(args.rounds)]
        http, hf = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
        (_, mine), (_, theirs) = turns[0]
        apart = compare(Scored({"": 0.0}, mine), Scored({"": 0.0}, theirs))
        row = {
            "case": name,
            "questions": args.questions,
            "client": {"num_concurrent": client[0], "batch_size": client[1]},
            "hf_batch_size": batch_size,
            "over_http_seconds": [turn[0][0] for turn in turns],
            "hf_seconds": [turn[1][0] for turn in turns],
            "times_as_fast": hf / http,
            "largest_difference_nats": apart["largest_difference_nats"],
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    how = {"weight_type": args.weight_type, "rounds": args.rounds}
    return {"model": _described(LARGE), **how, "rows": rows}


def _described(shape: dict[str, Any]) -> dict[str, Any]:
    return {**shape, "n_ctx": N_CTX, "n_vocab": 50257, "weights": "random"}


def _best(case: str, side: str, ways: Sequence[Any], run: Callable[[Any], tuple[float, Samples]]) -> Any:
    """Return the way that takes the least time on a few questions."""
    taken = {way: run(way)[0] for way in ways}
    print(f"{case}, {side}: " + ", ".join(f"{way} {took:.2f} s" for way, took in taken.items()), flush=True)
    return min(ways, key=taken.__getitem__)


def _request(context: str, continuation: str) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (context, continuation), 0)


def main() -> None:
    """Measure the parts and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of evaluation sets")
    parser.add_argument("--vocabulary", type=Path, required=True, help="a folder with GPT-2's two files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="others stay as the file has them")
    parser.add_argument("--limit", type=int, default=100, help="questions a task whose scores are compared")
    parser.add_argument("--questions", type=int, default=32, help="questions a task that is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weight_type", default="float32", help="of the server that is timed")
    parser.add_argument("--threads", type=int, default=n_cores())
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the servers and commands
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"bench": "harness_scores"}
    measures = {"scores": scores, "speed": speed}
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            load_before, measured = os.getloadavg(), measures[part](args, Path(folder))
        result[part] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {**hardware(), "lm_eval": version("lm_eval"), "transformers": version("transformers")},
            "load": {"before": load_before, "after": os.getloadavg()},
            **measured,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
