"""What onnxruntime computes from an exported `model.onnx`, beside the model that was exported."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fewshot.checkpoint.runtimes.compare import Checked, compare_greedy, compare_logits
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer


def check_with_onnxruntime(folder: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    """Compare logits and greedy text; raises ExportDiffers, ModuleNotFoundError where onnxruntime is not installed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def logits(tokens: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"input_ids": tokens.numpy()})[0])

    def greedy(prompt: list[int], count: int) -> list[int]:
        written = list(prompt)
        for _ in range(count):
            written.append(int(logits(torch.tensor([written]))[0, -1].argmax()))
        return written[len(prompt) :]

    by = f"onnxruntime {onnxruntime.__version__}"
    lengths, largest, worst = compare_logits(model, logits, n_tokens=tokenizer.n_vocab, by=by)
    return Checked(
        by=by,
        lengths=lengths,
        largest_logit=largest,
        largest_difference=worst,
        greedy_tokens=compare_greedy(model, greedy, n_tokens=tokenizer.n_vocab, by=by),
        texts=0,
    )
