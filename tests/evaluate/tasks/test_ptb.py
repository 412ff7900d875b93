"""Penn Treebank, one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.tasks.ptb import make_ptb


def test_ptb_is_one_text_and_its_perplexity_is_a_words(tmp_path: Path) -> None:
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n <unk> N \n")
    task = make_ptb(data=DataFolder(tmp_path))
    (episode,) = task.episodes(9, 0, 0)
    assert (task.kind, episode.example.context, episode.example.completions) == (
        "rolling",
        "",
        ("no it was n't\n<unk> N",),
    )
    answer = Answer(example=episode.example, logprobs=(-12.0,))
    assert task.metrics[0].of([answer]) == pytest.approx(7.389056, rel=1e-6)  # e^(12 nats / 6 words)
