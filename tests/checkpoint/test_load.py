from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.checkpoint.folder import MANIFEST
from fewshot.checkpoint.load import find_checkpoint, load_model, load_run, load_training
from fewshot.checkpoint.manifest import write_manifest
from fewshot.checkpoint.save import save
from fewshot.corpus.document import Document
from fewshot.dataset.tokenise import build_shards
from fewshot.kernels import reference
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars

CONFIG = GPTConfig(
    n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11, pattern="alternate(dense, banded(3))", init_std=0.3
)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_bit_for_bit_in_evaluation_mode(tmp_path: Path, tied: bool) -> None:
    model = GPT(GPTConfig(**(vars(CONFIG) | {"tied": tied, "dropout": 0.2})))
    save(tmp_path, model, step=3)
    loaded = load_model(find_checkpoint(tmp_path))
    tokens = torch.randint(11, (2, 7))
    assert torch.equal(loaded(tokens), model.eval()(tokens))
    assert not loaded.training
    assert loaded.config == model.config


def test_the_kernel_of_a_loaded_model_is_the_one_asked_for(tmp_path: Path) -> None:
    save(tmp_path, GPT(CONFIG), step=3)
    assert load_model(find_checkpoint(tmp_path), attend=reference.attend).h[1].attn.attend is reference.attend


def test_training_tensors_and_counters_come_back(tmp_path: Path) -> None:
    training = {"wte.weight.m": torch.randn(11, 12), "wte.weight.step": torch.tensor(7)}
    save(tmp_path, GPT(CONFIG), step=3, counters={"rows": 21, "seconds": 0.5}, training=training)
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.counters == {"rows": 21, "seconds": 0.5}
    torch.testing.assert_close(load_training(checkpoint), training, rtol=0, atol=0)


def test_a_run_means_its_newest_checkpoint_and_a_checkpoint_itself(tmp_path: Path) -> None:
    older, newer = (save(tmp_path, GPT(CONFIG), step=step) for step in (9, 10))
    assert find_checkpoint(tmp_path).step == 10
    assert find_checkpoint(older).step == 9
    assert find_checkpoint(newer).path == newer


