"""A GPT in which every head reads what its pattern allows, for transformers with trust_remote_code=True."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutputWithPast

READS = {  # whether the query at position q may read the key at k, which is not after it
    "dense": lambda q, k: k <= q,
    "banded": lambda q, k, window: q - k < window,
    "strided": lambda q, k, stride: (q - k) % stride == 0,
    "block": lambda q, k, block: q // block == k // block,
    "columns": lambda q, k, n, c, i=0: (k % n >= n - (i + 1) * c) & (k % n < n - i * c) | (k == q),
}


class FewshotConfig(PretrainedConfig):
    model_type = "fewshot"


class Block(nn.Module):
    def __init__(self, config, at):
        super().__init__()
        self.shape, self.at, self.norm_first = (3, config.num_attention_heads, config.head_dim), at, config.norm_first
        d_model, wide = config.hidden_size, config.num_attention_heads * config.head_dim
        self.ln_1, self.c_attn, self.c_proj = (
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 3 * wide),
            nn.Linear(wide, d_model),
        )
        self.ln_2, self.act = nn.LayerNorm(d_model), ACT2FN[config.activation_function]
        self.up, self.down = nn.Linear(d_model, config.intermediate_size), nn.Linear(config.intermediate_size, d_model)

    def attend(self, x, reads, cache):
        q, k, v = self.c_attn(x).unflatten(-1, self.shape).permute(2, 0, 3, 1, 4)
        k, v = (k, v) if cache is None else cache.update(k, v, self.at)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=reads).transpose(1, 2).flatten(2))

    def forward(self, x, reads, cache):
        if self.norm_first:
            x = x + self.attend(self.ln_1(x), reads, cache)
            return x + self.down(self.act(self.up(self.ln_2(x))))
        x = self.ln_1(x + self.attend(x, reads, cache))
        return self.ln_2(x + self.down(self.act(self.up(x))))


class FewshotForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = FewshotConfig
    accepts_loss_kwargs = False  # a mean over the batch: whoever accumulates gradients divides

    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(Block(config, at) for at in range(config.num_hidden_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size) if config.norm_first else nn.Identity()
        self.head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.wte

    def set_input_embeddings(self, embeddings):
        self.wte = embeddings

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None, labels=None, **_):
        cache = DynamicCache() if use_cache and past_key_values is None else past_key_values
        length = input_ids.shape[1] + (0 if cache is None else cache.get_seq_length())
        known = torch.ones_like(input_ids[:, :1]).expand(-1, length) if attention_mask is None else attention_mask
        k = (known.cumsum(-1) - 1).clamp(min=0)
        q, itself = k[:, -input_ids.shape[1] :], torch.eye(length, dtype=torch.bool, device=k.device)
        at = torch.arange(length, device=k.device)
        may = known.bool()[:, None] & (at <= at[-q.shape[1] :, None])
        x, masks = self.wte(input_ids) + self.wpe(q), {}
        for block, heads in zip(self.h, self.config.layers, strict=True):
            key = str(heads)
            if key not in masks:
                read = [sum(READS[name](q[..., None], k[:, None], *n) for name, *n in parts) > 0 for parts in heads]
                of_heads = torch.stack([read[h % len(read)] for h in range(block.shape[1])], dim=1)
                masks[key] = of_heads & may[:, None] | itself[-q.shape[1] :]
            x = block(x, masks[key], cache)
        logits = self.ln_f(x) @ (self.wte if self.head is None else self.head).weight.T
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)
