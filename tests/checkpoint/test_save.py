from __future__ import annotations

import errno
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from several_processes import cut_along, in_processes

from fewshot.base.dist import ALONE, Processes
from fewshot.base.errors import BadFile, BadValue, DamagedCheckpoint, NotFinite
from fewshot.checkpoint.folder import RunFolder, checkpoint_name
from fewshot.checkpoint.load import find_checkpoint, load_model, load_training
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, read_manifest
from fewshot.checkpoint.pieces import Piece, whole, whole_pieces
from fewshot.checkpoint.save import (
    Content,
    check_content,
    check_finite,
    prune,
    save,
    share_of,
    write_checkpoint,
    write_tensors,
)
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


# ---- several processes


def held_by(model: GPT, moments: dict[str, torch.Tensor], n_ranks: int) -> list[dict[str, list[Piece]]]:
    """What each process holds of a model: tensors cut in turns along their first or last dimension, scalars on all."""
    held: list[dict[str, list[Piece]]] = [{WEIGHTS: [], TRAINING: []} for _ in range(n_ranks)]
    for file, tensors in {WEIGHTS: model.state_dict(), TRAINING: moments}.items():
        for number, (name, tensor) in enumerate(tensors.items()):
            parts = cut_along(name, tensor, -(number % 2) % max(tensor.ndim, 1), n_ranks) if tensor.ndim else []
            for rank in range(n_ranks):
                held[rank][file].append(parts[rank] if parts else whole(name, tensor))
    return held


def moments_of(model: GPT) -> dict[str, torch.Tensor]:
    moments = {f"{name}/exp_avg": torch.randn_like(weight) for name, weight in model.state_dict().items()}
    return moments | {f"{name}/step": torch.tensor(7.0) for name in model.state_dict()}


def save_together(run: Path, held: list[dict[str, list[Piece]]], step: int) -> list[Path | Exception]:
    def write(processes: Processes) -> Path:
        content: Content = held[processes.rank]
        check_content(content, processes=processes)
        share = share_of(content, processes=processes)
        return write_checkpoint(run, share, step=step, config=CONFIG, counters={}, processes=processes)

    return in_processes(len(held), write)


def test_four_processes_write_what_one_reads_as_if_it_were_from_one(tmp_path: Path) -> None:
    model = GPT(CONFIG).eval()
    moments = moments_of(model)
    paths = save_together(tmp_path, held_by(model, moments, 4), step=5)
    assert paths == [RunFolder(tmp_path).checkpoint(5)] * 4
    checkpoint = find_checkpoint(tmp_path)
    assert sorted(checkpoint.files) == [
        f"{file}-0000{n}-of-00004.safetensors" for file in ("model", "training") for n in (1, 2, 3, 4)
    ]
    loaded, tokens = load_model(checkpoint), torch.arange(7)[None]
    assert torch.equal(loaded(tokens), model(tokens))
    training = load_training(checkpoint)
    assert training.keys() == moments.keys()
    assert all(torch.equal(training[name], tensor) for name, tensor in moments.items())
    assert sorted(file.stat().st_mode & 0o777 for file in checkpoint.path.iterdir()) == [0o644] * 9


def test_what_several_processes_hold_is_written_once_and_shared_out_evenly(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.zeros(100) for number in range(8)}
    shares = in_processes(4, lambda processes: share_of({WEIGHTS: whole_pieces(tensors)}, processes=processes))
    written = [[piece.name for piece in share[WEIGHTS]] for share in shares]
    assert sorted(name for names in written for name in names) == sorted(tensors)
    assert [len(names) for names in written] == [2, 2, 2, 2]
    large = {"large": torch.zeros(1000), **tensors}
    shares = in_processes(2, lambda processes: share_of({WEIGHTS: whole_pieces(large)}, processes=processes))
    assert [[piece.name for piece in share[WEIGHTS]] for share in shares] == [["large"], sorted(tensors)]


def test_a_layout_that_leaves_an_element_to_nobody_is_a_fault_at_once(tmp_path: Path) -> None:
    pieces = cut_along("a", torch.zeros(8), 0, 4)
    with pytest.raises(AssertionError, match=r"a of shape \(8,\): 6 elements held"):
        share_of({WEIGHTS: pieces[:3]}, processes=ALONE)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("where", ["h.1.mlp.c_proj.weight", "ln_f.weight/exp_avg"])
