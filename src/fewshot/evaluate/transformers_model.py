"""Any causal model of the transformers library as a `Reader`, so that it is evaluated like one of ours.

Trees of texts need a model that takes a mask and position numbers and lets each position read all before it. Whether
one does is tried when it is loaded, not assumed; one that does not is read text by text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.log import note
from fewshot.generate.steps import Steps, n_shared
from fewshot.tokenizer.bpe import ALPHABET
from fewshot.tokenizer.vocab import Tokenizer

DEFAULT_N_CTX = 2048  # where a configuration names no length
PROBE_TOKENS = 12
CLOSE = 1e-3  # nats: how far two ways to the same log-probabilities may differ
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def load_transformers(name: str) -> tuple[TransformersReader, TransformersTokenizer, str]:
    """The model and tokenizer of a folder, or of a name on the hub where there is a network; and what identifies it.

    Raises BadValue where the library is missing, BadFile where it cannot load the model.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError:
        raise BadValue(f"hf:{name} needs the transformers library: pip install 'fewshot[evaluate]'") from None
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise BadFile(f"transformers cannot load {name}: {str(error).strip().splitlines()[0]}") from None
    reader = TransformersReader(model.to("cuda") if torch.cuda.is_available() else model)
    return reader, TransformersTokenizer(tokenizer), _identity(name, model)


def _identity(name: str, model: Any) -> str:
    """Tells one model from another without reading gigabytes: files with their sizes and times, or the hub's commit."""
    files = sorted(path for path in Path(name).glob("*") if path.is_file())
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr((name, getattr(model.config, "_commit_hash", None), seen)).encode()).hexdigest()


class TransformersReader:
    """A causal model of transformers."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.device = model.device
        config = model.config.get_text_config()
        self.n_ctx = next((n for n in (getattr(config, key, None) for key in LENGTHS) if n), DEFAULT_N_CTX)
        self._n_vocab = model.get_input_embeddings().weight.shape[0]
        self._split = self._try(self._same_logits)
        self.branching = _reads_everything(config) and self._try(self._same_trees)
        self._caches = self._try(lambda tokens: hasattr(self._run(tokens, use_cache=True)[1], "batch_select_indices"))
        if not self.branching:
            note(f"{type(model).__name__} cannot read texts as a tree: each is read by itself, which takes longer")

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Hidden states; of a model whose logits are more than a matrix product of them, the logits themselves."""
        return self._run(tokens)[0]

    def read_prefix(self, tokens: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer."""
        cache = self._run(torch.tensor([list(tokens)], device=self.device), use_cache=True)[1]
        return [(layer.keys, layer.values) for layer in cache.layers]

    def read_trees(
        self,
        prefix: list[tuple[Tensor, Tensor]] | None,
        tokens: Int[Tensor, "B T"],
        depths: Int[Tensor, "B T"],
        sees: Bool[Tensor, "B T T"],
    ) -> Float[Tensor, "B T D"]:
        """Hidden states, by a mask and position numbers."""
        n_before = prefix[0][0].shape[2] if prefix else 0
        seen = torch.cat([sees.new_ones(*tokens.shape, n_before), sees], dim=2)[:, None]
        dtype = self.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
        cache = repeated(prefix, len(tokens)) if prefix else None
        return self._run(tokens, attention_mask=mask, position_ids=n_before + depths, past_key_values=cache)[0]

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores over the vocabulary."""
        return self.model.get_output_embeddings()(hidden) if self._split else hidden

    def steps(self) -> Steps:
        """With the library's cache; a model that has none reads its texts anew for every token."""
        return TransformersSteps(self) if self._caches else RereadSteps(self)

    def _run(self, tokens: Tensor, *, use_cache: bool = False, **given: Any) -> tuple[Tensor, Any]:
        use_cache = use_cache or given.get("past_key_values") is not None
        part = self.model.base_model if self._split else self.model
        out = part(input_ids=tokens, use_cache=use_cache, **{k: v for k, v in given.items() if v is not None})
        return (out.last_hidden_state if self._split else out.logits), out.get("past_key_values")

    @torch.inference_mode()
    def _try(self, probe: Callable[[Tensor], bool]) -> bool:
        """Whether the probe succeeds on a few tokens; a model that refuses its arguments fails it."""
        self._split = getattr(self, "_split", True)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._n_vocab, (1, PROBE_TOKENS), generator=generator).to(self.device)
        try:
            return probe(tokens)
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError, KeyError):
            return False

    def _same_logits(self, tokens: Tensor) -> bool:
        """Whether hidden states of the base model and the output matrix give the model's logits."""
        expected = self.model(input_ids=tokens, use_cache=False).logits
        return _close(self.logits(self.read(tokens)), expected)

    def _same_trees(self, tokens: Tensor) -> bool:
        """Whether two continuations of a prefix, read as one tree, are as if read alone."""
        a, b, c = PROBE_TOKENS // 3, 2 * PROBE_TOKENS // 3, PROBE_TOKENS
        prefix, first, second = tokens[:, :a], tokens[:, a:b], tokens[:, b:c]
        depths = torch.tensor([[*range(b - a), *range(c - b)]], device=self.device)
        line = torch.ones(b - a, b - a, dtype=torch.bool).tril()
        sees = torch.block_diag(line, torch.ones(c - b, c - b).tril()).bool()[None].to(self.device)
        got = self.read_trees(self.read_prefix(prefix[0].tolist()), tokens[:, a:], depths, sees)
        expected = [self.read(torch.cat([prefix, rest], dim=1))[:, a:] for rest in (first, second)]
        return _close(self.logits(got[0]), self.logits(torch.cat(expected, dim=1)[0]))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a.log_softmax(-1) - b.log_softmax(-1)).abs().max() < CLOSE)


