"""Checkpoints of several processes, read in other rectangles than they were written in."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from several_processes import cut, cut_along, in_processes

from fewshot.base.dist import Processes
from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, Checkpoint, read_manifest
from fewshot.checkpoint.pieces import Piece, Ranges, whole
from fewshot.checkpoint.reader import PieceReader
from fewshot.checkpoint.save import share_of, write_checkpoint
from fewshot.model.config import GPTConfig

CONFIG = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)


def random_cuts(shape: tuple[int, ...], n_parts: int, rng: random.Random) -> list[Ranges]:
    """A tensor cut into rectangles, by cutting one of them in two again and again."""
    rectangles: list[Ranges] = [tuple((0, size) for size in shape)]
    for _ in range(20 * n_parts):
        whole_one = rectangles[rng.randrange(len(rectangles))]
        dimension = rng.randrange(len(shape))
        start, end = whole_one[dimension]
        if len(rectangles) < n_parts and end - start > 1:
            rectangles.remove(whole_one)
            at = rng.randrange(start + 1, end)
            for bounds in ((start, at), (at, end)):
                rectangles.append((*whole_one[:dimension], bounds, *whole_one[dimension + 1 :]))
    return rectangles


def written(folder: Path, pieces: list[list[Piece]], file: str = WEIGHTS) -> Checkpoint:
    """A checkpoint of these pieces, a list for each process."""

    def write(processes: Processes) -> Path:
        share = share_of({file: pieces[processes.rank]}, processes=processes)
        return write_checkpoint(folder, share, step=3, config=CONFIG, counters={}, processes=processes)

    paths = in_processes(len(pieces), write)
    assert isinstance(paths[0], Path), paths
    return read_manifest(paths[0])


SHAPES = {"matrix": (13, 7), "vector": (9,), "cube": (3, 5, 4), "thin": (1, 6)}
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64]


@pytest.mark.parametrize("seed", range(12))
def test_what_any_layout_wrote_any_other_reads_bit_for_bit(tmp_path: Path, seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 100).to(TYPES[(seed + number) % len(TYPES)])
        for number, (name, shape) in enumerate(SHAPES.items())
    }
    tensors["scalar"], tensors["single"] = torch.tensor(7.0), torch.tensor([seed])

    def cut_up(n_ranks: int) -> list[list[Piece]]:
        held: list[list[Piece]] = [[] for _ in range(n_ranks)]
        for name, tensor in tensors.items():
            if tensor.ndim == 0:
                held[rng.randrange(n_ranks)].append(whole(name, tensor))
                continue
            for ranges in random_cuts(tuple(tensor.shape), rng.randrange(1, 6), rng):
                held[rng.randrange(n_ranks)].append(cut(name, tensor, ranges))
        return held

    checkpoint = written(tmp_path, cut_up(4))
    for n_ranks in (1, 2, 4):
        for pieces in cut_up(n_ranks):
            reader = PieceReader(checkpoint, WEIGHTS)
            for piece in pieces:
                blank = torch.full_like(piece.tensor, 55)
                reader.fill([Piece(piece.name, piece.shape, piece.ranges, blank)])
                assert torch.equal(blank, piece.tensor), piece.key
    again = PieceReader(checkpoint, WEIGHTS).tensors()
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(again[name], tensor), name


def test_filling_a_view_fills_the_parameter(tmp_path: Path) -> None:
    tensor = torch.arange(30.0).view(6, 5)
    checkpoint = written(tmp_path, [[piece] for piece in cut_along("a", tensor, 0, 3)])
    parameter = torch.nn.Parameter(torch.zeros(4, 5))
    PieceReader(checkpoint, WEIGHTS).fill([Piece("a", (6, 5), ((1, 5), (0, 5)), parameter)])
    assert torch.equal(parameter.detach(), tensor[1:5])
    scalar = torch.nn.Parameter(torch.zeros(()))
    written(tmp_path, [[whole("s", torch.tensor(2.5))]], WEIGHTS)
    PieceReader(read_manifest(checkpoint.path), WEIGHTS).fill([whole("s", scalar)])
    assert scalar.item() == 2.5


def test_only_what_a_piece_needs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(40.0).view(8, 5)
    checkpoint = written(tmp_path, [[piece] for piece in cut_along("a", tensor, 0, 4)])
    reader = PieceReader(checkpoint, WEIGHTS)
    read: list[tuple[str, Ranges]] = []
    through = PieceReader._read
    monkeypatch.setattr(
        PieceReader,
        "_read",
        lambda self, stored, shared: [read.append((stored.file.name, shared)), through(self, stored, shared)][1],
    )
    target = torch.zeros(3, 5)
    reader.fill([Piece("a", (8, 5), ((1, 4), (0, 5)), target)])
    assert torch.equal(target, tensor[1:4])
    assert read == [
        ("model-00001-of-00004.safetensors", ((1, 2), (0, 5))),
        ("model-00002-of-00004.safetensors", ((2, 4), (0, 5))),
    ]


def test_an_element_that_no_file_holds_a_name_and_a_shape_that_differ_are_damage(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).view(4, 3)
    checkpoint = written(tmp_path, [[piece] for piece in cut_along("a", tensor, 0, 2)])
    held = PieceReader(checkpoint, WEIGHTS)
    with pytest.raises(DamagedCheckpoint, match=f"^{checkpoint.path} holds no tensor b$"):
        held.fill([whole("b", torch.zeros(4, 3))])
    with pytest.raises(DamagedCheckpoint, match=r"a has the shape \(4, 3\), not \(4, 4\)$"):
        held.fill([whole("a", torch.zeros(4, 4))])
    with pytest.raises(DamagedCheckpoint, match=r"a has the shape \(4, 3\), not \(12,\)$"):
        held.fill([whole("a", torch.zeros(12))])
    save_file({"a@3:4,0:3": tensor[3:]}, checkpoint.path / "model-00002-of-00002.safetensors")
    gap = PieceReader(checkpoint, WEIGHTS)
    gap.fill([Piece("a", (4, 3), ((0, 2), (0, 3)), torch.zeros(2, 3))])
    with pytest.raises(DamagedCheckpoint, match=f"^{checkpoint.path}: no file holds all of a$"):
        gap.fill([whole("a", torch.zeros(4, 3))])
    with pytest.raises(DamagedCheckpoint, match="no file holds all of a"):
        gap.tensors()


def test_an_empty_piece_needs_no_file(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(3, 2)
    pieces = cut_along("a", tensor, 0, 4)  # the last process holds nothing of it
    checkpoint = written(tmp_path, [[piece] for piece in pieces])
    assert [file for file in checkpoint.files if "00004-of" in file] == []
    PieceReader(checkpoint, WEIGHTS).fill(pieces)
    assert torch.equal(PieceReader(checkpoint, WEIGHTS).tensors()["a"], tensor)


def test_weights_and_training_state_are_read_each_by_themselves(tmp_path: Path) -> None:
    content = {WEIGHTS: [whole("a", torch.ones(3))], TRAINING: [whole("a/step", torch.tensor(2.0))]}
    checkpoint = read_manifest(write_checkpoint(tmp_path, content, step=3, config=CONFIG, counters={}))
    assert PieceReader(checkpoint, WEIGHTS).shapes == {"a": (3,)}
    assert PieceReader(checkpoint, TRAINING).shapes == {"a/step": ()}


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [("a@0:2", (3,), "has the shape"), ("a@0:1,0:1", (1, 1), "has 2 dimensions, in another file it has not")],
)
def test_a_file_whose_keys_do_not_fit_is_named(tmp_path: Path, key: str, shape: tuple[int, ...], message: str) -> None:
    checkpoint = written(tmp_path, [[piece] for piece in cut_along("a", torch.arange(6.0), 0, 2)])
    save_file({key: torch.zeros(shape)}, checkpoint.path / "model-00002-of-00002.safetensors")
    with pytest.raises(DamagedCheckpoint, match=f"model-00002-of-00002.safetensors cannot be read: {key} {message}"):
        PieceReader(checkpoint, WEIGHTS)


TORCHRUN = """
import sys
from pathlib import Path
import torch
from fewshot.base.dist import all_processes, finish
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import newest_whole
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS
from fewshot.checkpoint.pieces import Piece, whole
from fewshot.checkpoint.reader import PieceReader
from fewshot.checkpoint.writer import Writer
from fewshot.model.config import GPTConfig

