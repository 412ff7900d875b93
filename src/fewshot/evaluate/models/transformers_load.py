"""A model of the transformers library by its path, measured as itself or refused.

In: the path of a folder, or a name on the hub. Out: the library's model and tokenizer, and a digest of what they hold.
Whatever would make the library measure something else (a tensor that the file lacks is random, one too many belongs to
another model) raises an error of one line, and so does whatever it cannot load. Code in the folder is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_json
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.weights import check_weights, pickled_code
from fewshot.evaluate.models.transformers_tokenizer import TransformersTokenizer

# What the library raises, of its own or from below, for folders that are not what it expects.
LOADER_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    AssertionError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
# Tensors that old files hold and no model needs: masks and tables that are computed.
HARMLESS = re.compile(
    r"\.(attn|attention)\.(masked_)?bias$|\.(causal_mask|inv_freq|sin_cached|cos_cached|position_ids|version)$"
)
NOT_CONTENT = {"_name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype"}
HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")  # anything else can only be a path
OWN_CODE = " brings its own code, which is never run: only models of transformers itself can be measured"
SHOWN_NAMES = 4


def load_parts(name: str) -> tuple[Any, TransformersTokenizer, str]:
    """Return the library's model, its tokenizer as ours, and a digest of both; raises BadValue or BadFile."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError:
        raise BadValue(f"hf:{name} needs the transformers library: pip install 'fewshot[evaluate]'") from None
    path = Path(name).expanduser()
    if not HUB_NAME.fullmatch(name) or path.exists() or (path.parent != Path() and path.parent.exists()):
        _check_folder(path)
        name = str(path)
    with _quiet(), _one_line(name):
        config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if getattr(config, "is_encoder_decoder", False):
            raise BadFile(
                f"{name} is an encoder-decoder ({config.model_type}): only causal language models are measured"
            )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
        model, report = loaded
        library_tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    _check_tensors(name, model, report)
    if library_tokenizer.init_kwargs.get("auto_map"):
        raise BadFile(f"the tokenizer of {name}{OWN_CODE}")  # one of the library's own was put in its place
    tokenizer = TransformersTokenizer(library_tokenizer)
    n_rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.n_vocab > n_rows:
        raise BadValue(
            f"{name}: its tokenizer has {tokenizer.n_vocab:,} tokens, the model knows {n_rows:,}: "
            "they do not belong to the same model, or the model was not resized when tokens were added"
        )
    return model, tokenizer, _digest(model, tokenizer)


def _check_folder(path: Path) -> None:
    """Raise BadFile, with the way out, for a path that is no folder of a whole model."""
    if not path.exists():
        raise BadFile(f"{path} does not exist; the folder of a model, with its config.json, is needed")
    if path.is_file():
        raise BadFile(f"{path} is a file: give the folder of the model as transformers saves it")
    if (path / "adapter_config.json").is_file():
        raise BadFile(
            f"{path} holds an adapter: merge it into its model (peft: merge_and_unload), save that and give its folder"
        )
    if not (path / "config.json").is_file():
        run = RunFolder(path)
        if run.config.is_file() or run.checkpoint_folders():
            raise BadFile(f"{path} is a run of fewshot: leave out the 'hf:' before it")
        inside = " (name one of its GGUF files)" if any(path.glob("*.gguf")) else ""
        raise BadFile(f"{path} holds no config.json{inside}; the folder of a model as transformers saves it is needed")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise BadFile(f"{path / 'config.json'} holds no names and values")
    if any(path.glob("*.safetensors*")) or any(path.glob("*.bin*")):
        check_weights(path)


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Raise what the library raises in this block as a BadFile of one line that says what can be done."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (*LOADER_ERRORS, StrictDataclassError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise  # the command line has a word for that
        raise BadFile(_message(name, error)) from None


def _message(name: str, error: Exception) -> str:
    """Return one line that says why the model was not loaded."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return f"{name}{OWN_CODE}"
    if isinstance(error, pickle.UnpicklingError) and (reason := pickled_code(error, f"{name}: pytorch_model.bin")):
        return reason
    if isinstance(error, (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError)):
        return f"the weights of {name} are damaged or cut short: download them again"
    if "huggingface.co" in text or "hf.co" in text:
        return (
            f"{name} is no folder here, and no model of that name can be loaded from the hub: give the path of a folder"
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = " ".join(" ".join(lines[:2]).split()) if lines[0].endswith(":") else lines[0]
    return f"transformers cannot load {name}: {first}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's tables and bars in this block: what they tell is checked here."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    before, hub_before, bars = logging.get_verbosity(), hub_logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub_logging.set_verbosity(hub_before)
        if bars:
            logging.enable_progress_bar()


def _check_tensors(name: str, model: Any, report: Mapping[str, Any]) -> None:
    """Raise BadFile with the names of tensors that the model needs and the file lacks, or the other way round."""
    shapes = {key: f"{key} is {tuple(shape)}, not {tuple(needed)}" for key, shape, needed in report["mismatched_keys"]}
    missing = set(report["missing_keys"]) - shapes.keys()
    extra = {key for key in report["unexpected_keys"] if not HARMLESS.search(key)}
    wrong = [
        ("its weights lack {}, which transformers would fill with random numbers", missing),
        ("its weights have other sizes than its config.json says: {}", set(shapes.values())),
        ("its weights hold {}, for which its config.json has no place", extra),
        ("its weights hold {} with values of its own, but its config.json ties it to the embeddings", _untied(model)),
        ("transformers says: {}", set(report.get("error_msgs") or [])),
    ]
    faults = [text.format(_listed(keys)) for text, keys in wrong if keys]
    if faults:
        raise BadFile(f"{name} cannot be measured as it is: {'; '.join(faults)}")


def _untied(model: Any) -> set[str]:
    """Return the output matrix's name if the configuration ties it to the embeddings and it differs from them."""
    head, tied = model.get_output_embeddings(), getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if not tied or head is None or torch.equal(head.weight, model.get_input_embeddings().weight):
        return set()
    keys = getattr(model, "_tied_weights_keys", None) or ()
    return {key for key, parameter in model.named_parameters() if key in keys and parameter is head.weight}


def _listed(names: set[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(sorted(names)[:SHOWN_NAMES]) + more


def _digest(model: Any, tokenizer: TransformersTokenizer) -> str:
    """Return a sha256 of all tensors, the configuration and the tokenizer, the same wherever they are stored."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    config = json.dumps(_content(model.config.to_dict()), sort_keys=True, default=str)
    special = json.dumps([tokenizer.eot, tokenizer.start, tokenizer.adds_start])
    for text in (config, tokenizer.to_json(), special):
        digest.update(text.encode())
    return digest.hexdigest()


def _content(value: Any) -> Any:
    """Return the configuration without the values that say where a model is stored and who wrote it."""
    if isinstance(value, dict):
        return {str(key): _content(item) for key, item in value.items() if key not in NOT_CONTENT}
    return [_content(item) for item in value] if isinstance(value, (list, tuple)) else value
