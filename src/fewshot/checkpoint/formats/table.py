"""Every format of other programs that a model can be read from and written in.

To add one: a file beside this one with its functions, and a row of `FORMATS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from fewshot.base.errors import BadFile, BadValue, check, look_up
from fewshot.checkpoint.formats import gguf, llmc, nanogpt, onnx, page
from fewshot.checkpoint.formats.hugging_face import gpt2, gpt_neo, openai_gpt, opt, own_code
from fewshot.checkpoint.formats.hugging_face.folder import and_tokenizer, with_tokenizer
from fewshot.checkpoint.formats.weights import check_weights_finite
from fewshot.checkpoint.load import load_run
from fewshot.checkpoint.runtimes.chromium import check_in_chromium
from fewshot.checkpoint.runtimes.compare import Checked
from fewshot.checkpoint.runtimes.llama_cpp import check_with_llama_cpp
from fewshot.checkpoint.runtimes.onnx import check_with_onnxruntime
from fewshot.checkpoint.runtimes.transformers import check_with_transformers
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device
from fewshot.tokenizer.vocab import Tokenizer

TRANSFORMERS = "pip install 'fewshot[evaluate]'"
STOCK = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
prompt = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))
```"""
NO_FLASH = "Leave out `attn_implementation`: flash attention ignores the window of the local layers."
OWN = "Its class is in the folder, `modeling_fewshot.py`, and is run with `trust_remote_code=True`."
LLAMA = "`llama-cli -m model.gguf -p TEXT`, or `ollama create NAME -f Modelfile` and `ollama run NAME`."
ORT = "`onnxruntime.InferenceSession('model.onnx')`: `input_ids` [batch, length] to `logits`; it has no cache."
PAGE = "Open `index.html` in a browser. It needs no network and no other file."
HUB = "hf:"  # before the path of a model that another program wrote


Is = Callable[[Path], bool]
ReadModel = Callable[[Path], GPT]
Check = Callable[[GPTConfig], None]
Compare = Callable[[Path, GPT, Tokenizer], Checked]
WriteModel = Callable[..., None]  # of the folder and the model, with the id that ends a text as `eot`


@dataclass(frozen=True)
class Format:
    """How one format is recognised, read and, if it is, written. What cannot be raises `FewshotError`."""

    description: str = ""  # what is needed to read it, for messages; empty for one that is only written
    is_in: Is = lambda _: False  # whether a folder or file seems to be of this format
    read: Callable[[Path], tuple[GPT, Tokenizer]] | None = None
    check: Check | None = None  # raises BadValue for a model that the format cannot express
    write: Callable[[Path, GPT, Tokenizer], None] | None = None  # into a new folder
    # compares what the format's own program computes; raises ExportDiffers, ModuleNotFoundError where it is missing
    compare: Compare | None = None
    install: str = ""  # how to get that program
    library: str = "transformers"  # that reads it, as Hugging Face's cards name it
    usage: str = ""  # how to read what was written, for its card
    stock: bool = False  # a class of transformers reads it


def _of_transformers(
    description: str,
    is_in: Is,
    read: ReadModel,
    check: Check,
    write: WriteModel,
    *,
    compare: Compare = check_with_transformers,
    usage: str = STOCK,
    stock: bool = True,
) -> Format:
    """Return a format whose folders the transformers library reads."""
    return Format(
        description=description,
        is_in=is_in,
        read=with_tokenizer(read),
        check=check,
        write=and_tokenizer(write),
        compare=compare,
        install=TRANSFORMERS,
        usage=usage,
        stock=stock,
    )


def _gguf(kind: str) -> Format:
    """Return a format of one file, with matrices of a type, that is written."""
    return Format(
        check=gguf.check_is_gguf,
        write=partial(gguf.write_gguf, kind=kind),
        compare=partial(check_with_llama_cpp, kind=kind),
        install=gguf.INSTALL_TO_RUN,
        library="gguf",
        usage=LLAMA,
    )


