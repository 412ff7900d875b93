from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadFile
from fewshot.generate.samples import Sample, add_sample, read_samples, sample
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes


def lines(*steps: int) -> list[Sample]:
    return [Sample(step=step, prompt="a", text=f"é{step}") for step in steps]


def test_samples_come_back_and_steps_that_are_done_again_replace_theirs(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert read_samples(path) == []
    for new in lines(10, 20, 30):
        add_sample(new, path)
    assert read_samples(path) == lines(10, 20, 30)
    (again,) = lines(20)
    add_sample(again, path)
    assert read_samples(path) == lines(10, 20)


def test_a_line_that_is_no_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    add_sample(*lines(10), path)
    path.write_text(path.read_text() + '{"step": 3}\n')
    with pytest.raises(BadFile, match=r"line 2.*it is not a sample of fewshot train"):
        read_samples(path)


@pytest.mark.parametrize("prompt", ["", "abc"])
def test_the_same_model_writes_the_same_and_draws_nothing_from_what_training_draws_from(prompt: str) -> None:
    tokenizer = Bytes()
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=16, n_vocab=tokenizer.n_vocab), seed=0).train()
    before = torch.get_rng_state()
    first = sample(model, tokenizer, prompt, step=1, max_tokens=20)
    assert torch.equal(torch.get_rng_state(), before)
    assert sample(model, tokenizer, prompt, step=2, max_tokens=20).text == first.text != ""
