from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong, UnknownName
from fewshot.kernels import reference
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT, count_parameters
from fewshot.model.paged_cache import PagedCache, PagedMemory
from fewshot.model.prefix_tree import Prefix

SMALL = GPTConfig(n_layers=3, d_model=24, n_heads=3, n_ctx=13, n_vocab=17, init_std=0.3)
PATTERNS = [
    "dense",
    "alternate(dense, banded(3))",
    "fixed(4, 1)",
    "banded(2) | strided(3)",
    "perhead(dense, banded(2))",
]


def make(config: GPTConfig = SMALL, *, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(config).eval()


@pytest.mark.parametrize("block", ["pre-ln", "post-ln", "sparse-transformer"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_changing_a_later_token_never_changes_earlier_logits(pattern: str, block: str) -> None:
    model = make(replace(SMALL, pattern=pattern, block=block, tied=False))
    torch.nn.init.normal_(model.output_weight, std=0.3)  # a fresh sparse transformer's is 0
    tokens = torch.randint(17, (2, 11))
    before = model(tokens)
    for t in range(11):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 17
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t])


def test_a_banded_layer_ignores_all_keys_beyond_its_window() -> None:
    model = make(replace(SMALL, n_layers=1, pattern="banded(4)"))
    tokens = torch.randint(17, (1, 13))
    before = model(tokens)[0]
    changed = tokens.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 17
    moved = [t for t in range(13) if not torch.equal(model(changed)[0, t], before[t])]
    assert moved == [2, 3, 4, 5]  # the window of 4 counts the query itself


def test_two_banded_layers_read_twice_as_far() -> None:
    model = make(replace(SMALL, n_layers=2, pattern="banded(4)"))
    tokens = torch.randint(17, (1, 13))
    changed = tokens.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 17
    moved = [t for t in range(13) if not torch.equal(model(changed)[0, t], model(tokens)[0, t])]
    assert moved == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("pattern", ["dense", "alternate(dense, banded(3))"])
def test_document_masking_equals_reading_each_document_alone_in_its_place(pattern: str) -> None:
    model = make(replace(SMALL, pattern=pattern))
    tokens = torch.randint(17, (2, 12))
    documents = torch.tensor([[0] * 5 + [1] * 7, [4] * 1 + [6] * 9 + [9] * 2])
    together = model.logits(model.hidden(tokens, documents=documents))
    assert not torch.allclose(together, model(tokens))
    for row, (start, end) in [(0, (0, 5)), (0, (5, 12)), (1, (0, 1)), (1, (1, 10)), (1, (10, 12))]:
        alone = make(replace(SMALL, pattern=pattern))
        with torch.no_grad():
            alone.wpe.weight[: end - start] = model.wpe.weight[start:end]
        torch.testing.assert_close(alone(tokens[row : row + 1, start:end])[0], together[row, start:end])


def test_documents_reach_the_loss() -> None:
    model = make()
    tokens, documents = torch.randint(17, (2, 12)), torch.tensor([[0] * 5 + [1] * 7] * 2)
    logits = model.logits(model.hidden(tokens, documents=documents))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    torch.testing.assert_close(model.loss(tokens, tokens, documents), expected)
    assert not torch.isclose(model.loss(tokens, tokens), expected)


def test_dropout_acts_in_training_alone() -> None:
    model = make(replace(SMALL, dropout=0.3))
    tokens = torch.randint(17, (2, 12))
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.allclose(model(tokens), model(tokens))


def test_the_sparse_transformer_drops_no_embeddings() -> None:
    model = make(replace(SMALL, dropout=0.5, block="sparse-transformer", tied=False, positions="rows(4)")).train()
    seen = []
    model.h[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tokens = torch.randint(17, (2, 12))
    model(tokens)
    rows, columns = model.wpe.weight.split([4, 4])  # 13 positions in 4 rows of 4
    torch.testing.assert_close(seen[0][1, 6], model.wte(tokens[1, 6]) + rows[1] + columns[2])


def test_dropout_acts_on_the_embeddings_too() -> None:
    model = make(replace(SMALL, dropout=0.5)).train()
    seen = []
    model.h[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tokens = torch.randint(17, (2, 12))
    model(tokens)
    embedded = model.wte(tokens) + model.wpe.weight[:12]
    kept = seen[0] != 0
    assert 0.4 < kept.float().mean().item() < 0.6
    torch.testing.assert_close(seen[0][kept], 2 * embedded[kept])


@pytest.mark.parametrize("pattern", ["dense", "banded(4)"])
def test_what_is_dropped_of_a_row_depends_on_its_key_alone(pattern: str) -> None:
    model = make(replace(SMALL, dropout=0.3, pattern=pattern)).train()
    tokens, keys = torch.randint(17, (3, 12)), torch.tensor([5, 2**60, 9])
    together = model.hidden(tokens, dropout_keys=keys)
    for row in range(3):
        part = slice(row, row + 1)
        torch.testing.assert_close(model.hidden(tokens[part], dropout_keys=keys[part]), together[part])
    assert not torch.allclose(model.hidden(tokens, dropout_keys=keys + 1), together, atol=0.1)


def test_the_loss_of_parts_adds_up_to_the_loss_of_the_whole_and_targets_of_minus_one_count_nothing() -> None:
    model, tokens = make(SMALL), torch.randint(17, (3, 12))
    targets = tokens.roll(-1, 1)
    whole = model.loss(tokens, targets)
    whole.backward()
    expected = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    padded = torch.cat([targets[2:], torch.full_like(targets[2:], -1)])
    parts = [
        model.loss(tokens[:2], targets[:2], n_tokens=36),
        model.loss(torch.cat([tokens[2:], tokens[:1]]), padded, n_tokens=36),
    ]
    sum(parts).backward()
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close([weight.grad for weight in model.parameters()], expected)


RECOMPUTED = [
    replace(SMALL, dropout=0.3, pattern="alternate(dense, banded(3))"),
    replace(SMALL, dropout=0.3, block="sparse-transformer", tied=False, d_qk=4, positions="rows(4)"),
]


def loss_and_gradients(model: GPT, tokens: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(9)  # of dropout
    loss = model.loss(tokens, tokens.roll(-1, 1))
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("config", RECOMPUTED, ids=["gpt", "sparse-transformer"])
def test_recomputation_changes_no_bit_of_the_gradients_dropout_included(config: GPTConfig) -> None:
    model, tokens = make(config).train(), torch.randint(17, (4, 13))
    torch.nn.init.normal_(model.output_weight, std=0.3)  # a fresh sparse transformer's is 0: no gradient would pass
    expected = loss_and_gradients(model, tokens)
    calls: Counter[str] = Counter()
    for name, part in (("block", model.h[1]), ("attention", model.h[1].attn), ("feed-forward", model.h[1].mlp)):
        part.register_forward_pre_hook(lambda module, given, name=name: calls.update([name]))
    for what, blocks, attentions in (("full", 2, 2), ("selective", 1, 1)):
        calls.clear()
        model.set_recompute(what)
        found = loss_and_gradients(model, tokens)
        # in the forward pass, and in the backward pass what is computed again
        assert calls == {"block": blocks, "attention": attentions, "feed-forward": 2}
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert all(gradient.any() for gradient in found[1:])


def kept_bytes(model: GPT, tokens: torch.Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by storage; the tensors are held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(tokens, tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_recomputation_keeps_one_input_a_block() -> None:
    shape = {"d_model": 64, "n_heads": 4, "n_ctx": 128, "n_vocab": 17}
    shallow, deep = (GPT(GPTConfig(**shape, n_layers=n_layers)) for n_layers in (2, 12))
    tokens = torch.randint(17, (3, 128))
    whole = kept_bytes(deep, tokens)
    for model in (shallow, deep):
        model.set_recompute("full")
    assert kept_bytes(deep, tokens) - kept_bytes(shallow, tokens) == 10 * 3 * 128 * 64 * 4  # layers, rows, T, D, bytes
    assert kept_bytes(deep, tokens) < whole / 10


def test_recomputation_leaves_reading_with_a_cache_alone() -> None:
    model, tokens = make(), torch.randint(17, (2, 12))
    expected = model(tokens)
    model.set_recompute("full")
    cache = PagedCache(model.config)
    texts = [cache.new_text(), cache.new_text()]
    parts = []
    for part in tokens.split([5, 7], dim=1):
        logits = model(part.flatten()[None], PagedMemory(cache, texts, [part.shape[1]] * 2))
        parts.append(logits.view(2, -1, 17))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


def test_vectors_are_read_as_the_tokens_whose_embeddings_they_are() -> None:
    model, tokens = make(), torch.randint(17, (2, 11))
    vectors = model.wte(tokens)
    assert torch.equal(model.read(vectors), model.hidden(tokens))
    vectors[:, 4] += 1.0
    moved = (model.read(vectors) - model.hidden(tokens)).abs().amax((0, 2))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()
    with pytest.raises(ContextTooLong, match="the input has 14"):
        model.read(torch.zeros(1, 14, 24))


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ContextTooLong, match="the input has 14 tokens, the model's context holds 13: shorten it"):
        make()(torch.zeros(1, 14, dtype=torch.long))


def test_documents_and_a_cache_are_refused_together() -> None:
    model, tokens = make(), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(BadValue, match="cannot be used together"):
        model.hidden(tokens, Prefix(model.config), documents=tokens)


def test_the_kernel_is_injected_and_changes_nothing() -> None:
    config = replace(SMALL, pattern="alternate(dense, fixed(4, 1))")
    torch.manual_seed(0)
    other = GPT(config, attend=reference.attend).eval()
    tokens = torch.randint(17, (2, 11))
    torch.testing.assert_close(make(config)(tokens), other(tokens), rtol=1e-5, atol=1e-5)


def test_parameters_carry_gpt2_names() -> None:
    names = {name for name, _ in make().named_parameters()}
    parts = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    layers = {f"h.{i}.{part}.{kind}" for i in range(3) for part in parts for kind in ("weight", "bias")}
    assert names == layers | {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"}


def test_an_untied_model_has_its_own_output_matrix() -> None:
    model = make(replace(SMALL, tied=False))
    assert model.lm_head is not None
    assert model.output_weight is model.lm_head.weight
    assert model.output_weight is not model.wte.weight
    hidden = torch.randn(5, 24)
    torch.testing.assert_close(model.logits(hidden), hidden @ model.lm_head.weight.T)
    counts, tied = count_parameters(model.config), count_parameters(SMALL)
    assert counts["total"] - tied["total"] == 17 * 24 == counts["non_embedding"] - tied["non_embedding"]


def test_gpt1_has_no_last_norm() -> None:
    model = make(replace(SMALL, block="post-ln"))
    seen = []
    model.h[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    hidden = model.hidden(torch.randint(17, (2, 5)))
    assert torch.equal(hidden, seen[0])
    assert not any(name.startswith("ln_f") for name, _ in model.named_parameters())


def test_recomputation_is_set_by_its_method_alone_and_by_a_name_that_is_known() -> None:
    model = make()
    with pytest.raises(AttributeError):
        model.recompute = True  # type: ignore[misc]
    with pytest.raises(UnknownName, match="none, selective"):
        model.set_recompute("half")
    assert model.recompute == "none"
