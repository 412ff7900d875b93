"""A GPT for inference alone: packed weights, float32 between the layers, and results that no neighbour changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.invariant.blocks import Blocks, BlockWeights
from fewshot.kernels.invariant.gelu import form, invariant
from fewshot.kernels.invariant.linear import PackedLinear
from fewshot.model.gpt import GPT
from fewshot.model.layers import FeedForward, TransformerBlock
from fewshot.model.memory import LayerMemory, Memory
from fewshot.model.paged_cache import LayerPages

M = TypeVar("M", bound=nn.Module)


class PackedGPT(GPT):
    """The same function as `model`, with its matrices copied as `weight_type`; see kernels/invariant/linear.py.

    With a `PagedMemory` what it computes for a token depends on the token's own text alone, to the last bit. The
    embedding table stays that of `model`. Cannot be trained.
    """

    def __init__(self, model: GPT, weight_type: str = "float32") -> None:
        with torch.device("meta"):
            super().__init__(model.config)
        self.weight_type = weight_type
        self.wte, self.wpe, self.ln_f = model.wte, _in_float32(model.wpe), _in_float32(model.ln_f)
        self.h = nn.ModuleList(_packed(block, weight_type) for block in model.h)
        self.lm_head = None
        self.head = PackedLinear(model.output_weight, None, weight_type)
        self._blocks = _native(model.h, self.h) if self.config.qk_width == self.config.head_width else None
        self.eval()

    @torch.inference_mode()
    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        memory: Memory | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        *,
        dropout_keys: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states after the last norm, as `GPT.hidden`."""
        return self.read(self.wte(tokens).float(), memory, documents, dropout_keys=dropout_keys)

    def through_blocks(
        self,
        x: Float[Tensor, "B T D"],
        by_layer: Sequence[LayerMemory | None] | None = None,
        *,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return what the last block gives, as `GPT.through_blocks`: with pages by one call into C++, where it can."""
        layers = [layer for layer in by_layer or () if isinstance(layer, LayerPages)]
        if self._blocks is None or not layers:
            return super().through_blocks(x, by_layer, documents=documents, dropout=dropout)
        parts, config = [layer.page_parts() for layer in layers], self.config
        return self._blocks.run(x[0], parts, n_heads=config.n_heads, width=config.head_width)[None]

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Return the logits over the vocabulary for these hidden states."""
        return self.head(hidden)

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type of keys and values in a cache."""
        return torch.float32 if self.weight_type == "float32" else torch.bfloat16

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed matrices, all of which a step reads."""
        return sum(module.n_bytes for module in self.modules() if isinstance(module, PackedLinear))


def _native(originals: Iterable[Any], blocks: Iterable[Any]) -> Blocks | None:
    """Return the packed blocks as C++ runs them; None where it cannot."""
    weights = []
    for original, block in zip(originals, blocks, strict=True):
        if not isinstance(original, TransformerBlock) or not block.attn.c_attn.is_native:
            return None
        weights.append(
            BlockWeights(
                norm_first=block.norm_first,
                activation=form(original.mlp.activation),
                ln_1=block.ln_1,
                ln_2=block.ln_2,
                c_attn=block.attn.c_attn,
                c_proj=block.attn.c_proj,
                c_fc=block.mlp.c_fc,
                c_out=block.mlp.c_proj,
            )
        )
    return Blocks(weights)


def _in_float32(module: M) -> M:
    is_float32 = all(parameter.dtype == torch.float32 for parameter in module.parameters())
    return module if is_float32 else copy.deepcopy(module).float()


def _packed(block: nn.Module, weight_type: str) -> nn.Module:
    """Return a block whose linear layers are packed; all other parts are shared with it."""
    twin = copy.copy(block)
    twin._modules = {
        name: PackedLinear(child.weight, child.bias, weight_type)
        if isinstance(child, nn.Linear)
        else _packed(child, weight_type)
        if any(isinstance(part, nn.Linear) for part in child.modules())
        else _in_float32(child)
        for name, child in block.named_children()
    }
    if isinstance(twin, FeedForward):
        twin.activation = invariant(twin.activation)
    return twin