def flip_a_bit(file: Path) -> str:
    """Damage a file; returns what is said of it."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return f"{file} is damaged: its sha256 is not the recorded one"


def test_of_a_run_whose_newest_checkpoint_is_damaged_the_one_before_it_is_used_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        path = save(tmp_path, GPT(CONFIG), step=step)
    damage = flip_a_bit(path / "model.safetensors")
    before = sorted(path.iterdir())
    assert find_checkpoint(tmp_path).step == 1
    assert capsys.readouterr().err == f"{damage}; using step 1\n"
    assert sorted(path.iterdir()) == before  # it is left as it is
    with pytest.raises(DamagedCheckpoint, match=f"^{re.escape(damage)}; give {tmp_path} to use its newest whole"):
        find_checkpoint(path)


def test_of_several_damaged_checkpoints_each_is_named_in_the_same_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [save(tmp_path, GPT(CONFIG), step=step) for step in (1, 2, 3)]
    damages = [flip_a_bit(path / "model.safetensors") for path in paths[:0:-1]]
    assert find_checkpoint(tmp_path).step == 1
    assert capsys.readouterr().err == f"{'; '.join(damages)}; using step 1\n"
    last = flip_a_bit(paths[0] / "model.safetensors")
    message = f"{tmp_path} holds no checkpoint that is whole: {'; '.join([*damages, last])}"
    with pytest.raises(DamagedCheckpoint, match=f"^{re.escape(message)}$"):
        find_checkpoint(tmp_path)


def test_a_folder_without_a_manifest_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        path = save(tmp_path, GPT(CONFIG), step=step)
    (path / MANIFEST).unlink()
    assert find_checkpoint(tmp_path).step == 1
    assert capsys.readouterr().err == ""


def test_weights_without_moments_cannot_be_resumed_and_say_so(tmp_path: Path) -> None:
    save(tmp_path, GPT(CONFIG), step=0)
    with pytest.raises(BadFile, match="holds weights only: it can generate text, but its training cannot be resumed"):
        load_training(find_checkpoint(tmp_path))


def test_a_path_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="none does not exist; a run folder"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(DamagedCheckpoint, match=r"holds no checkpoint \(looked for .*checkpoints/step-\*\)"):
        find_checkpoint(tmp_path)


def damaged(run: Path, **changed: object) -> Path:
    """The checkpoint of a run, its manifest telling of another model."""
    path = find_checkpoint(run).path
    plain = json.loads((path / MANIFEST).read_text())
    del plain["sha256"]  # of the manifest itself; older versions wrote none
    (path / MANIFEST).write_text(json.dumps(plain | {"model": plain["model"] | changed}))
    return path


@pytest.mark.parametrize(
    "changed",
    [{"n_layers": 3}, {"n_layers": 10**9}, {"n_vocab": 12}, {"d_ff": 5}, {"tied": False}, {"n_ctx": 8}],
    ids=str,
)
def test_a_manifest_that_tells_of_another_model_is_damage(tmp_path: Path, changed: dict[str, object]) -> None:
    save(tmp_path, GPT(CONFIG), step=3)
    path = damaged(tmp_path, **changed)
    with pytest.raises(
        DamagedCheckpoint, match=f"^{path}: the weights do not fit the model in manifest.json"
    ) as caught:
        load_model(find_checkpoint(tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors_are_damage(tmp_path: Path) -> None:
    path = save(tmp_path, GPT(CONFIG), step=3)
    (path / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    (path / MANIFEST).unlink()
    write_manifest(path, step=3, config=CONFIG, counters={})
    with pytest.raises(DamagedCheckpoint, match=r"model\.safetensors cannot be read"):
        load_model(find_checkpoint(tmp_path))


def test_a_run_under_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/u2\xe9"))
    save(tmp_path / "run", GPT(CONFIG), step=3)
    (tmp_path / "run").rename(run)
    with pytest.raises(DamagedCheckpoint, match=r"u2�/.*model\.safetensors cannot be read"):
        load_model(find_checkpoint(run))


# ---- a run: model and tokenizer


def make_run(run: Path, n_vocab: int = 257) -> Path:
    checkpoint = save(run, GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=7, n_vocab=n_vocab)), step=3)
    Bytes().save(run / "tokenizer.json")
    return checkpoint


def test_a_run_and_a_checkpoint_inside_it_have_the_runs_tokenizer(tmp_path: Path) -> None:
    checkpoint = make_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to(checkpoint)
    for path in (tmp_path / "run", checkpoint, tmp_path / "latest", tmp_path / "latest" / ".." / checkpoint.name):
        model, tokenizer, found = load_run(path)
        assert (tokenizer.n_vocab, found.step, model.config.n_vocab) == (257, 3, 257)


def test_checkpoints_on_another_disk_have_the_tokenizer_of_the_run_that_they_are_reached_through(
    tmp_path: Path,
) -> None:
    checkpoint = make_run(tmp_path / "run")
    (tmp_path / "big").mkdir()
    shutil.move(checkpoint.parent, tmp_path / "big" / "store")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "big" / "store")
    assert load_run(tmp_path / "run")[1].n_vocab == 257
    assert load_run(checkpoint)[1].n_vocab == 257


@pytest.mark.parametrize("at", ["lone", "kept/lone", "kept/checkpoints-old/step-00000003", "kept/step-00000003"])
def test_a_tokenizer_that_merely_lies_above_is_not_taken(tmp_path: Path, at: str) -> None:
    checkpoint = make_run(tmp_path / "run")
    for place in (tmp_path, tmp_path / "kept"):
        place.mkdir(exist_ok=True)
        train_chars(["abc"]).save(place / "tokenizer.json")
    (tmp_path / at).parent.mkdir(exist_ok=True)
    shutil.copytree(checkpoint, tmp_path / at)
    with pytest.raises(BadFile, match=r"has no tokenizer\.json: a run folder"):
        load_run(tmp_path / at)
    shutil.copy(tmp_path / "run" / "tokenizer.json", tmp_path / at)
    assert load_run(tmp_path / at)[1].n_vocab == 257


def test_a_model_may_have_more_rows_than_the_tokenizer_has_entries_and_not_fewer(tmp_path: Path) -> None:
    make_run(tmp_path / "more", n_vocab=300)
    assert load_run(tmp_path / "more")[0].config.n_vocab == 300
    make_run(tmp_path / "fewer", n_vocab=256)
    with pytest.raises(BadFile, match=r"its tokenizer\.json has 257 entries, but the model only knows 256") as caught:
        load_run(tmp_path / "fewer")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_did_not_make_the_tokens_of_the_run_is_refused(tmp_path: Path) -> None:
    checkpoint = make_run(tmp_path / "run")
    texts = [Document(id="a", text="abc", source="text")]
    build_shards(lambda: iter(texts), Bytes(), tmp_path / "run" / "data", name="text-train")
    for path in (tmp_path / "run", checkpoint):
        assert load_run(path)[1].n_vocab == 257
    train_chars(["abc"]).save(tmp_path / "run" / "tokenizer.json")
    for path in (tmp_path / "run", checkpoint):
        with pytest.raises(BadFile, match=r"tokenizer\.json is not the tokenizer that the run was trained with"):
            load_run(path)
    (tmp_path / "run" / "data" / "text-train.json").write_text("damaged")  # which reading the tokens will tell
    load_run(tmp_path / "run")
