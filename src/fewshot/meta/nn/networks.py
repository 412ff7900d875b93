"""Small networks that learn tasks. The last layer is called `head`, which is the name that ANIL adapts.

Convolutions are matrix products over gathered patches, with the channels last: so derivatives of any order, and weights
of each task's own under `vmap`, are matrix products again.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import vmap

from fewshot.base.errors import check, check_counts
from fewshot.base.machine import check_fits

POOLS = ("stride", "max")
WIDTH = 3  # of a patch
BYTES = 4  # of a float32


def perceptron(n_in: int, widths: Sequence[int], n_out: int, *, seed: int) -> nn.Module:
    """Return linear layers with ReLU between them; 1-40-40-1 is the network of Finn et al. 2017, section 5.1."""
    check(all(width >= 1 for width in widths), f"widths are {list(widths)}, must be at least 1 each")
    sizes = [n_in, *widths]
    check_trainable(n_parameters([*sizes, n_out]), f"a network of widths {list(widths)}", "lower widths")
    torch.manual_seed(seed)
    network = nn.Sequential()
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        network.add_module(f"hidden{i}", nn.Linear(before, after))
        network.add_module(f"relu{i}", nn.ReLU())
    network.add_module("head", nn.Linear(sizes[-1], n_out))
    return network


def check_trainable(n_parameters: float, what: str, way_out: str) -> None:
    """Raise BadValue if so many parameters, with gradients and two moments each, do not fit into memory."""
    check_fits(4 * BYTES * n_parameters, f"{what}, {n_parameters:,.0f} parameters to train,", way_out)


def n_parameters(sizes: Sequence[int]) -> int:
    """Return the number of parameters of linear layers between these sizes."""
    return sum((before + 1) * after for before, after in itertools.pairwise(sizes))


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of a network that classifies images or texts."""

    n_filters: int = 64  # channels of a layer
    n_blocks: int = 4  # of images, each halves their side
    pool: str = "stride"  # a block halves by a stride of 2, or takes the largest of 2x2 ("max")

    def __post_init__(self) -> None:
        check_counts(self, "n_filters", "n_blocks")
        check(self.pool in POOLS, f"pool is {self.pool!r}, allowed: {', '.join(POOLS)}")


