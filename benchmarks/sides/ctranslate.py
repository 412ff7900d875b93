"""ctranslate2 on a GPT-2 that `folder.py` wrote, asked over standard input; runs where ctranslate2 is installed.

python benchmarks/sides/ctranslate.py convert FOLDER OUT        # needs torch and transformers too
python benchmarks/sides/ctranslate.py answer OUT --type int8    # a JSON line in, a JSON line out
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import ctranslate2


def answer(folder: Path, kind: str, threads: int) -> None:
    """Complete the prompts of each line greedily, all in one batch, and tell the seconds and the tokens written."""
    words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type=kind, intra_threads=threads)
    told: dict[str, Any] = {"compute_type": generator.compute_type, "version": ctranslate2.__version__}
    print(json.dumps({**told, "supported": sorted(ctranslate2.get_supported_compute_types("cpu"))}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        prompts = [[words[token] for token in prompt] for prompt in asked["prompts"]]
        prefix = [words[token] for token in asked.get("prefix", [])]
        began = time.perf_counter()
        results = generator.generate_batch(
            prompts, max_length=asked["n"], min_length=asked["n"], sampling_topk=1, beam_size=1,
            include_prompt_in_result=False, static_prompt=prefix or None, cache_static_prompt=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "tokens": sum(len(r.sequences_ids[0]) for r in results)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser("convert")
    converting.add_argument("folder")
    converting.add_argument("out")
    answering = commands.add_parser("answer")
    answering.add_argument("folder", type=Path)
    answering.add_argument("--type", default="float32")
    answering.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.command == "convert":
        ctranslate2.converters.TransformersConverter(args.folder).convert(args.out)
        where = Path(args.out) / "config.json"
        config = json.loads(where.read_text())
        given = {name: value for name, value in config.items() if value is not None}  # null is refused
        where.write_text(json.dumps({**given, "unk_token": config["eos_token"]}))
    else:
        answer(args.folder, args.type, args.threads)


if __name__ == "__main__":
    main()
