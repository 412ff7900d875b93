"""Weight files of other programs, in one piece or in several, read with an error that names the file.

In: a folder of the Hugging Face layout. Out: its tensors by name. Does not know what model they are of. Code in a
file is never run, and no file outside the folder is opened.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fewshot.base.errors import BadFile, NotFinite
from fewshot.base.files import read_json
from fewshot.base.tensors import first_not_finite

NAMES = ("model.safetensors", "pytorch_model.bin")
POINTER = b"version https://git-lfs"  # how the small text begins that git keeps in the place of a large file
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PICKLED_CODE = "GLOBAL"  # in torch's messages: the file asks for a function or a class


def find_weights(folder: Path) -> tuple[Path, dict[str, str] | None]:
    """Return the weights' file of a folder, or the index of its parts with the part of every tensor.

    Raises BadFile where there is neither.
    """
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name, None
        index = folder / f"{name}.index.json"
        if index.is_file():
            return index, _parts(index)
    raise BadFile(f"{folder} holds neither {NAMES[0]} nor {NAMES[1]}, whole or in parts (.index.json)")


def _parts(index: Path) -> dict[str, str]:
    """Return the file of each tensor; raise BadFile for one that is not beside the index."""
    plain = read_json(index)
    parts = plain.get("weight_map") if isinstance(plain, dict) else None
    if not isinstance(parts, dict) or not parts:
        raise BadFile(f"{index} is no index of weights: it lacks weight_map, which names the file of every tensor")
    for part in parts.values():
        if not isinstance(part, str) or part in ("", ".", "..") or {"/", "\\", "\0"} & set(part):
            raise BadFile(f"{index} names the file {part!r}; only files beside it are read")
        if not (index.parent / part).is_file():
            raise BadFile(f"{index.parent / part} is missing, a part of the weights: download it again")
    return parts


def check_weights(folder: Path) -> None:
    """Raise BadFile, with the file's name, if a file of weights is missing, cut short or not what it should be.

    Only of safetensors files, as their first bytes tell how long they are; damage of others shows when they are read.
    """
    whole, parts = find_weights(folder)
    for file in [whole] if parts is None else sorted({folder / part for part in parts.values()}):
        _check_pointer(file)
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except SafetensorError:
                raise BadFile(_damaged(file)) from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder by name.

    Raises BadFile for what cannot be read, NotFinite for a NaN or an infinity.
    """
    file, parts = find_weights(folder)
    if parts is None:
        tensors = _tensors_of(file)
    else:
        by_file = {part: _tensors_of(folder / part) for part in sorted(set(parts.values()))}
        for name, part in parts.items():
            if name not in by_file[part]:
                raise BadFile(f"{folder / part} lacks {name}, which {file.name} says it holds: download both again")
        tensors = {name: by_file[part][name] for name, part in parts.items()}
    check_weights_finite(tensors, file)
    return tensors


def _tensors_of(file: Path) -> dict[str, Tensor]:
    """Return the tensors of one file; raises BadFile."""
    state = read_plain(file)
    check_plain_tensors(state, file)
    tensors: dict[str, Tensor] = state
    return tensors


def check_plain_tensors(state: Any, where: object) -> None:
    """Raise BadFile unless this is a mapping of names to ordinary tensors, with all their numbers."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise BadFile(f"{where} holds no tensors by name")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise BadFile(f"{where}: {name[:80]} is no ordinary tensor")
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype not in FLOATS):
            raise BadFile(f"{where}: {name[:80]} is of type {tensor.dtype}, which is not read")


def read_plain(file: Path) -> Any:
    """Return what a file of safetensors or of torch's pickles holds: tensors and plain values; raises BadFile."""
    _check_pointer(file)
    try:
        with warnings.catch_warnings(action="ignore"):  # about old pickles: what cannot be read raises below
            if file.suffix == ".safetensors":
                return load_file(file)
            return torch.load(file, weights_only=True, map_location="cpu")
    except (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        if "memory" in str(error):
            raise
        raise BadFile(_damaged(file)) from None
    except pickle.UnpicklingError as error:
        raise BadFile(pickled_code(error, file) or _damaged(file)) from None


def check_weights_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise NotFinite with the first tensor that holds a NaN or an infinity, and the file or folder it is from."""
    name = first_not_finite(tensors)
    if name is not None:
        raise NotFinite(f"{where}: {name} holds numbers that are not finite; such a model cannot be used")


def pickled_code(error: Exception, file: Any) -> str:
    """Return a message for a file that holds code; empty for one that is merely damaged."""
    if PICKLED_CODE not in str(error):
        return ""
    return f"{file} holds pickled code, which is never run: get the model as safetensors"


def _check_pointer(file: Path) -> None:
    with file.open("rb") as data:
        if data.read(len(POINTER)) == POINTER:
            raise BadFile(f"{file} is a pointer of git-lfs, not the weights: get them with: git lfs pull")


def _damaged(file: Path) -> str:
    return f"{file} is damaged or cut short: download it again"
