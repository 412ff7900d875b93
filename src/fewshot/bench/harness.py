"""A small transformers model with a tokenizer, local task files, and lm-evaluation-harness on both: for comparisons."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fewshot.base.files import write_json_lines
from fewshot.evaluate.data.hub import HubSplit
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.vocab import EOT, Tokenizer

TRAINING_BATCH, TRAINING_LENGTH = 16, 64  # rows and tokens of a step on the texts


def library_tokenizer(tokenizer: Tokenizer) -> Any:
    """Return one of our byte-level BPEs as a tokenizer of transformers."""
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        tokenizer.save(file)
        return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=EOT, bos_token=None)


def random_gpt2(tokenizer: Tokenizer, *, n_ctx: int, init: float, **shape: Any) -> Any:
    """Return a GPT-2 of transformers with random weights, in GPT-2 small's shape where `shape` says nothing."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ends: dict[str, Any] = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    settings: dict[str, Any] = {"vocab_size": tokenizer.n_vocab, "n_positions": n_ctx, "initializer_range": init}
    return GPT2LMHeadModel(GPT2Config(**settings, **ends, **shape)).eval()


def save_small_model(
    folder: Path, texts: Sequence[str], *, n_ctx: int = 512, init: float = 0.4, steps: int = 0
) -> None:
    """Write a tiny model and a byte-level BPE trained on `texts` into a folder, as transformers stores them.

    Its answers are far from uniform. After some `steps` of training on the texts it writes what looks like them, line
    breaks and full stops included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe(list(texts), n_vocab=400)
    library_tokenizer(tokenizer).save_pretrained(folder)
    model = random_gpt2(tokenizer, n_ctx=n_ctx, init=init, n_embd=32, n_layer=2, n_head=2)
    _train(model, torch.tensor([token for text in texts for token in tokenizer.encode(text)]), steps)
    model.save_pretrained(folder)


def _train(model: Any, tokens: torch.Tensor, steps: int) -> None:
    """Train the model for some steps of AdamW on random pieces of the tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        begins = torch.randint(len(tokens) - TRAINING_LENGTH, (TRAINING_BATCH,)).tolist()
        batch = torch.stack([tokens[begin : begin + TRAINING_LENGTH] for begin in begins])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()


def harness_task(path: str) -> dict[str, Any]:
    """Return the configuration of the harness's own task in that file."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    return dict(load_yaml(Path(lm_eval.tasks.__file__).parent / path))


def local_task(path: str, files: Mapping[str, Path], **changed: Any) -> dict[str, Any]:
    """Return the configuration of the harness's own task, with its data in local JSON-lines files, one a split."""
    cache = next(iter(files.values())).parent / "cache"
    data = {"data_files": {split: str(file) for split, file in files.items()}, "cache_dir": str(cache)}
    own = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": data}
    return {**harness_task(path), **own, **changed}


def harness_model(folder: Path, *, batch_size: int) -> Any:
    """Return the model in `folder`, loaded by the harness."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", batch_size=batch_size, dtype="float32")


def harness_scores(model: Any, task: dict[str, Any], *, shots: int, limit: int) -> dict[str, Any]:
    """Return the harness's scores of its own model, by metric, and the prompts and answers, by document."""
    outcome = _evaluate(model, task, shots, limit=limit)
    (scores,) = outcome["results"].values()
    (samples,) = outcome["samples"].values()
    named = {name.partition(","): value for name, value in scores.items()}
    plain = {name: value for (name, comma, _), value in named.items() if comma and not name.endswith("_stderr")}
    return {"scores": plain, "samples": samples}


def harness_answers(
    model: Any, tokenizer: Any, task: dict[str, Any], *, shots: int, documents: Sequence[int], batch_size: int = 4
) -> tuple[list[list[float]], float]:
    """Return the choices' log-probabilities for these documents by the harness's `hf` model, and the seconds it took.

    Seconds are those of the model's requests alone, without loading data and building prompts.
    """
    from lm_eval.models.huggingface import HFLM

    seconds = 0.0

    class Timed(HFLM):
        def loglikelihood(self, *arguments: Any, **settings: Any) -> Any:
            nonlocal seconds
            began = time.perf_counter()
            answers = super().loglikelihood(*arguments, **settings)
            seconds += time.perf_counter() - began
            return answers

    peer = Timed(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    outcome = _evaluate(peer, task, shots, samples={task["task"]: list(documents)})
    (samples,) = outcome["samples"].values()
    return [[float(pair[0]) for pair in sample["filtered_resps"]] for sample in samples], seconds


def _evaluate(model: Any, task: dict[str, Any], shots: int, **which: Any) -> Any:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)  # the default scan takes ten seconds
    return simple_evaluate(
        model=model, tasks=[task], num_fewshot=shots, bootstrap_iters=0, task_manager=manager, **which
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows as JSON lines and return the path."""
    write_json_lines(path, rows)
    return path


def write_repositories(folder: Path, sets: Mapping[HubSplit, Sequence[Mapping[str, Any]]]) -> None:
    """Write the rows of each split to folder/OWNER/NAME, whose README.md names the splits as `datasets` expects."""
    from datasets import Dataset

    configs: dict[str, dict[str, list[dict[str, str]]]] = {}
    for split, rows in sets.items():
        if split.file:
            write_rows(folder / split.repository / split.file, rows)
            continue
        config = split.config or "default"
        file = f"{config}/{split.split}.parquet"
        Dataset.from_list(list(rows)).to_parquet(folder / split.repository / file)
        splits = configs.setdefault(split.repository, {}).setdefault(config, [])
        splits.append({"split": split.split, "path": file})
    for repository, named in configs.items():
        head = {"configs": [{"config_name": config, "data_files": files} for config, files in named.items()]}
        (folder / repository / "README.md").write_text(f"---\n{json.dumps(head)}\n---\n")