def _reads_everything(config: Any) -> bool:
    """Whether no configuration value speaks of a window: a window counts places in the row, not in the text."""
    plain = config.to_dict()
    kinds = {*map(str, plain.get("layer_types") or []), *map(str, plain.get("attention_layers") or [])}
    windows = [plain[key] for key in plain if "window" in key and key != "use_sliding_window"]
    used = plain.get("use_sliding_window", True)
    return not any("sliding" in kind or "local" in kind for kind in kinds) and not (used and any(windows))


def repeated(layers: Sequence[tuple[Tensor, Tensor]], n_rows: int) -> Any:
    """The library's cache with the same keys and values in every row."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1), number)
    return cache


class TransformersSteps:
    """Texts written on with the library's cache; shorter pieces are padded at their beginnings."""

    def __init__(self, reader: TransformersReader) -> None:
        self.reader = reader
        self.cache: Any = None

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Scores for what follows each prompt."""
        n, device = len(prompts), self.reader.device
        shared = n_shared(prompts) if self.reader.branching else 0
        self.cache = repeated(self.reader.read_prefix(prompts[0][:shared]), n) if shared else None
        self.real = torch.ones(n, shared, dtype=torch.long, device=device)
        return self._read([prompt[shared:] for prompt in prompts])

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Scores for what follows."""
        if list(rows) != list(range(len(self.real))):
            index = torch.tensor(rows, device=self.reader.device)
            self.cache.batch_select_indices(index)
            self.real = self.real[index]
        return self._read([[token] for token in tokens])

    def _read(self, pieces: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        width, device = max(map(len, pieces)), self.reader.device
        tokens = torch.zeros(len(pieces), width, dtype=torch.long)
        real = torch.zeros(len(pieces), width, dtype=torch.long)
        for row, piece in enumerate(pieces):
            tokens[row, width - len(piece) :] = torch.tensor(piece)
            real[row, width - len(piece) :] = 1
        self.real = torch.cat([self.real, real.to(device)], dim=1)
        positions = (self.real.cumsum(1) - 1).clamp(min=0)[:, -width:]
        hidden, self.cache = self.reader._run(
            tokens.to(device),
            use_cache=True,
            attention_mask=self.real,
            position_ids=positions,
            past_key_values=self.cache,
        )
        return self.reader.logits(hidden[:, -1])


class RereadSteps:
    """Texts written on without a cache."""

    def __init__(self, reader: TransformersReader) -> None:
        self.reader = reader
        self.texts: list[list[int]] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Scores for what follows each prompt."""
        self.texts = [list(prompt) for prompt in prompts]
        return self._read()

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Scores for what follows."""
        self.texts = [[*self.texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        return self._read()

    def _read(self) -> Float[Tensor, "B V"]:
        tokens = torch.zeros(len(self.texts), max(map(len, self.texts)), dtype=torch.long)
        for row, text in zip(tokens, self.texts, strict=True):
            row[: len(text)] = torch.tensor(text)
        last = [len(text) - 1 for text in self.texts]
        hidden = self.reader.read(tokens.to(self.reader.device))
        return self.reader.logits(hidden[range(len(last)), last])


class TransformersTokenizer(Tokenizer):
    """A tokenizer of transformers; texts are encoded without special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
        if end is None:
            raise BadValue(f"{tokenizer.name_or_path}: its tokenizer has no token that ends a text")
        self.eot = end
        self._start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.adds_start = tokenizer.encode("a")[:1] == [self._start]
        self.n_vocab = len(tokenizer)
        self._bytes = _byte_alphabet(tokenizer)

    @property
    def start(self) -> int:
        """Its own token for that, where it has one."""
        return int(self._start)

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of `text`."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False), dtype=np.uint32)

    def to_json(self) -> str:
        """What the library itself stores."""
        return str(self.tokenizer.backend_tokenizer.to_str())

    def _join(self, ids: list[int]) -> bytes:
        return b"".join(self._piece(token) for token in self.tokenizer.convert_ids_to_tokens(ids))

    def _piece(self, piece: str) -> bytes:
        """The bytes of one token: in GPT-2's alphabet of bytes, or in SentencePiece's with its sign for a space."""
        if piece in self.tokenizer.all_special_tokens:
            return b""
        if self._bytes:
            return (
                bytes(self._bytes[letter] for letter in piece) if set(piece) <= self._bytes.keys() else piece.encode()
            )
        spelled = _BYTE.fullmatch(piece)
        return bytes([int(spelled[1], 16)]) if spelled else piece.replace("▁", " ").encode()


def _byte_alphabet(tokenizer: Any) -> dict[str, int]:
    """Letter to byte, of a tokenizer that works on bytes; else empty."""
    if "ByteLevel" not in str(getattr(tokenizer.backend_tokenizer, "decoder", None)):
        return {}
    return ALPHABET
