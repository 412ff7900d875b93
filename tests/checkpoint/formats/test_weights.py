from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fewshot.base.errors import BadFile, FewshotError, NotFinite
from fewshot.checkpoint.formats.weights import check_weights, read_weights


class Code:
    """Its pickle runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def parts(folder: Path, weight_map: Any) -> None:
    for name in ("a", "b"):
        save_file({name: torch.ones(2)}, folder / f"{name}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def old(folder: Path, value: Any, *, zipped: bool = True) -> None:
    torch.save(value, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda f: None, "holds neither model.safetensors nor pytorch_model.bin, whole or in parts"),
    "a part above the folder": (lambda f: parts(f, {"a": "../a.safetensors"}), "only files beside it are read"),
    "an absolute part": (lambda f: parts(f, {"a": str(f / "a.safetensors")}), "only files beside it are read"),
    "a part in a folder": (lambda f: parts(f, {"a": "in/a.safetensors"}), "only files beside it are read"),
    "a part behind a backslash": (lambda f: parts(f, {"a": "..\\a.safetensors"}), "only files beside it are read"),
    "the folder itself": (lambda f: parts(f, {"a": "."}), "only files beside it are read"),
    "a part without a name": (lambda f: parts(f, {"a": ""}), "only files beside it are read"),
    "a part that is a number": (lambda f: parts(f, {"a": 3}), "only files beside it are read"),
    "a part that is not there": (lambda f: parts(f, {"a": "c.safetensors"}), "c.safetensors is missing"),
    "a tensor that is elsewhere": (
        lambda f: parts(f, {"a": "a.safetensors", "b": "a.safetensors"}),
        "a.safetensors lacks b, which model.safetensors.index.json says it holds",
    ),
    "an index of no tensors": (lambda f: parts(f, {}), "lacks weight_map"),
    "an index that is a list": (lambda f: parts(f, ["a"]), "lacks weight_map"),
    "an index that is cut": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {'),
        "index.json is not JSON",
    ),
    "code": (lambda f: old(f, {"a": Code(f / "ran")}), "holds pickled code, which is never run"),
    "code in the format before": (
        lambda f: old(f, {"a": Code(f / "ran")}, zipped=False),
        "holds pickled code, which is never run",
    ),
    "a bare pickle": (lambda f: (f / "pytorch_model.bin").write_bytes(pickle.dumps([1], 2)), "damaged or cut short"),
    "a list": (lambda f: old(f, [torch.ones(2)]), "holds no tensors by name"),
    "a nested one": (lambda f: old(f, {"state_dict": {"a": torch.ones(2)}}), "state_dict is no ordinary tensor"),
    "a NaN": (
        lambda f: old(f, {"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}),
        "b holds numbers that are not finite",
    ),
    "an infinity": (
        lambda f: save_file({"c": torch.tensor([float("inf")]).half()}, f / "model.safetensors"),
        "c holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_cannot_be_read_are_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    make, message = WRONG[name]
    make(tmp_path)
    with pytest.raises(FewshotError, match=message) as caught:
        read_weights(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NotFinite if "finite" in message else BadFile)
    assert not (tmp_path / "ran").exists()


def test_parts_are_one_model_and_what_an_index_leaves_out_is_left_out(tmp_path: Path) -> None:
    parts(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    assert read_weights(tmp_path).keys() == {"a", "b"}
    parts(tmp_path, {"b": "b.safetensors"})
    assert read_weights(tmp_path).keys() == {"b"}


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, 60, -1])
def test_every_cut_of_a_file_is_found_before_it_is_read_whole(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(9)}, file)
    check_weights(tmp_path)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(BadFile, match="damaged or cut short: download it again"):
        check_weights(tmp_path)
