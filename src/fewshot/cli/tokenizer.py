"""Train a tokenizer, or encode text with one.

fewshot tokenizer train --text PATH... --n_vocab 8192 --out tokenizer.json
fewshot tokenizer train --kind bytes               needs no text
fewshot tokenizer encode tokenizer.json "Hello, world"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, each with its options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="train|encode")
    train = verbs.add_parser(
        "train", allow_abbrev=False, help="train a byte-level BPE, or make a tokenizer of characters or bytes"
    )
    train.add_argument(
        "--text", nargs="+", default=[], metavar="PATH", help="files and folders; needed unless --kind bytes"
    )
    train.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="the field of .jsonl and .parquet records that holds the text (default: %(default)s)",
    )
    train.add_argument(
        "--n_vocab",
        type=int,
        default=8192,
        help="vocabulary size of --kind bpe, <|endoftext|> included (default: %(default)s)",
    )
    train.add_argument(
        "--kind",
        choices=["bpe", "chars", "bytes"],
        default="bpe",
        help="what a token is made of (default: %(default)s)",
    )
    train.add_argument(
        "--out", type=Path, default=Path("tokenizer.json"), metavar="FILE", help="a new file (default: %(default)s)"
    )
    encode = verbs.add_parser("encode", allow_abbrev=False, help="print the ids of a text, or of standard input")
    encode.add_argument(
        "tokenizer", type=Path, help="tokenizer.json, a run, or a folder with encoder.json and vocab.bpe"
    )
    encode.add_argument("text", nargs="?", help="the text to encode (default: standard input)")
    encode.add_argument("--json", action="store_true", help="print the ids and the text of each token as JSON")


def run(args: argparse.Namespace) -> int:
    """Train a tokenizer into a file, or print the ids of a text."""
    from fewshot.base.errors import check
    from fewshot.base.files import check_is_free
    from fewshot.cli.show import print_json
    from fewshot.cli.text_input import argument, standard_input
    from fewshot.tokenizer.bpe import train_bpe
    from fewshot.tokenizer.bytes import Bytes
    from fewshot.tokenizer.chars import train_chars
    from fewshot.tokenizer.load import load_tokenizer
    from fewshot.tokenizer.vocab import Tokenizer

    if args.verb == "train":
        check(args.kind == "bytes" or bool(args.text), f"--kind {args.kind} is trained on text: give --text PATH...")
        check(args.kind != "bytes" or not args.text, "--kind bytes is not trained: leave --text out")
        check_is_free(args.out)
        texts = _texts(args.text, args.text_field)
        trained: Tokenizer
        match args.kind:
            case "bpe":
                trained = train_bpe(texts, n_vocab=args.n_vocab)
            case "chars":
                trained = train_chars(texts)
            case _:
                trained = Bytes()
        trained.save(args.out)
        print(f"{args.out}: {trained.n_vocab:,} entries")
        return 0
    tokenizer = load_tokenizer(args.tokenizer)
    ids = tokenizer.encode(standard_input() if args.text is None else argument(args.text, "the text"))
    if args.json:
        print_json({"ids": ids, "pieces": [tokenizer.decode([i]) for i in ids]})
    else:
        print(*ids)
    return 0


def _texts(paths: Sequence[str], text_field: str) -> Iterator[str]:
    """Yield the texts of files and folders in pieces, and show a progress bar."""
    from fewshot.base.progress import byte_bar
    from fewshot.corpus.sources import read_documents
    from fewshot.tokenizer.pieces import pieces

    n_bytes = 0
    with byte_bar("reading") as on_bytes:
        for document in read_documents(paths, text_field=text_field, field_option="--text_field"):
            for piece in pieces(document.text):
                yield piece
                n_bytes += len(piece.encode())
                on_bytes(n_bytes)