run, n_before = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
processes = all_processes()
tensor = torch.arange(60.0).view(12, 5)
config = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)

def rows(values):
    width = 12 // processes.n_ranks
    start = processes.rank * width
    return Piece("a", (12, 5), ((start, start + width), (0, 5)), values[start : start + width])

if n_before:
    checkpoint, damage = newest_whole(run, processes=processes)
    assert (checkpoint.step, damage, len(checkpoint.files)) == (n_before, "", 2 * n_before)
    values, step = torch.zeros(12, 5), torch.zeros(())
    PieceReader(checkpoint, WEIGHTS).fill([rows(values)])
    PieceReader(checkpoint, TRAINING).fill([whole("a/step", step)] if processes.rank == 0 else [])
    assert torch.equal(rows(values).tensor, rows(tensor).tensor)
with Writer(run, keep=9) as writer:
    scalars = [whole(f"a/step{processes.rank}", torch.tensor(2.0)), whole("a/step", torch.tensor(3.0))]
    held = {WEIGHTS: [rows(tensor)], TRAINING: scalars}
    writer.start(held, step=processes.n_ranks, config=config, counters={})
    for _ in range(20):  # what training exchanges goes its own way meanwhile
        assert all_processes().exchange(processes.rank) == list(range(processes.n_ranks))
finish()
"""


@pytest.mark.slow
def test_processes_of_torchrun_save_beside_training_and_others_go_on(tmp_path: Path) -> None:
    for n_ranks, n_before in ((4, 0), (2, 4)):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_ranks)]
        script = tmp_path / "save.py"
        script.write_text(TORCHRUN)
        command = [*torchrun, str(script), str(tmp_path / "run"), str(n_before)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    checkpoints = [read_manifest(RunFolder(tmp_path / "run").checkpoint(step)) for step in (2, 4)]
    assert [len(checkpoint.files) for checkpoint in checkpoints] == [4, 8]
    for checkpoint in checkpoints:
        assert torch.equal(PieceReader(checkpoint, WEIGHTS).tensors()["a"], torch.arange(60.0).view(12, 5))
        assert PieceReader(checkpoint, TRAINING).tensors()["a/step"].item() == 3.0
