"""ONNX, which many programs and browsers run, written: any model, with its mask computed as the definition has it.

In: a model and its tokenizer. Out: `model.onnx`, from token ids of any batch and length up to n_ctx to logits, and the
tokenizer's files. It has no cache: a token more is a pass over the whole text.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fewshot.base.errors import BadValue, check
from fewshot.base.files import written_whole
from fewshot.checkpoint.formats.hugging_face.folder import write_tokenizer
from fewshot.kernels import reference
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

FILE, INPUT, OUTPUT = "model.onnx", "input_ids", "logits"
INSTALL = "pip install 'fewshot[export]'"
INSTALL_TO_RUN = "pip install onnxruntime"
LARGEST_FILE = 2**31 - 2**24  # bytes that one file of the format can have, less what is no weight


def check_is_onnx(config: GPTConfig) -> None:
    """Raise BadValue for a model of which no length can be left open."""
    check(config.n_ctx > 1, f"this model cannot be converted: n_ctx is {config.n_ctx}, ONNX needs at least 2")


def write_onnx(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Write `model.onnx` and the tokenizer; weights beyond 2 GB go into a file beside it, `model.onnx.data`."""
    check_is_onnx(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, tokenizer, n_ctx=model.config.n_ctx)
    plain = GPT(model.config, attend=reference.attend).eval()
    plain.load_state_dict(model.state_dict())
    length = torch.export.Dim("length", max=model.config.n_ctx)
    example = torch.zeros(2, min(16, model.config.n_ctx), dtype=torch.long)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                plain,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch"), 1: length},),
            )
    except ImportError:
        raise BadValue(f"ONNX needs a package that is not installed: {INSTALL}") from None
    assert program is not None
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in plain.state_dict().values())
    if n_bytes > LARGEST_FILE:
        program.save(folder / FILE, external_data=True)
    else:
        with written_whole(folder / FILE) as file:
            program.save(file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of itself and of packages that are not needed here."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)
