"""Published models, from the hub: read and compared with transformers. Not run here, where no hub is reachable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot.checkpoint.formats.table import reader_of

NAMES = [
    "openai-community/gpt2",
    "distilbert/distilgpt2",
    "EleutherAI/gpt-neo-125m",
    "cerebras/Cerebras-GPT-111M",
    "facebook/opt-125m",
    "openai-community/openai-gpt",
]


@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_published_model_gives_the_logits_of_transformers(transformers: Any, name: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder = Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.bin", "*.model"]))
    read = reader_of(folder)
    assert read is not None
    ours, tokenizer = read(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    its_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "In a shocking finding, scientists discovered a herd of unicorns."
    ids = tokenizer.encode(text)
    assert ids == its_tokenizer(text, add_special_tokens=False)["input_ids"]
    for length in (1, 64, min(600, ours.config.n_ctx)):
        tokens = torch.randint(tokenizer.n_vocab, (1, length), generator=torch.Generator().manual_seed(length))
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
