"""Two small stand-ins: a tokenizer of characters with a few merges, and a model that copies."""

from __future__ import annotations

import pytest
import torch

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


class SmallTokenizer:
    """Characters, and greedily from the left the longest of `merges`; the last id is <|endoftext|>."""

    def __init__(self, *merges: str) -> None:
        self.pieces = [*CHARACTERS, *merges]
        self.longest_first = sorted(merges, key=len, reverse=True)
        self.eot = self.start = len(self.pieces)
        self.adds_start = False
        self.pieces_stand_alone = True
        self.n_vocab = self.eot + 1

    def encode(self, text: str) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            piece = next((one for one in self.longest_first if text.startswith(one, at)), text[at])
            ids.append(self.pieces.index(piece))
            at += len(piece)
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join(self.pieces[i] for i in ids)

    def decode_bytes(self, ids: list[int]) -> bytes:
        return self.decode(ids).encode()


class Copier:
    """A reader that says what followed the last `order` tokens when they stood earlier in its input, and no more."""

    device, branching = torch.device("cpu"), False

    def __init__(self, n_vocab: int, n_ctx: int, order: int) -> None:
        self.n_vocab, self.n_ctx, self.order = n_vocab, n_ctx, order

    def read(self, tokens):
        said = torch.zeros(*tokens.shape, self.n_vocab)
        for row, ids in enumerate(tokens.tolist()):
            seen: dict[tuple[int, ...], int] = {}
            for at in range(self.order, len(ids) + 1):
                key = tuple(ids[at - self.order : at])
                if key in seen:
                    said[row, at - 1, seen[key]] = 9.0
                if at < len(ids):
                    seen[key] = ids[at]
        return said

    def logits(self, hidden):
        return hidden


@pytest.fixture(scope="session")
def small_tokenizer() -> type[SmallTokenizer]:
    return SmallTokenizer


@pytest.fixture(scope="session")
def copier() -> type[Copier]:
    return Copier
