"""Twenty steps on made-up text, float32, one thread, kernels fixed by name; run it to write the golden losses.

OMP_NUM_THREADS=1 python tests/train/golden/make_loss_trail.py
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import torch

from fewshot.train.run import start

N_CTX, ROWS, STEPS = 32, 4, 20
WORDS = ["the", "old", "river", "bends", "under", "a", "stone", "bridge", "and", "slowly", "rises", "\n"]
TRAILS = {
    "dense, adamw": ({"pattern": "dense"}, {"name": "adamw", "lr": 3e-3}, {}),
    "banded, normuon": ({"pattern": "alternate(dense, banded(5))", "dropout": 0.1}, {"name": "normuon"}, {}),
    "masked, muon": ({"pattern": "dense"}, {"name": "muon"}, {"document_masking": True, "micro_rows": 3}),
}


def trail(folder: Path) -> dict[str, list[float]]:
    """Return the losses of all steps, then the validation loss, of each small training."""
    folder.mkdir(parents=True)
    documents = [" ".join(random.Random(i).choices(WORDS, k=40)) for i in range(150)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: _losses(folder / str(i), folder / "text.jsonl", name) for i, name in enumerate(TRAILS)}
    finally:
        torch.set_num_threads(threads)


def _losses(run: Path, text: Path, name: str) -> list[float]:
    model, optimizer, loop = TRAILS[name]
    tokens = N_CTX * ROWS * STEPS
    given = {
        "text": str(text),
        "data": {"tokenizer": "chars", "val_by": "tail"},
        "model": {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_ctx": N_CTX, **model},
        "schedule": {
            "n_tokens": tokens,
            "batch_tokens": N_CTX * ROWS,
            "batch_start_tokens": N_CTX,
            "ramp_tokens": 6 * N_CTX,
            "warmup_tokens": 10 * N_CTX,
            "decay_tokens": tokens,
        },
        "optimizer": optimizer,
        "loop": {"kernel": "reference", "precision": "float32", "compile": "never", "micro_rows": 4, **loop},
    }
    reports = list(start(given, run, say=lambda line: None))
    assert reports[-1].val_loss is not None
    return [*(report.loss for report in reports), reports[-1].val_loss]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        losses = trail(Path(folder) / "run")
    (Path(__file__).parent / "loss_trail.json").write_text(json.dumps(losses, indent=1) + "\n")
