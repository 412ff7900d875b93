from __future__ import annotations

import pytest
import torch
from circuits import V, induction_model

from fewshot.base.errors import BadValue
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.probe.readers import READERS, distances, predictions


def test_readers_predict_what_their_names_say_at_every_position():
    text = [2, 0, 2, 1, 0, 2]
    by_name = predictions(torch.tensor(text), 3)
    assert tuple(by_name) == READERS
    assert torch.allclose(by_name["uniform"], torch.full((6, 3), 1 / 3))
    for t, token in enumerate(text):
        shown = text[: t + 1]
        unigram = [shown.count(other) / len(shown) for other in range(3)]
        next_ones = [shown[s + 1] for s in range(t) if shown[s] == token]
        copying = [next_ones.count(other) / len(next_ones) for other in range(3)] if next_ones else unigram
        assert by_name["unigram"][t].tolist() == pytest.approx(unigram)
        assert by_name["copying"][t].tolist() == pytest.approx(copying)


def test_a_model_that_knows_nothing_is_the_uniform_reader():
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=1, n_ctx=8, n_vocab=5)).eval()
    with torch.no_grad():
        model.wte.weight.zero_()
    text = [0, 1, 0, 1]
    far = distances(model, [text])
    assert far["uniform"] == pytest.approx(0, abs=1e-6)
    uniform, unigram = (predictions(torch.tensor(text), 5)[name] for name in ("uniform", "unigram"))
    assert far["unigram"] == pytest.approx(0.5 * (uniform - unigram).abs().sum(1).mean().item())
    last = distances(model, [text], last_only=True)
    assert last["unigram"] == pytest.approx(0.6)  # half for 0, half for 1 against a fifth for each


def test_a_copying_model_is_nearer_to_the_copying_reader_than_to_the_others():
    model = induction_model(n_layers=2)
    with torch.no_grad():  # what its head reads is written where the logits are taken from
        copied = model.h[1].attn.c_attn.weight.view(3, *model.h[1].attn.c_proj.weight.shape)[2]
        copied[:V, :V] = torch.eye(V)
        model.h[1].attn.c_proj.weight[:V, :V] = 100 * torch.eye(V)
    far = distances(model, [[3, 1, 4, 1, 5, 3]], last_only=True)
    assert far["copying"] < 0.1
    assert min(far["uniform"], far["unigram"]) > 0.5


def test_no_text_is_refused():
    model = induction_model(n_layers=1)
    for texts in ([], [[]]):
        with pytest.raises(BadValue, match="no text to compare readers on"):
            distances(model, texts)
