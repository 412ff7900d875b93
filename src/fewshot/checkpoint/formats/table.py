"""Every format of other programs that a model can be read from and written in.

To add one: a file beside this one with its functions, and a row of `FORMATS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fewshot.base.errors import BadFile, BadValue, check, look_up
from fewshot.checkpoint.formats import gpt2, gpt_neo, nanogpt
from fewshot.checkpoint.formats.weights import check_weights_finite
from fewshot.checkpoint.load import load_run
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device
from fewshot.tokenizer.vocab import Tokenizer

HUB = "hf:"  # before the path of a model that another program wrote


@dataclass(frozen=True)
class Format:
    """How one format is recognised, read and, if it is, written. What cannot be raises `FewshotError`."""

    description: str  # what is needed to read it, for messages
    is_in: Callable[[Path], bool]  # whether a folder or file seems to be of this format
    read: Callable[[Path], tuple[GPT, Tokenizer]]
    check: Callable[[GPTConfig], None] | None = None  # raises BadValue for a model that the format cannot express
    write: Callable[[Path, GPT, Tokenizer], None] | None = None  # into a new folder


FORMATS: dict[str, Format] = {
    "gpt2": Format(
        description="a Hugging Face GPT-2 folder, with its config.json,",
        is_in=gpt2.is_gpt2,
        read=gpt2.read_model_and_tokenizer,
        check=gpt2.check_is_gpt2,
        write=gpt2.write_model_and_tokenizer,
    ),
    "gpt_neo": Format(
        description="a GPT-Neo folder,",
        is_in=gpt_neo.is_gpt_neo,
        read=gpt_neo.read_model_and_tokenizer,
        check=gpt_neo.check_is_gpt_neo,
        write=gpt_neo.write_model_and_tokenizer,
    ),
    "nanogpt": Format(
        description="nanoGPT's ckpt.pt, with a vocabulary beside it,",
        is_in=nanogpt.is_nanogpt,
        read=nanogpt.read_model_and_tokenizer,
    ),
}


def open_model(name: str) -> tuple[GPT, Tokenizer, str]:
    """Return a model ready to be read from, its tokenizer, and the digest that tells its weights from others.

    `name` is a run folder (or a checkpoint in it), or `hf:PATH` for what another program wrote.
    """
    path = path_of(name)
    if not name.startswith(HUB):
        model, tokenizer, checkpoint = load_run(path)
        return model, tokenizer, checkpoint.weights
    check(name != HUB, f"give a path after {HUB}, such as {HUB}models/gpt2")
    its_format = format_of(path)
    if its_format is None:
        needed = " or ".join(row.description.rstrip(",") for row in FORMATS.values())
        raise BadFile(f"{name}: there is no model that can be read; {needed} is needed")
    model, tokenizer = its_format.read(path)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=path)
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return model.to(machine_device()).eval(), tokenizer, digest.hexdigest()


def path_of(name: str) -> Path:
    """Return the path in the name of a model: a run, or `hf:PATH`."""
    return Path(os.path.expanduser(name.removeprefix(HUB)))  # noqa: PTH111 - "~nobody" is a name


def format_of(path: Path) -> Format | None:
    """Return the first format that `path` seems to be of; None if it is of none."""
    return next((row for row in FORMATS.values() if row.is_in(path)), None)


def writer_of(config: GPTConfig, name: str | None) -> Callable[[Path, GPT, Tokenizer], None]:
    """Return what writes a model of this shape: of the named format, else of the first that can express it.

    Raises BadValue, with the reason, where it cannot be expressed.
    """
    written = {key: row for key, row in FORMATS.items() if row.write is not None}
    reasons = []
    for row in written.values() if name is None else [look_up("format", name, written)]:
        try:
            assert row.check is not None
            assert row.write is not None
            row.check(config)
            return row.write
        except BadValue as error:
            reasons.append(str(error))
    raise BadValue(reasons[-1])


def check_convertible(model: GPT, *, n_tokens: int, source: Path) -> None:
    """Raise BadValue where the tokenizer has more tokens than the model, NotFinite where weights are no numbers."""
    n_vocab = model.config.n_vocab
    check(
        n_tokens <= n_vocab,
        f"{source}: its tokenizer has {n_tokens:,} tokens, but the model has {n_vocab:,}: they do not "
        "belong to the same model",
    )
    check_weights_finite(model.state_dict(), source)
