"""The non-linearities of a feed-forward layer, by name; each is a function of a tensor, element by element."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from fewshot.kernels.elementwise.gelu import gelu, sigmoid_gelu

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu_tanh": gelu,  # GPT-1, GPT-2 and GPT-3, by their code
    "gelu": F.gelu,  # by the error function: nanoGPT, Cerebras-GPT
    "relu": F.relu,  # OPT
    "quick_gelu": sigmoid_gelu,  # the Sparse Transformer
}