FORMATS: dict[str, Format] = {
    "nanogpt": Format(
        description="nanoGPT's ckpt.pt, with a vocabulary beside it,",
        is_in=nanogpt.is_nanogpt,
        read=nanogpt.read_model_and_tokenizer,
    ),
    "gpt2": _of_transformers(
        "a Hugging Face GPT-2 folder, with its config.json,",
        gpt2.is_gpt2,
        gpt2.read_hugging_face,
        gpt2.check_is_gpt2,
        gpt2.write_hugging_face,
    ),
    "gpt_neo": _of_transformers(
        "a GPT-Neo folder,",
        gpt_neo.is_gpt_neo,
        gpt_neo.read_gpt_neo,
        gpt_neo.check_is_gpt_neo,
        gpt_neo.write_gpt_neo,
        usage=f"{STOCK}\n\n{NO_FLASH}",
    ),
    "opt": _of_transformers("an OPT folder,", opt.is_opt, opt.read_opt, opt.check_is_opt, opt.write_opt),
    "openai-gpt": _of_transformers(
        "a GPT-1 folder,",
        openai_gpt.is_openai_gpt,
        openai_gpt.read_openai_gpt,
        openai_gpt.check_is_openai_gpt,
        openai_gpt.write_openai_gpt,
        compare=partial(check_with_transformers, cache=False),
    ),
    "code": _of_transformers(
        "a folder with fewshot's class for transformers,",
        own_code.is_own_code,
        own_code.read_own_code,
        own_code.check_is_own_code,
        own_code.write_own_code,
        compare=partial(check_with_transformers, own_code=True),
        usage=STOCK.replace('FOLDER")', 'FOLDER", trust_remote_code=True)') + f"\n\n{OWN}",
        stock=False,
    ),
    "llm.c": Format(
        description="a model file of llm.c, with a vocabulary beside it,",
        is_in=llmc.is_llmc,
        read=llmc.read_model_and_tokenizer,
    ),
    "gguf": replace(_gguf("f32"), description="a GGUF file of a GPT-2,", is_in=gguf.is_gguf, read=gguf.read_gguf),
    "gguf_f16": _gguf("f16"),
    "gguf_q8_0": _gguf("q8_0"),
    "page": Format(
        check=page.check_is_page,
        write=page.write_page,
        compare=check_in_chromium,
        install=page.INSTALL_TO_RUN,
        library="fewshot",
        usage=PAGE,
    ),
    "onnx": Format(
        check=onnx.check_is_onnx,
        write=onnx.write_onnx,
        compare=check_with_onnxruntime,
        install=onnx.INSTALL_TO_RUN,
        library="onnx",
        usage=ORT,
    ),
}
READ = [row.description for row in FORMATS.values() if row.read is not None]


def open_model(name: str) -> tuple[GPT, Tokenizer, str]:
    """Return a model ready to be read from, its tokenizer, and the digest that tells its weights from others.

    `name` is a run folder (or a checkpoint in it), or `hf:PATH` for what another program wrote.
    """
    path = path_of(name)
    if not name.startswith(HUB):
        model, tokenizer, checkpoint = load_run(path)
        return model, tokenizer, checkpoint.weights
    check(name != HUB, f"give a path after {HUB}, such as {HUB}models/gpt2")
    read = reader_of(path)
    if read is None:
        needed = " or ".join(description.rstrip(",") for description in READ)
        raise BadFile(f"{name}: there is no model that can be read; {needed} is needed")
    model, tokenizer = read(path)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=path)
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return model.to(machine_device()).eval(), tokenizer, digest.hexdigest()


def path_of(name: str) -> Path:
    """Return the path in the name of a model: a run, or `hf:PATH`."""
    return Path(os.path.expanduser(name.removeprefix(HUB)))  # noqa: PTH111 - "~nobody" is a name


def reader_of(path: Path) -> Callable[[Path], tuple[GPT, Tokenizer]] | None:
    """Return what reads the first format that `path` seems to be of; None if it is of none."""
    return next((row.read for row in FORMATS.values() if row.is_in(path)), None)


def is_read_here_alone(path: Path) -> bool:
    """Return whether `path` seems to be of a format that is read here and of none that transformers has a class for."""
    stock = [row.stock for row in FORMATS.values() if row.is_in(path)]
    return bool(stock) and not any(stock)


def targets(config: GPTConfig) -> dict[str, str | None]:
    """Return for every format that is written why it cannot express a model of this shape; None: it can."""
    return {name: _reason_against(row, config) for name, row in FORMATS.items() if row.write is not None}


def _reason_against(row: Format, config: GPTConfig) -> str | None:
    try:
        return None if row.check is None else row.check(config)
    except BadValue as error:
        return str(error)


def format_for(config: GPTConfig, name: str | None) -> str:
    """Return the name of the format that a model of this shape is written in: the named one, else the first that can.

    Raises BadValue, with the reason, where it cannot be expressed.
    """
    written = {key: row for key, row in FORMATS.items() if row.write is not None}
    if name is not None:
        written = {name: look_up("format", name, written)}
    reason = None
    for key, row in written.items():
        reason = _reason_against(row, config)
        if reason is None:
            return key
    raise BadValue(f"{reason}; or see 'fewshot convert RUN --targets' for what can hold this one")


def check_convertible(model: GPT, *, n_tokens: int, source: Path) -> None:
    """Raise BadValue where the tokenizer has more tokens than the model, NotFinite where weights are no numbers."""
    n_vocab = model.config.n_vocab
    check(
        n_tokens <= n_vocab,
        f"{source}: its tokenizer has {n_tokens:,} tokens, but the model has {n_vocab:,}: they do not "
        "belong to the same model",
    )
    check_weights_finite(model.state_dict(), source)
