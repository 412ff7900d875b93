from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fewshot.kernels import blocked, reference, sdpa
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.layout import mask
from fewshot.probe.recording import attentions, mean_outputs, watching, weights_of

PATTERNS = (
    "dense",
    "banded(5)",
    "strided(4)",
    "fixed(6, 2)",
    "banded(3) | strided(4)",
    "perhead(dense, banded(2), columns(5, 1))",
    "alternate(banded(2), dense)",
)
B, N = 2, 19


def small_model(pattern: str, attend=sdpa.attend, **more) -> GPT:
    config = GPTConfig(n_layers=3, d_model=18, n_heads=3, n_ctx=24, n_vocab=13, pattern=pattern, init_std=0.5, **more)
    return GPT(config, attend=attend, seed=0).eval()


def some_tokens() -> torch.Tensor:
    return torch.randint(13, (B, N), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attend", [sdpa.attend, blocked.attend], ids=["sdpa", "blocked"])
@pytest.mark.parametrize("pattern", PATTERNS)
@torch.inference_mode()
def test_a_model_gives_the_same_logits_while_its_attention_is_recorded(pattern, attend):
    model, tokens = small_model(pattern, attend), some_tokens()
    plain, seen = model(tokens), []
    with watching(model, lambda layer, weights, mixed: seen.append((layer, weights, mixed))):
        recorded = model(tokens)
    torch.testing.assert_close(recorded, plain, rtol=0, atol=1e-5)
    assert [layer for layer, _, _ in seen] == [0, 1, 2]


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.inference_mode()
def test_recorded_weights_lie_on_the_pattern_and_make_what_the_heads_give(pattern):
    model, tokens = small_model(pattern), some_tokens()
    values, seen = {}, []

    def attend(q, k, v, pattern, **more):
        values[len(values)] = v
        return sdpa.attend(q, k, v, pattern, **more)

    for layer in attentions(model):
        layer.attend = attend
    with watching(model, lambda layer, weights, mixed: seen.append((layer, weights, mixed))):
        model(tokens)
    schedule = model.config.schedule()
    for layer, weights, mixed in seen:
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, 3, N))
        torch.testing.assert_close(weights @ values[layer], mixed, rtol=1e-4, atol=1e-5)
        for head in range(3):
            allowed = torch.from_numpy(mask(schedule.for_layer(layer), N, N, head=head))
            assert ((weights[:, head] > 0) <= allowed).all()


def test_the_models_own_kernels_are_back_after_recording_even_if_it_fails():
    model = small_model("dense")
    with pytest.raises(ZeroDivisionError), watching(model, lambda *_: 1 / 0):
        model(some_tokens())
    assert [layer.attend for layer in attentions(model)] == [sdpa.attend] * 3


@torch.inference_mode()
def test_recording_computes_less_than_three_forward_passes():
    model, tokens = small_model("dense", reference.attend), some_tokens()
    with FlopCounterMode(display=False) as plain:
        model(tokens)
    with FlopCounterMode(display=False) as recording, watching(model, lambda *_: None):
        model(tokens)
    assert plain.get_total_flops() < recording.get_total_flops() < 3 * plain.get_total_flops()


def test_weights_of_a_text_are_those_of_each_layer():
    model = small_model("dense")
    weights = weights_of(model, [3, 1, 4, 1])
    assert [tuple(layer.shape) for layer in weights] == [(3, 4, 4)] * 3
    assert all(layer[head, 0, 0] == 1 for layer in weights for head in range(3))


@torch.inference_mode()
def test_the_mean_output_is_over_all_positions_of_texts_of_unequal_length():
    model, texts, seen = small_model("dense"), [[1, 2, 3, 4, 5], [6, 7]], []
    with watching(model, lambda layer, _, mixed: seen.append((layer, mixed[0]))):
        for text in texts:
            model(torch.tensor([text]))
    expected = torch.cat([mixed for layer, mixed in seen if layer == 1], dim=1).mean(dim=1)
    torch.testing.assert_close(mean_outputs(model, texts)[1].float(), expected)
