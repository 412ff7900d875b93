"""Write a random GPT-2 with GPT-2's vocabulary as a Hugging Face folder, which all sides of a comparison read.

PYTHONPATH=src python benchmarks/sides/folder.py FOLDER --vocabulary ../shared/data/vocab/gpt2 --shape tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fewshot.checkpoint.formats.hugging_face.gpt2 import write_model_and_tokenizer
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import load_gpt2

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"n_layers": 2, "d_model": 128, "n_heads": 2, "n_ctx": 256, "init_std": 0.3},
    "small": {"n_layers": 12, "d_model": 768, "n_heads": 12, "n_ctx": 2048},  # GPT-2 small, with twice its context
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=Path, required=True, help="GPT-2's two files")
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    # with this seed the tiny model's likeliest tokens are whole characters, and never almost alike
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    tokenizer = load_gpt2(args.vocabulary)
    model = GPT(GPTConfig(**SHAPES[args.shape], n_vocab=tokenizer.n_vocab), seed=args.seed).eval()
    args.folder.mkdir(parents=True, exist_ok=True)
    write_model_and_tokenizer(args.folder, model, tokenizer)


if __name__ == "__main__":
    main()
