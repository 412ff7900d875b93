from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

SHAPE = {"n_layers": 5, "d_model": 96, "n_heads": 3, "d_head": 40, "n_ctx": 130, "n_vocab": 170, "tied": False}
WRITERS = ("attn.c_proj.weight", "mlp.c_proj.weight")  # into the residual stream


@pytest.fixture(params=["pre-ln", "post-ln"])
def model(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(1)
    return GPT(GPTConfig(**SHAPE, block=request.param))


def test_every_matrix_has_the_standard_deviation_of_its_kind(model: GPT) -> None:
    scaled = 0.02 / 10**0.5 if model.config.block == "pre-ln" else 0.02  # 1/sqrt(2 * 5 layers) (GPT-2, section 2.3)
    seen = set()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            expected = scaled if name.endswith(WRITERS) else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.04), name
            assert abs(parameter.mean().item()) < 0.1 * expected, name
            seen.add(name.split(".", 2)[-1] if name.startswith("h.") else name)
    matrices = {"attn.c_attn.weight", "mlp.c_fc.weight", *WRITERS, "wte.weight", "wpe.weight", "lm_head.weight"}
    assert seen == matrices


def test_biases_are_zero_and_norms_one(model: GPT) -> None:
    vectors = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim == 1}
    assert len(vectors) == 5 * 8 + 2 * (model.config.block == "pre-ln")
    for name, parameter in vectors.items():
        assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name


def test_init_std_scales_everything() -> None:
    model = GPT(GPTConfig(**SHAPE, init_std=0.5))
    assert model.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.5, rel=0.04)
    assert model.h[0].mlp.c_proj.weight.std().item() == pytest.approx(0.5 / 10**0.5, rel=0.04)


def test_the_sparse_transformer_has_the_standard_deviations_of_its_paper() -> None:
    torch.manual_seed(1)
    shape = SHAPE | {"d_qk": 20, "d_ff": 200, "positions": "rows(10)"}
    model = GPT(GPTConfig(**shape, block="sparse-transformer"))
    deep = (2 * 5) ** 0.5
    stds = {
        "wte": 0.125 / 96**0.5,
        "wpe": 0.125 / (96 * 2) ** 0.5,  # row and column
        "h.3.attn.c_attn": 0.125 / 96**0.5,
        "h.3.attn.c_proj": 0.125 / 120**0.5 / deep,  # 3 heads of 40
        "h.3.mlp.c_fc": 0.125 / 96**0.5,
        "h.3.mlp.c_proj": 0.125 / 200**0.5 / deep,
    }
    weights = dict(model.named_parameters())
    for name, std in stds.items():
        assert weights[f"{name}.weight"].std().item() == pytest.approx(std, rel=0.05), name
    assert (weights["lm_head.weight"] == 0).all()
    assert (weights["h.3.mlp.c_fc.bias"] == 0).all()
    assert (weights["ln_f.weight"] == 1).all()


def test_a_fresh_sparse_transformer_is_exactly_uniform() -> None:
    tokens = torch.randint(170, (3, 60))
    loss = GPT(GPTConfig(**SHAPE, block="sparse-transformer")).loss(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(170.0).log().item(), abs=1e-6)


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return GPT(GPTConfig(**SHAPE)).h[2].attn.c_attn.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_fresh_model_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(170, (3, 60))
    loss = GPT(GPTConfig(**SHAPE)).loss(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(170.0).log().item(), abs=0.05)


def test_with_a_seed_a_parameter_does_not_depend_on_which_others_there_are() -> None:
    small = GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=5, n_vocab=11)
    alone, beside = (dict(GPT(replace(small, n_layers=n), seed=3).named_parameters()) for n in (1, 2))
    for name in ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight"):
        assert torch.equal(alone[name], beside[name]), name
    assert not torch.equal(beside["h.0.mlp.c_fc.weight"], beside["h.1.mlp.c_fc.weight"])
    assert not torch.equal(alone["wte.weight"], GPT(small, seed=4).wte.weight)
