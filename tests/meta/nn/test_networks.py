from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from fewshot.base.errors import BadValue
from fewshot.meta.nn.networks import (
    BatchNorm,
    Convolution,
    ImageNetwork,
    LargestOfFour,
    NetworkConfig,
    TextNetwork,
    n_image_parameters,
    n_parameters,
    n_text_parameters,
    perceptron,
)

SIZES = [(7, 5, 2), (6, 8, 2), (5, 4, 1), (1, 2, 2), (2, 1, 1), (1, 1, 2)]
SMALL = NetworkConfig(n_filters=6, n_blocks=3)


def as_torch(weight: torch.Tensor, n_in: int) -> torch.Tensor:
    return weight.view(3, 3, n_in, -1).permute(3, 2, 0, 1)


@pytest.mark.parametrize(("height", "width", "stride"), SIZES)
def test_a_convolution_is_that_of_torch(height, width, stride):
    torch.manual_seed(0)
    x, conv = torch.randn(2, height, width, 3), Convolution(3, 4, stride)
    wanted = F.conv2d(x.movedim(-1, 1), as_torch(conv.weight, 3), stride=stride, padding=1).movedim(1, -1)
    assert torch.allclose(conv(x), wanted, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "stride"), SIZES[:4])
def test_its_first_and_second_derivatives_are_those_of_finite_differences(height, width, stride):
    torch.manual_seed(0)
    x = torch.randn(2, height, width, 2, dtype=torch.float64, requires_grad=True)
    conv = Convolution(2, 3, stride).double()

    def squared(x, weight):
        return functional_call(conv, {"weight": weight}, (x,)).square()

    assert torch.autograd.gradcheck(squared, (x, conv.weight))
    assert torch.autograd.gradgradcheck(squared, (x, conv.weight))


@pytest.mark.parametrize("stride", [1, 2])
def test_tasks_with_weights_of_their_own_at_once_are_as_one_by_one(stride):
    torch.manual_seed(0)
    x, conv = torch.randn(4, 2, 5, 6, 3), Convolution(3, 2, stride)
    weights = torch.randn(4, *conv.weight.shape)

    def of_one(x, weight):
        return functional_call(conv, {"weight": weight}, (x,))

    together = vmap(of_one)(x, weights)
    shared = vmap(of_one, (None, 0))(x[0], weights)
    for i in range(4):
        assert torch.allclose(together[i], of_one(x[i], weights[i]), atol=1e-5)
        assert torch.allclose(shared[i], of_one(x[0], weights[i]), atol=1e-5)


def test_batch_norm_is_that_of_torch_in_training():
    torch.manual_seed(0)
    x, ours, torchs = 2 + 3 * torch.randn(4, 5, 3, 7), BatchNorm(7), nn.BatchNorm2d(7)
    with torch.no_grad():
        torchs.weight.copy_(torch.randn(7))
        torchs.bias.copy_(torch.randn(7))
    values = functional_call(ours, dict(torchs.named_parameters()), (x,))
    assert torch.allclose(values, torchs(x.movedim(-1, 1)).movedim(1, -1), atol=1e-5)
    assert torch.equal(BatchNorm(2)(torch.full((3, 2), 100.3)).isfinite(), torch.ones(3, 2, dtype=torch.bool))


def test_the_largest_of_four_is_torchs_max_pool():
    x = torch.randn(2, 5, 8, 3)
    assert torch.equal(LargestOfFour()(x), F.max_pool2d(x.movedim(-1, 1), 2).movedim(1, -1))


@pytest.mark.parametrize("pool", ["stride", "max"])
def test_the_image_network_is_the_papers_layer_by_layer(pool):
    network = ImageNetwork(2, 5, NetworkConfig(n_filters=6, n_blocks=3, pool=pool), seed=1)
    x = torch.rand(4, 11, 13, 2)
    values = x.movedim(-1, 1)
    weights = dict(network.named_parameters())
    for i in range(3):
        kernel = as_torch(weights[f"blocks.conv{i}.weight"], values.shape[1])
        values = F.conv2d(values, kernel, stride=1 if pool == "max" else 2, padding=1)
        values = F.relu(F.batch_norm(values, None, None, training=True))
        values = F.max_pool2d(values, 2) if pool == "max" else values
    wanted = values.mean((2, 3)) @ weights["head.weight"].T + weights["head.bias"]
    assert torch.allclose(network(x), wanted, atol=1e-4)


