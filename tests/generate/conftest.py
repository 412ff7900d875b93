"""A tokenizer of given pieces, and a real GPT that writes a given text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer


class Pieces(Tokenizer):
    """One id a piece of bytes, then `eot`; encodes byte by byte."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(dict.fromkeys(pieces))
        self.eot = len(self.pieces)
        self.n_vocab = self.eot + 1

    def encode_to_numpy(self, text: str) -> np.ndarray:
        return np.array([self.pieces.index(bytes([byte])) for byte in text.encode()], np.uint32)

    def _join(self, ids: list[int]) -> bytes:
        return b"".join([*self.pieces, b"<|endoftext|>"][i] for i in ids)

    def to_json(self) -> str:
        raise NotImplementedError


@pytest.fixture
def scripted() -> Callable[..., tuple[GPT, Pieces]]:
    """A model and tokenizer for pieces of bytes; greedily and after a prompt of one token, the model writes them.

    None stands for `<|endoftext|>`. A real GPT: its positions are one-hot, and its output matrix looks them up.
    """

    def make(*script: bytes | None) -> tuple[GPT, Pieces]:
        tokenizer = Pieces([piece for piece in script if piece is not None])
        n = len(script) + 1  # one hidden state alone would be nothing after its norm
        shape = {"n_layers": 1, "d_model": n, "n_heads": 1, "n_ctx": n - 1, "n_vocab": tokenizer.n_vocab}
        model = GPT(GPTConfig(**shape, tied=False)).eval()
        assert model.lm_head is not None
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.ln_f.weight.fill_(1.0)
            model.wpe.weight.copy_(torch.eye(n)[: n - 1])
            for position, piece in enumerate(script):
                token = tokenizer.eot if piece is None else tokenizer.pieces.index(piece)
                model.lm_head.weight[token, position] = 1.0
        return model, tokenizer

    return make


@pytest.fixture
def random_model() -> GPT:
    """2 layers, 20 tokens, a context of 12; weights large enough that its choices differ."""
    torch.manual_seed(5)
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": 12, "n_vocab": 20, "init_std": 0.5}
    return GPT(GPTConfig(**shape, pattern="alternate(dense, banded(3))")).eval()


@pytest.fixture
def letters() -> Pieces:
    """19 letters and `eot`: a tokenizer for `random_model`."""
    return Pieces([bytes([byte]) for byte in b"abcdefghijklmnopqrs"])
