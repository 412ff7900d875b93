"""One small trained run for all commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.cli.main import main

TEXT = "The cat sat on the mat. It was happy there, said the dog: 1 + 1 = 2!\nabcdefghijklmnopqrstuvwxyz ->\n" * 60


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "small"
    words = ["train", "--text", str(text_file), "--out", str(run), "--n_tokens", "2000", "--data.n_vocab", "300"]
    shape = ["--model.n_layers", "2", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "32"]
    assert main([*words, *shape, "--loop.compile", "never", "--schedule.batch_tokens", "64"]) == 0
    return run