def test_the_papers_network_has_its_number_of_weights():
    """9*64 + 3 * 9*64*64 without biases, 4 norms of 2*64, head 64*5 + 5."""
    network = ImageNetwork(1, 5, NetworkConfig(), seed=0)
    assert sum(weight.numel() for weight in network.parameters()) == 576 + 3 * 36_864 + 512 + 325


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_query_alone_among_others_is_the_last_of_its_batch(kind):
    if kind == "images":
        network, x = ImageNetwork(1, 3, SMALL, seed=0), torch.rand(4, 6, 9, 9, 1)
    else:
        network, x = TextNetwork(3, SMALL, seed=0), torch.randint(256, (4, 6, 11))
    logits = network(x)
    assert logits.shape == (4, 3)
    for i in range(4):
        assert torch.allclose(logits[i], network(x[i])[-1], atol=1e-5)
    assert not torch.allclose(network(x[0])[:3], network(x[0, :3]), atol=1e-3)  # the norm sees the whole batch


def test_a_text_network_reads_what_stands_within_five_bytes():
    network = TextNetwork(2, SMALL, seed=0)
    bag = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1]])
    first, second = network(bag)
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_seed_decides_the_weights_and_the_head_is_called_head():
    for build in (
        lambda seed: ImageNetwork(1, 3, SMALL, seed=seed),
        lambda seed: TextNetwork(3, SMALL, seed=seed),
        lambda seed: perceptron(2, (5, 4), 3, seed=seed),
    ):
        first, same, other = (build(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"n_filters": 0}, "n_filters is 0"), ({"n_blocks": 0}, "n_blocks is 0"), ({"pool": "mean"}, "pool is 'mean'")],
)
def test_networks_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        NetworkConfig(**wrong)


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e3, -1e3, 1e4])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_batch_norm_is_right_far_from_zero(mean, spread):
    torch.manual_seed(0)
    x = mean + spread * torch.randn(40, 3, 5)
    exact = x.double()
    wanted = (exact - exact.mean((0, 1))) / (exact.var((0, 1), correction=0) + 1e-5).sqrt()
    tolerance = 1e-5 + 1e-6 * abs(mean) / spread
    assert torch.allclose(BatchNorm(5)(x).double(), wanted, rtol=0, atol=tolerance)


def test_the_second_derivative_of_batch_norm_is_that_of_finite_differences():
    torch.manual_seed(0)
    norm, x = BatchNorm(2).double(), torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def normed(x, weight):
        return functional_call(norm, {"weight": weight}, (x,)).pow(3)

    assert torch.autograd.gradcheck(normed, (x, weight))
    assert torch.autograd.gradgradcheck(normed, (x, weight))


@pytest.mark.parametrize(
    "make",
    [
        lambda: perceptron(1, [10**9], 1, seed=0),
        lambda: perceptron(1, [10**6, 10**7], 1, seed=0),
        lambda: perceptron(10**12, [40], 1, seed=0),
        lambda: ImageNetwork(1, 5, NetworkConfig(n_filters=10**7), seed=0),
        lambda: ImageNetwork(1, 5, NetworkConfig(n_blocks=10**9), seed=0),
        lambda: TextNetwork(5, NetworkConfig(n_filters=10**8), seed=0),
        lambda: ImageNetwork(1, 10**12, NetworkConfig(), seed=0),
    ],
)
def test_a_network_that_fits_into_no_memory_is_refused_before_it_is_made(make):
    with pytest.raises(BadValue, match=r"needs .* are free"):
        make()


def test_the_memory_of_a_network_is_counted_by_its_parameters():
    for network, counted in (
        (perceptron(3, (7, 5), 2, seed=0), n_parameters([3, 7, 5, 2])),
        (ImageNetwork(3, 4, SMALL, seed=0), n_image_parameters(3, 4, SMALL)),
        (TextNetwork(4, SMALL, seed=0), n_text_parameters(4, SMALL)),
    ):
        assert sum(weight.numel() for weight in network.parameters()) == counted
