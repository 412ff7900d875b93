"""GGUF, the one-file format of llama.cpp and Ollama, written and read: a dense model as a GPT-2, with its vocabulary.

In: a model and its tokenizer. Out: `model.gguf`, and a Modelfile for Ollama; and back, in float32 and float16.
llama.cpp has GPT-2 without windows and with one form of GELU. Its converter knows a tokenizer by the ids of a test
text, which a vocabulary of one's own does not have; what is written here names GPT-2's way to cut a text, which is
ours.
Source: the GGUF specification in ggml's docs, and llama.cpp's src/models/gpt2.cpp.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from fewshot.base.errors import BadFile, BadValue, check
from fewshot.base.files import write_text, written_whole
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.hugging_face.folder import check_fits, check_shape, check_sizes
from fewshot.checkpoint.formats.hugging_face.gpt2 import from_gpt2_state
from fewshot.checkpoint.formats.weights import check_weights_finite
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import BPE
from fewshot.tokenizer.chars import Chars
from fewshot.tokenizer.vocab import EOT, Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE, MODELFILE = "model.gguf", "Modelfile"
INSTALL = "pip install 'fewshot[export]'"
INSTALL_TO_RUN = "pip install xllamacpp"
TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}  # of the matrices, and the names of the whole
Q8_BLOCK = 32  # numbers of a row that share a scale
NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
PARAMETER = re.compile(r"(?:h\.(\d+)\.)?(.+)\.(weight|bias)")
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of GGUF's plain types
TEXT, ARRAY = 8, 9
BLANK = "\u2581"  # SentencePiece's sign for a blank


def check_is_gguf(config: GPTConfig) -> None:
    """Raise BadValue for a model that llama.cpp's GPT-2 cannot express."""
    check_fits(config, "llama.cpp's GPT-2 has dense")
    check(
        config.activation_name == "gelu_tanh",
        f"this model cannot be converted: llama.cpp's GPT-2 has the activation gelu_tanh, this model "
        f"{config.activation_name} (train one with --model.activation gelu_tanh)",
    )