def test_a_nan_on_one_process_is_raised_on_all_and_nothing_is_written(tmp_path: Path, rank: int, where: str) -> None:
    model = GPT(CONFIG)
    moments = moments_of(model)
    save_together(tmp_path, held_by(model, moments, 4), step=1)
    before = content(tmp_path)
    held = held_by(model, moments, 4)
    (piece,) = [piece for pieces in held[rank].values() for piece in pieces if piece.name == where]
    piece.tensor.view(-1)[-1:] = NAN
    outcomes = save_together(tmp_path, held, step=2)
    assert [type(outcome) for outcome in outcomes] == [NotFinite] * 4
    assert all(str(outcome).startswith(f"{where} is not finite: it goes from nan") for outcome in outcomes)
    assert content(tmp_path) == before


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("function", ["write_tensors", "describe", "write_manifest"])
def test_a_full_disk_on_one_process_is_raised_on_all_and_leaves_no_litter(
    tmp_path: Path, set_in_module: Callable[[object, str, object], None], rank: int, function: str
) -> None:
    model = GPT(CONFIG)
    save_together(tmp_path, held_by(model, moments_of(model), 4), step=1)
    before, through = content(tmp_path), vars(sys.modules[save.__module__])[function]

    def full(path: Path, *args: object, **kwargs: object) -> object:
        if function == "write_manifest" or f"-0000{rank + 1}-of" in path.name:
            no_space()
        return through(path, *args, **kwargs)

    set_in_module(save, function, full)
    outcomes = save_together(tmp_path, held_by(model, moments_of(model), 4), step=2)
    assert [getattr(outcome, "errno", outcome) for outcome in outcomes] == [errno.ENOSPC] * 4
    assert content(tmp_path) == before
    assert names(RunFolder(tmp_path).checkpoints) == ["step-00000001"]


def test_a_process_that_sees_another_disk_is_told_by_all(tmp_path: Path) -> None:
    def write(processes: Processes) -> Path:
        share = {WEIGHTS: [whole(f"a{processes.rank}", torch.zeros(3))]}
        run = tmp_path / "shared"
        is_dir = Path.is_dir
        if processes.rank == 1:
            threading.current_thread().elsewhere = True  # type: ignore[attr-defined]
            Path.is_dir = lambda self: not hasattr(threading.current_thread(), "elsewhere") and is_dir(self)  # type: ignore[method-assign]
        try:
            return write_checkpoint(run, share, step=1, config=CONFIG, counters={}, processes=processes)
        finally:
            if processes.rank == 1:
                Path.is_dir = is_dir  # type: ignore[method-assign]

    outcomes = in_processes(2, write)
    assert [type(outcome) for outcome in outcomes] == [BadFile, BadFile]
    assert "process 1 does not see" in str(outcomes[0])
    assert names(tmp_path / "shared" / "checkpoints") == []


@pytest.mark.parametrize("n_ranks", [1, 4])
@pytest.mark.parametrize(
    ("n_flips", "n_cuts"), [(40, 10), pytest.param(300, 50, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_every_byte_that_flips_and_every_file_that_is_cut_is_noticed_and_named(
    tmp_path: Path, n_ranks: int, n_flips: int, n_cuts: int
) -> None:
    model, rng = GPT(CONFIG), random.Random(n_ranks)
    if n_ranks == 1:
        save(tmp_path, model, step=1, training=moments_of(model))
    else:
        save_together(tmp_path, held_by(model, moments_of(model), n_ranks), step=1)
    path = RunFolder(tmp_path).checkpoint(1)
    files = sorted(path.iterdir())
    assert len(files) == 2 * n_ranks + 1
    for number in range(n_flips + n_cuts):
        file = files[number % len(files)]
        whole_file = file.read_bytes()
        damaged = bytearray(whole_file)
        if number < n_flips:
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        else:
            del damaged[rng.randrange(len(damaged)) :]
        file.write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint) as caught:
            read_manifest(path)
        assert str(caught.value).startswith(str(file)), str(caught.value)
        file.write_bytes(whole_file)
    assert read_manifest(path).step == 1
