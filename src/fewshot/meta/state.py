"""The file of a loop that was stopped. In: tensors and facts about them. Out: the same, or that it is damaged.

A checksum over all of it is kept with it: one file is whole or not there, two could be parted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot.base.errors import BadFile
from fewshot.base.files import parse_json, to_json, written_whole
from fewshot.base.log import note
from fewshot.checkpoint.save import write_tensors

CHECKSUM = "sha256"  # the fact that is of all others and of the tensors
SHOWN = 30  # characters of a value in a message


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, whole or not at all; a number in a fact that is not finite raises NotFinite."""
    texts = {name: to_json(fact, where=path) for name, fact in facts.items()}
    with written_whole(path) as partial:
        write_tensors(partial, tensors, {**texts, CHECKSUM: _checksum(tensors, texts)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, facts) as they were written; raises BadFile for what was changed since."""
    try:
        with safe_open(path, "pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from None
    recorded = texts.pop(CHECKSUM, None)
    if recorded is None:
        note(f"{path} has no checksum, as those of earlier versions: whether it was changed since is not known")
    elif recorded != _checksum(tensors, texts):
        raise damaged(path, "its content is not what was written")
    return tensors, {name: parse_json(text, path) for name, text in texts.items()}


def damaged(path: Path, reason: str) -> BadFile:
    """Return the error for a file that is no state any more."""
    return BadFile(f"{path} is damaged ({reason}): delete it to begin anew, or give another --out")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and values, in their order."""
    hashed = hashlib.sha256()
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    whole = f"{digest(dict(sorted(tensors.items())))} {to_json(dict(sorted(texts.items())), where='a state')}"
    return hashlib.sha256(whole.encode()).hexdigest()


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield where two nested settings differ, such as "outer.lr is 0.001 there, 0.01 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif there != here:
        yield f"{name} is {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    spelled = "not given" if value is None else f"{value}"
    return spelled if len(spelled) <= SHOWN else f"{spelled[:SHOWN]}..."