def write_gguf(folder: Path, model: GPT, tokenizer: Tokenizer, *, kind: str) -> None:
    """Write `model.gguf` with matrices in one of `TYPES`, and a Modelfile beside it."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise BadValue(f"GGUF needs a package that is not installed: {INSTALL}") from None
    check_is_gguf(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / FILE) as file:
        writer = gguf.GGUFWriter(file, "gpt2")
        _add_shape(writer, model.config, getattr(gguf.LlamaFileType, TYPES[kind]))
        _add_tokenizer(writer, tokenizer, n_vocab=model.config.n_vocab)
        for name, tensor in folded_state(model).items():
            words = PARAMETER.fullmatch(name)
            assert words is not None
            layer, own_name, part = words.groups()
            matrix = tensor.dim() == 2 and own_name != "wpe"
            own_kind = "f32" if not matrix else "f16" if kind == "q8_0" and tensor.shape[1] % Q8_BLOCK else kind
            data_type = gguf.GGMLQuantizationType[own_kind.upper()]
            data = gguf.quants.quantize(tensor.cpu().numpy(), data_type)
            where = "" if layer is None else f"blk.{layer}."
            writer.add_tensor(f"{where}{NAMES[own_name]}.{part}", data, raw_dtype=data_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    write_text(
        folder / MODELFILE,
        f'# ollama create NAME -f {MODELFILE}\nFROM ./{FILE}\nTEMPLATE "{{{{ .Prompt }}}}"\n'
        f'PARAMETER num_ctx {model.config.n_ctx}\nPARAMETER stop "{EOT}"\n',
    )


def _add_shape(writer: GGUFWriter, config: GPTConfig, file_type: Any) -> None:
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.ff_width)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(config.n_vocab)
    writer.add_file_type(file_type)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, *, n_vocab: int) -> None:
    """Write a byte-level BPE, or characters as SentencePiece's pieces without merges; rows that no text has, unused."""
    from gguf import TokenType

    tokens = tokenizer.library_tokens()
    if isinstance(tokenizer, Chars):
        check(
            BLANK not in tokens,
            f"this model cannot be converted: its vocabulary has {BLANK!r}, which llama.cpp takes for a blank",
        )
        tokens = [BLANK if token == " " else token for token in tokens]
        writer.add_tokenizer_model("llama")
        writer.add_add_space_prefix(False)
    else:
        pairs = json.loads(tokenizer.to_library_json())["model"]["merges"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        # One is needed. Nothing else makes the end of text of one of its parts, so this one never applies.
        writer.add_token_merges(merges or [f"{EOT[:1]} {EOT[1:]}"])
    kinds = [TokenType.CONTROL if i == tokenizer.eot else TokenType.NORMAL for i in range(len(tokens))]
    n_unused = n_vocab - len(tokens)
    writer.add_token_list([*tokens, *(f"[unused{i}]" for i in range(n_unused))])
    writer.add_token_types([*kinds, *[TokenType.UNUSED] * n_unused])
    if isinstance(tokenizer, Chars):
        writer.add_token_scores([0.0] * n_vocab)
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(tokenizer.eot)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def is_gguf(path: Path) -> bool:
    """Return whether `path` is a GGUF file, or a folder with `model.gguf`."""
    return path.suffix == ".gguf" if path.is_file() else (path / FILE).is_file()


def read_gguf(path: Path) -> tuple[GPT, Tokenizer]:
    """Return the model and the tokenizer in a GGUF file of a GPT-2; raises BadFile or BadValue for another one."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise BadValue(f"GGUF needs a package that is not installed: {INSTALL}") from None
    file = path if path.is_file() else path / FILE
    _check_header(file)
    try:
        read = gguf.GGUFReader(file)
        keys = {name: field.contents() for name, field in read.fields.items()}
        tensors = {tensor.name: tensor for tensor in read.tensors}
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError, RecursionError):
        raise BadFile(f"{file} is damaged or cut short: get it again") from None
    kind = keys.get("general.architecture")
    check(kind == "gpt2", f"{file} is of architecture {kind!r}; 'gpt2' can be converted")
    stored = {tensor.tensor_type.name for tensor in tensors.values()}
    check(stored <= {"F32", "F16"}, f"{file} has tensors of type {', '.join(sorted(stored))}; F32 and F16 are read")
    state = {_our_name(name, file): torch.from_numpy(tensor.data.copy()).float() for name, tensor in tensors.items()}
    check_weights_finite(state, file)
    n_heads = keys.get("gpt2.attention.head_count", 0)
    check_shape(n_heads, 0.0, file, heads_name="gpt2.attention.head_count", dropout_name="dropout")
    epsilon = keys.get("gpt2.attention.layer_norm_epsilon", 1e-5)
    near = isinstance(epsilon, float) and abs(epsilon - 1e-5) < 1e-8
    check(near, f"{file}: layer_norm_epsilon is {epsilon!r}; GPT-2's 1e-5 is needed")
    model = from_gpt2_state(state, n_heads=n_heads)
    expected = {"block_count": model.config.n_layers, "context_length": model.config.n_ctx}
    expected |= {"embedding_length": model.config.d_model, "feed_forward_length": model.config.ff_width}
    check_sizes(keys, {f"gpt2.{name}": size for name, size in expected.items()}, file)
    return model, _tokenizer_of(keys, file)


def _check_header(file: Path) -> None:
    """Raise BadFile for a header that says more than the file can hold, before the library makes room for it."""
    size = file.stat().st_size
    with file.open("rb") as data:
        head = data.read(24)
        n_tensors, n_keys = struct.unpack("<QQ", head[8:]) if len(head) == 24 else (0, 0)
        fits = head[:4] == b"GGUF" and head[4:8] in (b"\3\0\0\0", b"\2\0\0\0") and 8 * (n_tensors + n_keys) <= size
        for _ in range(n_keys if fits else 0):
            if not _skip_text(data, size) or not _skip_value(data, size, depth=0):
                fits = False
                break
    if not fits:
        raise BadFile(f"{file} is damaged or cut short: its header says more than the file holds")


def _number(data: BinaryIO, form: str) -> int:
    """Return the next number, or more than any file holds at its end."""
    read = data.read(struct.calcsize(form))
    return int(struct.unpack(form, read)[0]) if len(read) == struct.calcsize(form) else 2**62


def _skip_text(data: BinaryIO, size: int) -> bool:
    length = _number(data, "<Q")
    fits = data.tell() + length <= size
    if fits:
        data.seek(length, 1)
    return fits


def _skip_value(data: BinaryIO, size: int, *, depth: int, kind: int | None = None) -> bool:
    """Go past a value; False where it is longer than the file, of no known type, or an array in many others."""
    kind = _number(data, "<I") if kind is None else kind
    if kind in SIZES:
        data.seek(SIZES[kind], 1)
        return data.tell() <= size
    if kind == TEXT:
        return _skip_text(data, size)
    if kind != ARRAY or depth > 4:
        return False
    inner, count = _number(data, "<I"), _number(data, "<Q")
    if data.tell() + count * SIZES.get(inner, 8) > size:
        return False
    if inner in SIZES:
        data.seek(count * SIZES[inner], 1)
        return True
    return all(_skip_value(data, size, depth=depth + 1, kind=inner) for _ in range(count))


def _our_name(name: str, file: Path) -> str:
    ours = {theirs: own for own, theirs in NAMES.items()}
    words = re.fullmatch(r"(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)", name)
    check(words is not None and words[2] in ours, f"{file} holds {name}, which a GPT-2 does not have")
    assert words is not None
    return f"{'' if words[1] is None else f'h.{words[1]}.'}{ours[words[2]]}.{words[3]}"


def _tokenizer_of(keys: dict[str, Any], file: Path) -> Tokenizer:
    """Return the tokenizer that `_add_tokenizer` wrote, or GPT-2's; raises BadValue for another kind."""
    from gguf import TokenType

    kind, tokens = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.tokens")
    check(isinstance(tokens, list), f"{file} holds no vocabulary")
    assert isinstance(tokens, list)
    kinds, merges = (keys.get(f"tokenizer.ggml.{name}", []) for name in ("token_type", "merges"))
    lists = all(isinstance(some, list) for some in (kinds, merges))
    check(lists and all(isinstance(text, str) for text in [*tokens, *merges]), f"{file}: its vocabulary is damaged")
    while len(kinds) == len(tokens) and kinds and kinds[-1] == TokenType.UNUSED:  # rows that no text has
        tokens, kinds = tokens[:-1], kinds[:-1]
    of_characters = tokens[-1:] == [EOT] and all(len(token) == 1 for token in tokens[:-1])
    if kind == "llama" and keys.get("tokenizer.ggml.add_space_prefix") is False and of_characters:
        return Chars("".join(tokens[:-1]).replace(BLANK, " "))
    check(
        kind == "gpt2" and keys.get("tokenizer.ggml.pre") in ("gpt-2", "gpt2"),
        f"{file} cuts texts in another way than GPT-2 ({kind}, {keys.get('tokenizer.ggml.pre')}), which is not read",
    )
    pairs = [tuple(merge.split(" ")) for merge in merges]
    check(all(len(pair) == 2 for pair in pairs), f"{file}: a merge is no pair of tokens")
    real = [(left, right) for left, right in pairs if left + right != EOT]
    return BPE({token: i for i, token in enumerate(tokens)}, real)
