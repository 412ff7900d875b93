"""A model of another shape computes the same from the folded weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import shaken

from fewshot.checkpoint.formats.folded import folded_state
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 48, "n_heads": 4, "n_ctx": 20, "n_vocab": 31}


@pytest.mark.parametrize(
    "changed",
    [{}, {"d_qk": 5}, {"d_head": 7}, {"d_head": 9, "d_qk": 4, "positions": "image(2, 5, 2)"}, {"positions": "rows(6)"}],
    ids=str,
)
@torch.no_grad()
def test_it_computes_the_same_with_wider_heads_and_one_table(changed: dict[str, Any]) -> None:
    model = shaken(**SHAPE | changed)
    plain = GPT(GPTConfig(**SHAPE)).eval()
    plain.load_state_dict(folded_state(model, head_width=12))
    tokens = torch.randint(31, (2, 20))
    torch.testing.assert_close(plain(tokens), model(tokens), rtol=0, atol=1e-4)
