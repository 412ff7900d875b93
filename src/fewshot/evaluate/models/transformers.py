"""Any causal model of the transformers library as a `LanguageModel`, so that it is evaluated like one of ours.

Prefix trees need a model that takes a mask and position numbers and lets each position read all before it. Whether a
model does so is tried when it is loaded, not assumed; one that does not reads text by text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue, check
from fewshot.base.log import note
from fewshot.evaluate.models.transformers_load import load_parts
from fewshot.evaluate.models.transformers_tokenizer import TransformersTokenizer
from fewshot.generate.next_logits import Steps, n_shared
from fewshot.model.logprobs import checked_logprobs

DEFAULT_N_CTX = 2048  # where a configuration names no length
MIN_N_CTX, PROBE_TOKENS = 4, 12
CLOSE = 1e-3  # nats: how far two ways to the same log-probabilities may differ
# How much scores before changed tokens may change, as a share of the change behind them: rounding alone, which there is
# where experts read tokens in groups.
LEAK, LEAK_IN_HALF_PRECISION = 1e-4, 2e-2
PADDED_ROUNDING = 16  # how much more than one rounding a row may change with the rows beside it
LENGTHS = (
    "n_positions",
    "max_position_embeddings",
    "n_ctx",
    "max_seq_len",  # MPT
    "max_sequence_length",
    "seq_length",
    "context_length",  # RWKV
    "max_target_positions",
)
POSITIONS = re.compile(r"(^|[._])(wpe|position_embeddings|positions_embed|embed_positions)$")
WINDOWED_LAYER = re.compile("window|sliding|local|attention_chunk|chunked")  # in the name of a kind of layer
# In the name of a setting; "local" experts are those of one machine.
WINDOW = re.compile(r"window|sliding|(^|_)local_(?!experts)|attention_chunk|chunked")
# What models raise that are not made for what is asked of them here.
REFUSALS = (TypeError, ValueError, AttributeError, IndexError, RuntimeError, KeyError)


def load_transformers(name: str) -> tuple[TransformersLanguageModel, TransformersTokenizer, str]:
    """Return the model and tokenizer at a path or of a name on the hub, and a digest of both.

    Raises BadValue or BadFile for a model that would not be measured as itself.
    """
    model, tokenizer, digest = load_parts(name)
    return TransformersLanguageModel(model.to("cuda") if torch.cuda.is_available() else model), tokenizer, digest


class TransformersLanguageModel:
    """A causal model of transformers."""

    def __init__(self, model: Any) -> None:
        """Try what the model can do.

        Raises BadValue for a model whose scores depend on later tokens, NotFinite for one whose scores are no numbers.
        """
        self.model = model.eval()
        self.device = model.device
        config = model.config.get_text_config()
        self._n_vocab = model.get_input_embeddings().weight.shape[0]
        self.n_ctx = _usable_length(model, config)
        check(
            self.n_ctx >= MIN_N_CTX, f"{type(model).__name__} reads {self.n_ctx} tokens, which is too few to score any"
        )
        self._split = False
        self._check_causal()
        self._split = self._try(self._same_logits)
        self.branching = _reads_everything(config) and self._try(self._same_trees)
        self._caches = self._try(lambda tokens: hasattr(self._run(tokens, use_cache=True)[1], "batch_select_indices"))
        if not self.branching:
            note(f"{type(model).__name__} cannot read texts as one tree: each is read by itself, which takes longer")

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return hidden states, or the logits where these are more than a matrix product of hidden states."""
        return self._run(tokens)[0]

    def read_prefix(self, tokens: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values of these tokens in every layer."""
        cache = self._run(torch.tensor([list(tokens)], device=self.device), use_cache=True)[1]
        return [(layer.keys, layer.values) for layer in cache.layers]

    def read_trees(
        self,
        prefix: list[tuple[Tensor, Tensor]] | None,
        tokens: Int[Tensor, "B T"],
        depths: Int[Tensor, "B T"],
        sees: Bool[Tensor, "B T T"],
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states of rows of trees behind a prefix, by a mask and position numbers."""
        n_before = prefix[0][0].shape[2] if prefix else 0
        seen = torch.cat([sees.new_ones(*tokens.shape, n_before), sees], dim=2)[:, None]
        dtype = self.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
        cache = repeated(prefix, len(tokens)) if prefix else None
        return self._run(tokens, attention_mask=mask, position_ids=n_before + depths, past_key_values=cache)[0]

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return scores over the vocabulary."""
        return self.model.get_output_embeddings()(hidden) if self._split else hidden

    def steps(self) -> Steps:
        """Return steps that keep the library's cache; where there is none, steps that read the whole text each time."""
        return TransformersSteps(self) if self._caches else RereadSteps(self)

    def _run(self, tokens: Tensor, *, use_cache: bool = False, **given: Any) -> tuple[Tensor, Any]:
        use_cache = use_cache or given.get("past_key_values") is not None
        part = self.model.base_model if self._split else self.model
        out = part(input_ids=tokens, use_cache=use_cache, **{k: v for k, v in given.items() if v is not None})
        return (out.last_hidden_state if self._split else out.logits), out.get("past_key_values")

    @torch.inference_mode()
    def _try(self, probe: Callable[[Tensor], bool]) -> bool:
        """Return whether the probe holds on a few tokens; it does not where the model refuses the arguments."""
        try:
            return probe(self._some_tokens())
        except REFUSALS:
            return False

    def _some_tokens(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self._n_vocab, (1, min(PROBE_TOKENS, self.n_ctx)), generator=generator).to(self.device)

    @torch.inference_mode()
    def _check_causal(self) -> None:
        """Raise BadValue where other last tokens, or padding in their place, change the scores of earlier positions."""
        tokens, what = self._some_tokens(), type(self.model).__name__
        n_changed = tokens.shape[1] // 3
        others, padded = tokens.clone(), tokens.clone()
        others[0, -n_changed:] = (others[0, -n_changed:] + 1 + self._n_vocab // 2) % self._n_vocab
        padded[0, -n_changed:] = 0
        try:
            first, changed, alone, beside = (
                self.read(rows).float().log_softmax(-1)[-1]
                for rows in (tokens, others, tokens[:, :-n_changed], torch.cat([tokens, padded]))
            )
        except REFUSALS as error:
            if "memory" in str(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadValue(f"{what} cannot be read as a plain language model: {reason}") from None
        checked_logprobs(first.amax(-1))
        by_position = _differences(first, changed).amax(-1)
        leak, effect = float(by_position[:-n_changed].max()), float(by_position[-n_changed:].max())
        padding = float(_differences(alone, beside[:-n_changed]).max())
        rounding = torch.finfo(self.model.dtype).eps * float(first[first.isfinite()].abs().max())
        allowed = LEAK if self.model.dtype in (torch.float32, torch.float64) else LEAK_IN_HALF_PRECISION
        if leak > allowed * effect or padding > CLOSE + PADDED_ROUNDING * rounding:
            raise BadValue(
                f"{what} reads ahead: its scores change with the tokens that follow, so they are not "
                "log-probabilities of a text; a causal language model is needed (BERT is one if is_decoder is true)"
            )

    def _same_logits(self, tokens: Tensor) -> bool:
        """Return whether the base model's hidden states times the output matrix are the model's logits."""
        expected = self.read(tokens)
        self._split = True
        return _close(self.logits(self.read(tokens)), expected)

    def _same_trees(self, tokens: Tensor) -> bool:
        """Return whether two continuations of a prefix have the same scores in one tree as each alone."""
        a, b, c = PROBE_TOKENS // 3, 2 * PROBE_TOKENS // 3, PROBE_TOKENS
        prefix, first, second = tokens[:, :a], tokens[:, a:b], tokens[:, b:c]
        depths = torch.tensor([[*range(b - a), *range(c - b)]], device=self.device)
        line = torch.ones(b - a, b - a, dtype=torch.bool).tril()
        sees = torch.block_diag(line, torch.ones(c - b, c - b).tril()).bool()[None].to(self.device)
        got = self.read_trees(self.read_prefix(prefix[0].tolist()), tokens[:, a:], depths, sees)
        expected = [self.read(torch.cat([prefix, rest], dim=1))[:, a:] for rest in (first, second)]
        return _close(self.logits(got[0]), self.logits(torch.cat(expected, dim=1)[0]))


def _differences(a: Tensor, b: Tensor) -> Tensor:
    """Return the distances of log-probabilities, 0 where both are -inf."""
    return torch.where(a == b, 0.0, (a - b).abs())


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a.log_softmax(-1) - b.log_softmax(-1)).abs().max() < CLOSE)


def _usable_length(model: Any, config: Any) -> int:
    """Return how many tokens the model can read: as its configuration says, but no more than it has positions."""
    named = [getattr(config, key, None) for key in LENGTHS]
    lengths = [length for length in named if type(length) is int and length >= 1]
    if not lengths:
        note(f"the configuration of {type(model).__name__} names no context length: {DEFAULT_N_CTX:,} tokens are used")
    return min([lengths[0] if lengths else DEFAULT_N_CTX, *_position_rows(model)])


def _position_rows(model: Any) -> list[int]:
    """Return the sizes of the tables of positions, without the rows that are for no token (RoBERTa)."""
    return [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and POSITIONS.search(name)
    ]


def _reads_everything(config: Any) -> bool:
    """Return whether no setting names an attention window: a window counts places in the row, not in the text."""
    plain = config.to_dict()
    kinds = {*map(str, plain.get("layer_types") or []), *map(str, plain.get("attention_layers") or [])}
    windows = [plain[key] for key in plain if WINDOW.search(key) and key != "use_sliding_window"]
    used = plain.get("use_sliding_window", True)
    return not any(WINDOWED_LAYER.search(kind) for kind in kinds) and not (used and any(windows))


def repeated(layers: Sequence[tuple[Tensor, Tensor]], n_rows: int) -> Any:
    """Return a cache of the library with the same keys and values in every row."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1), number)
    return cache


class TransformersSteps:
    """Texts continued with the library's cache; shorter pieces are padded at their beginnings."""

    def __init__(self, lm: TransformersLanguageModel) -> None:
        self.lm = lm
        self.cache: Any = None

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read the prompts and return scores for the token after each."""
        n, device = len(prompts), self.lm.device
        shared = n_shared(prompts) if self.lm.branching else 0
        self.cache = repeated(self.lm.read_prefix(prompts[0][:shared]), n) if shared else None
        self.real = torch.ones(n, shared, dtype=torch.long, device=device)
        return self._read([prompt[shared:] for prompt in prompts])

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Keep these rows, add a token to each, and return scores for the next one."""
        if list(rows) != list(range(len(self.real))):
            index = torch.tensor(rows, device=self.lm.device)
            self.cache.batch_select_indices(index)
            self.real = self.real[index]
        return self._read([[token] for token in tokens])

    def _read(self, pieces: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        width, device = max(map(len, pieces)), self.lm.device
        tokens = torch.zeros(len(pieces), width, dtype=torch.long)
        real = torch.zeros(len(pieces), width, dtype=torch.long)
        for row, piece in enumerate(pieces):
            tokens[row, width - len(piece) :] = torch.tensor(piece)
            real[row, width - len(piece) :] = 1
        self.real = torch.cat([self.real, real.to(device)], dim=1)
        positions = (self.real.cumsum(1) - 1).clamp(min=0)[:, -width:]
        hidden, self.cache = self.lm._run(
            tokens.to(device),
            use_cache=True,
            attention_mask=self.real,
            position_ids=positions,
            past_key_values=self.cache,
        )
        return self.lm.logits(hidden[:, -1])


class RereadSteps:
    """Texts continued without a cache: all of them are read again for every token."""

    def __init__(self, lm: TransformersLanguageModel) -> None:
        self.lm = lm
        self.texts: list[list[int]] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read the prompts and return scores for the token after each."""
        self.texts = [list(prompt) for prompt in prompts]
        return self._read()

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Keep these rows, add a token to each, and return scores for the next one."""
        self.texts = [[*self.texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        return self._read()

    def _read(self) -> Float[Tensor, "B V"]:
        tokens = torch.zeros(len(self.texts), max(map(len, self.texts)), dtype=torch.long)
        for row, text in zip(tokens, self.texts, strict=True):
            row[: len(text)] = torch.tensor(text)
        last = [len(text) - 1 for text in self.texts]
        hidden = self.lm.read(tokens.to(self.lm.device))
        return self.lm.logits(hidden[range(len(last)), last])
