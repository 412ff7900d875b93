"""The state file of an outer loop. In: tensors and facts about them. Out: the same again, or an error if it is damaged.

Tensors, facts and a checksum over both are one file: of two, one could be replaced without the other.
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

CHECKSUM = "sha256"  # the fact that holds the checksum of the tensors and all other facts
MAX_CHARACTERS = 30  # of a value in a message
EARLIER: Mapping[str, Any] = {  # settings that states of earlier versions lack, and what they had
    "seeds": 1,
    "pattern": "dense",
    "learner": {"algorithm": "context"},  # no learner in weights, whatever its other settings would have been
    "learner_outer": {},
    "widths": [32],
}


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, whole or not at all; raises NotFinite for a fact with a number that is not finite."""
    texts = {name: to_json(fact, where=path) for name, fact in facts.items()}
    with written_whole(path) as partial:
        write_tensors(partial, tensors, {**texts, CHECKSUM: _checksum(tensors, texts)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, facts) as they were written; raises BadFile if the file was changed since."""
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
    """Return the error for a damaged state file."""
    return BadFile(f"{path} is damaged ({reason}): delete it to start again, or give another --out")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of the tensors' names, shapes and values, in their order."""
    hashed = hashlib.sha256()
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    whole = f"{digest(dict(sorted(tensors.items())))} {to_json(dict(sorted(texts.items())), where='a state')}"
    return hashlib.sha256(whole.encode()).hexdigest()


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield the differences of two nested settings, such as "outer.lr is 0.001 there, 0.01 here".

    A setting that is not given is null, or what it was before there was such a setting: a part of one there is told.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            before, dotted = EARLIER.get(key), f"{name}.{key}" if name else str(key)
            known, now = there.get(key, before), here.get(key, before)
            if key not in there and isinstance(before, Mapping) and isinstance(now, Mapping):
                now = {part: now.get(part) for part in before}
            yield from differences(known, now, dotted)
    elif there != here:
        yield f"{name} is {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    spelled = "not given" if value is None else f"{value}"
    return spelled if len(spelled) <= MAX_CHARACTERS else f"{spelled[:MAX_CHARACTERS]}..."
