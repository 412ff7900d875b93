from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fewshot.kernels.compiler import compiler_problem
from fewshot.kernels.interface import Requirements
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import compile_blocks, requirements_of
from fewshot.patterns.pattern import Banded, Dense

# Torch's own, which it hides from users: it asks inner tensors for their gradients, and imports a deprecated module.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make(n_layers: int, pattern: str, *, dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    shape = {"d_model": 24, "n_heads": 3, "n_ctx": 11, "n_vocab": 17, "init_std": 0.3}
    return GPT(GPTConfig(**shape, n_layers=n_layers, pattern=pattern, dropout=dropout))


def loss_and_gradients(model: GPT, tokens: torch.Tensor) -> list[torch.Tensor]:
    loss = model.loss(tokens, tokens)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def count_graphs(monkeypatch: pytest.MonkeyPatch, model: GPT, tokens: torch.Tensor) -> int:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: plain(self, backend=backend, **how))
    compile_blocks(model)
    monkeypatch.undo()
    expected = make(model.config.n_layers, model.config.pattern)
    for _ in range(2):
        torch.testing.assert_close(loss_and_gradients(model, tokens), loss_and_gradients(expected, tokens))
    return len(graphs)


def test_dropout_is_required_of_a_kernel_only_in_training() -> None:
    config = make(3, "alternate(banded(4), dense)", dropout=0.3).config
    assert config.patterns == (Banded(4), Dense())
    training = requirements_of(config, device="cuda", dtype=torch.bfloat16, training=True, documents=True)
    assert training == Requirements(Banded(4), "cuda", torch.bfloat16, 11, 11, True, 0.3, True, False, 8)
    reading = requirements_of(config, device="cpu", dtype=torch.float32, training=False)
    assert reading == Requirements(Banded(4), "cpu", torch.float32, 11, 11, False, 0.0, False, False, 8)


def test_a_pattern_that_no_layer_has_is_none_of_the_models() -> None:
    assert make(1, "alternate(banded(4), dense)").config.patterns == (Banded(4),)


@pytest.mark.parametrize("n_layers", [3, 9])
def test_the_number_of_compiled_graphs_is_that_of_the_patterns_not_of_the_layers(
    monkeypatch: pytest.MonkeyPatch, n_layers: int
) -> None:
    model = make(n_layers, "alternate(dense, banded(4), fixed(3, 1))")
    assert count_graphs(monkeypatch, model, torch.randint(17, (2, 11))) == 3


@pytest.mark.skipif(compiler_problem("cpu") is not None, reason=str(compiler_problem("cpu")))
def test_compiled_blocks_equal_eager_ones_and_keep_the_names_of_the_weights() -> None:
    model, tokens = make(2, "banded(4)"), torch.randint(17, (2, 11))
    eager, names = loss_and_gradients(model, tokens), list(model.state_dict())
    compile_blocks(model)
    torch.testing.assert_close(loss_and_gradients(model, tokens), eager, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.mark.skipif(compiler_problem("cpu") is not None, reason=str(compiler_problem("cpu")))
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_compiled_blocks_can_be_recomputed(recompute: str) -> None:
    model, tokens = make(2, "banded(4)", dropout=0.3), torch.randint(17, (2, 11))
    compile_blocks(model)
    torch.manual_seed(9)
    expected = loss_and_gradients(model, tokens)
    model.set_recompute(recompute)
    torch.manual_seed(9)
    assert all(torch.equal(a, b) for a, b in zip(loss_and_gradients(model, tokens), expected, strict=True))
