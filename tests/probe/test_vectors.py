from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.probe.vectors import last_residuals, next_tokens, patched, task_vectors

LONG, SHORT = [1, 2, 3, 4, 5, 6], [4, 8, 7]


def small_model() -> GPT:
    return GPT(GPTConfig(n_layers=3, d_model=12, n_heads=2, n_ctx=16, n_vocab=9, init_std=0.5), seed=0).eval()


def last_logits(model: GPT, text: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([text]))[0, -1]


@torch.inference_mode()
def test_the_residual_behind_the_last_block_makes_the_logits():
    model = small_model()
    residuals = last_residuals(model, [LONG, SHORT])
    assert residuals.shape == (2, 3, 12)
    for row, text in zip(residuals, (LONG, SHORT), strict=True):
        torch.testing.assert_close(model.logits(model.ln_f(row[-1])), last_logits(model, text))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_residual_of_another_text_in_place_of_the_own_is_read_from_there_on(layer):
    model = small_model()
    plain = last_logits(model, SHORT)
    own, other = (last_residuals(model, [text])[0, layer] for text in (SHORT, LONG))
    with patched(model, layer, own, replacing=True):
        torch.testing.assert_close(last_logits(model, SHORT), plain)
    with patched(model, layer, other, replacing=True):
        changed = last_logits(model, SHORT)
    assert not torch.allclose(changed, plain)
    if layer == 2:  # behind the last block nothing else is read
        torch.testing.assert_close(changed, last_logits(model, LONG))
    with patched(model, layer, other - own):
        torch.testing.assert_close(last_logits(model, SHORT), changed)
    torch.testing.assert_close(last_logits(model, SHORT), plain, rtol=0, atol=0)


def test_another_position_than_the_last_is_patched_and_those_before_it_stay():
    model = small_model()
    tokens = torch.tensor([LONG])
    with torch.inference_mode(), patched(model, 0, torch.arange(12.0), position=2):
        changed = model.hidden(tokens)
    with torch.inference_mode():
        plain = model.hidden(tokens)
    assert torch.equal(changed[:, :2], plain[:, :2])
    assert not torch.allclose(changed[:, 2], plain[:, 2])


def test_a_task_vector_is_a_difference_of_means():
    model = small_model()
    vectors = task_vectors(model, [LONG, SHORT], [[1, 2]])
    expected = (last_residuals(model, [LONG]) + last_residuals(model, [SHORT]))[0] / 2 - last_residuals(model, [[1, 2]])
    torch.testing.assert_close(vectors, expected[0])


def test_next_tokens_follow_the_patch():
    model = small_model()
    goal = next_tokens(model, [LONG])
    other = next(text for text in ([a, b] for a in range(9) for b in range(9)) if next_tokens(model, [text]) != goal)
    with patched(model, 2, last_residuals(model, [LONG])[0, 2], replacing=True):
        assert next_tokens(model, [other]) == goal


def test_hooks_are_gone_after_an_error_and_a_layer_that_is_not_there_is_refused():
    model = small_model()
    plain = last_logits(model, SHORT)
    with pytest.raises(ZeroDivisionError), patched(model, 1, torch.ones(12)):
        raise ZeroDivisionError
    assert torch.equal(last_logits(model, SHORT), plain)
    with pytest.raises(BadValue, match="no layer 3: the model's are 0 to 2"), patched(model, 3, torch.ones(12)):
        pass