class Classifier(nn.Module, abc.ABC):
    """Examples (B, ...) in, logits of the classes (B, ways) out.

    Batch norm takes mean and variance over all B, so an example's logits depend on the others. Examples (Q, B, ...) are
    Q such batches, and only the logits of the last example of each are returned (Q, ways): so that a query can be
    normed with support examples alone.
    """

    n_axes: int  # of a batch

    @abc.abstractmethod
    def logits(self, x: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B ways"]:
        """Return the logits of one batch."""

    def forward(self, x: Tensor) -> Float[Tensor, "_ ways"]:
        """Return the logits of one batch, or of the last example of each of several."""
        return self.logits(x) if x.dim() == self.n_axes else vmap(self.logits)(x)[:, -1]


class ImageNetwork(Classifier):
    """Blocks of 3x3 convolution, batch norm and ReLU, the mean over space, a linear head.

    In: images (B, side, side, channels). Source: Finn et al. 2017, section 5.2.
    """

    n_axes = 4

    def __init__(self, n_channels: int, n_ways: int, config: NetworkConfig, *, seed: int) -> None:
        super().__init__()
        check_trainable(n_image_parameters(n_channels, n_ways, config), "the network", "lower network or n_ways")
        torch.manual_seed(seed)
        self.blocks = nn.Sequential()
        for i in range(config.n_blocks):
            n_in, stride = config.n_filters if i else n_channels, 2 if config.pool == "stride" else 1
            self.blocks.add_module(f"conv{i}", Convolution(n_in, config.n_filters, stride))
            self.blocks.add_module(f"norm{i}", BatchNorm(config.n_filters))
            self.blocks.add_module(f"relu{i}", nn.ReLU())
            if config.pool == "max":
                self.blocks.add_module(f"pool{i}", LargestOfFour())
        self.head = nn.Linear(config.n_filters, n_ways)

    def logits(self, x: Float[Tensor, "B side side C"]) -> Float[Tensor, "B ways"]:
        """Return the logits of every example."""
        return self.head(self.blocks(x).mean((1, 2)))


class TextNetwork(Classifier):
    """Byte embeddings, a convolution over 5 bytes, batch norm, ReLU, the maximum over the text, a linear head.

    In: byte ids (B, length). Source: after Kim 2014.
    """

    n_axes = 2

    def __init__(self, n_ways: int, config: NetworkConfig, *, width: int = 5, seed: int) -> None:
        super().__init__()
        check_trainable(n_text_parameters(n_ways, config, width), "the network", "lower network or n_ways")
        torch.manual_seed(seed)
        n_filters = config.n_filters
        self.width = width
        self.embedding = nn.Embedding(256, n_filters)
        self.conv = nn.Linear(width * n_filters, n_filters, bias=False)
        self.norm = BatchNorm(n_filters)
        self.head = nn.Linear(n_filters, n_ways)

    def logits(self, x: Int[Tensor, "B L"]) -> Float[Tensor, "B ways"]:
        """Return the logits of every example."""
        embedded = nn.functional.pad(self.embedding(x), (0, 0, self.width - 1, 0))
        windows = torch.cat([embedded[:, i : i + x.shape[1]] for i in range(self.width)], -1)
        return self.head(torch.relu(self.norm(self.conv(windows))).amax(1))


def n_image_parameters(n_channels: int, n_ways: int, config: NetworkConfig) -> int:
    """Return the number of parameters of an `ImageNetwork`."""
    inside = (config.n_blocks - 1) * config.n_filters
    blocks = WIDTH**2 * (n_channels + inside) * config.n_filters + 2 * config.n_blocks * config.n_filters
    return blocks + n_parameters([config.n_filters, n_ways])


def n_text_parameters(n_ways: int, config: NetworkConfig, width: int = 5) -> int:
    """Return the number of parameters of a `TextNetwork`."""
    n_filters = config.n_filters
    return 256 * n_filters + width * n_filters**2 + 2 * n_filters + n_parameters([n_filters, n_ways])


class Convolution(nn.Module):
    """3x3 convolution without bias, zeros around the image; weight (9 * channels in, channels out)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(WIDTH**2 * n_in, n_out) * math.sqrt(2 / (WIDTH**2 * n_in)))

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B h w F"]:
        """Return the convolved images, with h = ceil(H / stride)."""
        gathered = _Patches.apply(x, self.stride)
        return (gathered.flatten(0, 2) @ self.weight).unflatten(0, gathered.shape[:3])


class BatchNorm(nn.Module):
    """Norms each channel (the last axis) to mean 0 and variance 1 over the present batch, then scales and shifts it.

    It keeps no running statistics: a query set is normed by its own, as MAML's code does it (transductive).
    """

    def __init__(self, n_channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Return x with every channel normed over all other axes."""
        axes = tuple(range(x.dim() - 1))
        centred = x - x.mean(axes)  # first: the difference of two squares has no digits left where the mean is large
        scale = self.weight * torch.rsqrt(centred.square().mean(axes) + self.epsilon)
        return torch.addcmul(self.bias, centred, scale)


class LargestOfFour(nn.Module):
    """Max pooling over 2x2; an odd last row or column is left out."""

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B h w C"]:
        """Return the pooled images, with h = floor(H / 2)."""
        h, w = x.shape[1] // 2, x.shape[2] // 2
        return x[:, : 2 * h, : 2 * w].unflatten(2, (w, 2)).unflatten(1, (h, 2)).amax((2, 4))


class _Patches(Function):
    """All 3x3 patches of (..., H, W, C) with zeros around it: (..., h, w, 9 * C), h = ceil(H / stride).

    Linear, and `_Spread` is its transpose: each is the other's derivative, to any order.
    """

    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        *lead, height, width, channels = x.shape
        h, w = -(-height // stride), -(-width // stride)
        out = x.new_zeros(*lead, h, w, WIDTH, WIDTH, channels)
        for row in range(WIDTH):
            for column in range(WIDTH):
                below, above = _overlap(row, height, stride), _overlap(column, width, stride)
                out[..., below[1], above[1], row, column, :] = x[..., below[0], above[0], :]
        return out.flatten(-3)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.stride = inputs
        ctx.size = x.shape[-3:-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(gradient, *ctx.size, ctx.stride), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, None], x: Tensor, stride: int) -> tuple[Tensor, int]:
        return _Patches.apply(x.movedim(dims[0] or 0, 0), stride), 0


class _Spread(Function):
    """Adds patches up at the pixels that they came from; the transpose of `_Patches`."""

    @staticmethod
    def forward(patches: Tensor, height: int, width: int, stride: int) -> Tensor:
        lead = patches.shape[:-3]
        parts = patches.unflatten(-1, (WIDTH, WIDTH, -1))
        out = patches.new_zeros(*lead, height, width, parts.shape[-1])
        for row in range(WIDTH):
            for column in range(WIDTH):
                below, above = _overlap(row, height, stride), _overlap(column, width, stride)
                out[..., below[0], above[0], :] += parts[..., below[1], above[1], row, column, :]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int, int], output: Tensor) -> None:
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Patches.apply(gradient, ctx.stride), None, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], patches: Tensor, *rest: int) -> tuple[Tensor, int]:
        return _Spread.apply(patches.movedim(dims[0] or 0, 0), *rest), 0


def _overlap(offset: int, size: int, stride: int) -> tuple[slice, slice]:
    """Return, along one axis, the pixels at this offset (0, 1, 2) of some patch, and the patches they belong to."""
    shift = offset - WIDTH // 2
    first = -(-max(0, -shift) // stride)  # the first patch with a pixel there
    last = min(-(-size // stride) - 1, (size - 1 - shift) // stride)
    return slice(first * stride + shift, last * stride + shift + 1, stride), slice(first, last + 1)
