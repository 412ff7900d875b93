"""What a model says, by the transformers library: the answers that `contract.py` compares with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

REPLACED = "\N{REPLACEMENT CHARACTER}"  # where a token is no whole characters


class Truth:
    """A model in a Hugging Face folder, in float32, and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        config = self.model.config
        self.n_ctx, self.n_vocab, self.eot = config.n_positions, config.vocab_size, config.eos_token_id
        self.shape = {
            "n_layers": config.n_layer,
            "d_model": config.n_embd,
            "n_ctx": self.n_ctx,
            "n_vocab": self.n_vocab,
        }

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    @cached_property
    def id_of_text(self) -> dict[str, int]:
        """Return the token of each text that is one token's alone, and whole characters."""
        texts = [self.decode([token]) for token in range(self.n_vocab)]
        counts = Counter(texts)
        return {text: token for token, text in enumerate(texts) if counts[text] == 1 and REPLACED not in text}

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits after each token."""
        return self.model(torch.tensor([list(ids)])).logits[0].double()

    def logprobs(self, ids: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
        return (self.logits(ids) / temperature).log_softmax(-1)

    def greedy(
        self,
        prompt: Sequence[int],
        n: int,
        *,
        presence: float = 0,
        frequency: float = 0,
        bias: Mapping[int, float] | None = None,
        count_prompt: bool = False,
    ) -> list[int]:
        """Return the n likeliest tokens after penalties and biases; raises ValueError where two are almost alike."""
        ids = list(prompt)
        for _ in range(n):
            scores = self.logits(ids)[-1]
            for token, count in Counter(ids if count_prompt else ids[len(prompt) :]).items():
                scores[token] -= presence + frequency * count
            for token, value in (bias or {}).items():
                scores[token] += value
            best = scores.topk(2)
            if float(best.values[0] - best.values[1]) < 0.02:
                raise ValueError("the likeliest tokens are almost alike: give a model with another seed")
            ids.append(int(best.indices[0]))
        return ids[len(prompt) :]
