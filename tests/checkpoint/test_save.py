from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from fewshot.base.errors import BadValue, NotFinite
from fewshot.checkpoint.folder import RunFolder, checkpoint_name
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.save import check_finite, prune, save, write_tensors
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

CONFIG = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_a_folder_of_weights_moments_and_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, GPT(CONFIG), step=20, training={"m": torch.ones(3)})
    assert path == tmp_path / "checkpoints" / "step-00000020"
    assert names(path) == ["manifest.json", "model.safetensors", "training.safetensors"]
    assert sorted([checkpoint_name(100), checkpoint_name(9)]) == [checkpoint_name(9), checkpoint_name(100)]


def test_the_weights_are_a_plain_safetensors_file_with_gpt2_names(tmp_path: Path) -> None:
    model = GPT(CONFIG)
    path = save(tmp_path, model, step=1)
    assert not (path / "training.safetensors").exists()
    weights = safetensors.torch.load_file(path / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()
    assert torch.equal(weights["h.1.mlp.c_fc.weight"], model.h[1].mlp.c_fc.weight)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        save(tmp_path, GPT(CONFIG), step=step)
        prune(tmp_path, keep=3)
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000010", "step-00000015", "step-00000100"]
    with pytest.raises(BadValue, match="checkpoints to keep is 0, must be at least 1"):
        prune(tmp_path, keep=0)


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, GPT(CONFIG), step=1, training={"m": torch.ones(3)})
    second = GPT(CONFIG)
    save(tmp_path, second, step=1)
    loaded = load_model(find_checkpoint(tmp_path))
    assert torch.equal(loaded.wte.weight, second.wte.weight)
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000001"]


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(tensors: object, path: Path, **kwargs: object) -> None:
    path.write_bytes(b"half of it")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("target", "failure"),
    [
        (f"{save.__module__}.save_file", no_space_in_rust),
        (f"{save.__module__}.write_manifest", no_space),
        ("os.fsync", no_space),
        ("pathlib.Path.replace", no_space),
    ],
)
def test_a_full_disk_leaves_the_older_checkpoints_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, failure: object
) -> None:
    for step in (1, 2):
        save(tmp_path, GPT(CONFIG), step=step)
    before = content(tmp_path)
    monkeypatch.setattr(target, failure)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save(tmp_path, GPT(CONFIG), step=3)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert content(tmp_path) == before
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000001", "step-00000002"]
    assert find_checkpoint(tmp_path).step == 2


def test_the_library_says_what_the_system_refused_as_this_test_assumes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory") as caught:
        write_tensors(tmp_path / "none" / "a.safetensors", {"a": torch.zeros(3)})
    assert caught.value.filename == str(tmp_path / "none" / "a.safetensors")


def test_tensors_that_cannot_be_written_for_another_reason_keep_their_error(
    tmp_path: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise SafetensorError("some other trouble")

    set_in_module(write_tensors, "save_file", refuse)
    with pytest.raises(SafetensorError, match="some other trouble"):
        write_tensors(tmp_path / "a", {})


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"t": torch.arange(6.0).view(2, 3).T})
    assert safetensors.torch.load_file(tmp_path / "a")["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_a_killed_process_left_is_removed_by_the_next_save(tmp_path: Path) -> None:
    save(tmp_path, GPT(CONFIG), step=1)
    litter = RunFolder(tmp_path).checkpoints / ".step-00000002.abc.partial" / "step-00000002"
    litter.mkdir(parents=True)
    (litter / "model.safetensors").write_bytes(b"half of it")
    assert find_checkpoint(tmp_path).step == 1
    save(tmp_path, GPT(CONFIG), step=2)
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000001", "step-00000002"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["wte.weight", "h.1.mlp.c_proj.weight", "h.0.ln_1.bias", "ln_f.weight", "moments"])
def test_what_is_not_finite_is_not_written_and_pushes_nothing_out(tmp_path: Path, where: str, value: float) -> None:
    save(tmp_path, GPT(CONFIG), step=1)
    before = content(tmp_path)
    model, moments = GPT(CONFIG), {"wte.weight/exp_avg": torch.ones(11, 12), "wte.weight/step": torch.tensor(2.0)}
    with torch.no_grad():
        (moments["wte.weight/exp_avg"] if where == "moments" else model.state_dict()[where]).view(-1)[-1] = value
    name = "wte.weight/exp_avg" if where == "moments" else where
    with pytest.raises(NotFinite, match=f"^{name} is not finite: it goes from "):
        save(tmp_path, model, step=2, training=moments)
    assert content(tmp_path) == before


def test_large_and_whole_and_no_numbers_are_finite() -> None:
    check_finite({"large": torch.tensor([3e38, -3e38]), "half": torch.ones(3, dtype=torch.bfloat16)})
    check_finite({"whole": torch.arange(3), "none": torch.zeros(0), "one": torch.tensor(1.0)})
    check_finite({"part": torch.randn(6, 5)[::2].T})


def test_a_checkpoint_that_was_changed_by_hand_is_not_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        path = save(tmp_path, GPT(CONFIG), step=step)
        if step == 2:
            (path / "notes.txt").write_text("the good one")
    (RunFolder(tmp_path).checkpoint(1) / "manifest.json").write_text("{")
    prune(tmp_path, keep=1)
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000001", "step-00000002", "step-00000004"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_a_checkpoint_is_what_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        path = save(tmp_path, GPT(CONFIG), step=1, training={"m": torch.ones(3)})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {mode}
