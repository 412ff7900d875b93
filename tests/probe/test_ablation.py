from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.scoring.logprobs import Span, score
from fewshot.kernels import sdpa
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.probe.ablation import Head, ablated, heads_of
from fewshot.probe.recording import attentions, mean_outputs

HEADS = [Head(1, 2), Head(0, 0)]
TEXTS = [[1, 2, 3, 4, 5, 3, 2], [6, 7, 6]]


def small_model(**more) -> GPT:
    config = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=16, n_vocab=9, init_std=0.5, **more)
    return GPT(config, seed=0).eval()


def with_kernels_that_ablate(model: GPT, values: dict[Head, torch.Tensor | float]) -> None:
    """The definition: what the kernel gives for a head is replaced."""
    for number, layer in enumerate(attentions(model)):

        def attend(q, k, v, pattern, number=number, **more):
            mixed = sdpa.attend(q, k, v, pattern, **more).clone()
            for head, value in values.items():
                if head.layer == number:
                    mixed[:, head.head] = value
            return mixed

        layer.attend = attend


@pytest.mark.parametrize("block", ["pre-ln", "post-ln"])
@pytest.mark.parametrize("d_head", [None, 5])
@pytest.mark.parametrize("with_means", [True, False], ids=["mean", "zero"])
@torch.inference_mode()
def test_an_ablated_head_gives_its_mean_or_zero_at_every_position(with_means, d_head, block):
    model, twin = (small_model(d_head=d_head, block=block) for _ in range(2))
    means = mean_outputs(model, TEXTS) if with_means else None
    with_kernels_that_ablate(twin, {head: means[head.layer][head.head].float() if means else 0.0 for head in HEADS})
    tokens = torch.tensor([TEXTS[0]])
    plain = model(tokens)
    with ablated(model, HEADS, means):
        torch.testing.assert_close(model(tokens), twin(tokens), rtol=1e-4, atol=1e-4)
        assert (model(tokens) - plain).abs().max() > 1e-3
    assert torch.equal(model(tokens), plain)


def test_texts_that_share_a_prefix_are_read_without_the_head_too():
    model, twin = small_model(), small_model()
    with_kernels_that_ablate(twin, {Head(1, 2): 0.0})
    spans = [Span((1, 2, 3, 4, last), 4) for last in (5, 6, 7)]  # read as a tree, which no kernel computes
    with ablated(model, [Head(1, 2)]):
        by_trees = [scored.logprob for scored in score(GPTLanguageModel(model), spans, batch_size=4)]
    logprobs = twin(torch.tensor([[1, 2, 3, 4]]))[0, -1].log_softmax(-1)
    assert by_trees == pytest.approx(logprobs[[5, 6, 7]].tolist(), abs=1e-5)


def test_weights_are_back_after_an_error():
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), ablated(model, HEADS, mean_outputs(model, TEXTS)):
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_head_is_called_by_layer_and_head():
    assert Head.named(" l1h0 ") == Head(1, 0)
    assert [str(head) for head in heads_of(small_model())] == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]


@pytest.mark.parametrize("name", ["", "1.0", "L1", "L-1H0", "L1H0x", "L²H0"])
def test_what_names_no_head_is_refused(name):
    with pytest.raises(BadValue, match="such as L1H0"):
        Head.named(name)


def test_a_head_that_the_model_lacks_is_refused():
    with (
        pytest.raises(BadValue, match="no head L2H0: its heads are L0H0 to L1H2"),
        ablated(small_model(), [Head(2, 0)]),
    ):
        pass
