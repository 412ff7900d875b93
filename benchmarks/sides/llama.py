"""llama.cpp's server on a GPT-2 that `folder.py` wrote; runs where xllamacpp, gguf and safetensors are installed.

python benchmarks/sides/llama.py write FOLDER model.gguf --type f32
python benchmarks/sides/llama.py serve model.gguf --port 9001
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

TYPES = {"f32": "ALL_F32", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def write(folder: Path, out: Path, kind: str) -> None:
    """Write the weights and the tokenizer of a Hugging Face GPT-2 folder as one GGUF file."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(getattr(gguf.LlamaFileType, TYPES[kind]))
    _add_tokenizer(writer, folder, eot=config["eos_token_id"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        words = re.fullmatch(r"transformer\.(?:h\.(\d+)\.)?(.+)\.(weight|bias)", name)
        assert words is not None, name
        layer, own_name, part = words.groups()
        if own_name.startswith(("attn.", "mlp.")) and part == "weight":
            tensor = tensor.T  # which Hugging Face keeps as [in, out]
        matrix = part == "weight" and tensor.ndim == 2 and own_name != "wpe"
        own_type = gguf.GGMLQuantizationType[kind.upper() if matrix else "F32"]
        where = f"blk.{layer}." if layer is not None else ""
        data = gguf.quants.quantize(tensor.astype("float32"), own_type)
        writer.add_tensor(f"{where}{NAMES[own_name]}.{part}", data, raw_dtype=own_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: object, folder: Path, *, eot: int) -> None:
    import gguf

    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [gguf.TokenType.CONTROL if place == eot else gguf.TokenType.NORMAL for place in range(len(tokens))]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(eot)
    writer.add_eos_token_id(eot)
    writer.add_add_bos_token(False)


def serve(path: Path, *, port: int, threads: int, slots: int, context: int) -> None:
    """Serve with every slot having the whole context, until a signal comes."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.port = port
    params.n_ctx = slots * context
    params.n_parallel = slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    print(f"serving at {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("out", type=Path)
    writing.add_argument("--type", default="f32", choices=TYPES)
    serving = commands.add_parser("serve")
    serving.add_argument("path", type=Path)
    serving.add_argument("--port", type=int, required=True)
    serving.add_argument("--threads", type=int, default=2)
    serving.add_argument("--slots", type=int, default=4)
    serving.add_argument("--context", type=int, default=256)
    args = parser.parse_args()
    if args.command == "write":
        write(args.folder, args.out, args.type)
    else:
        serve(args.path, port=args.port, threads=args.threads, slots=args.slots, context=args.context)


if __name__ == "__main__":
    main()
