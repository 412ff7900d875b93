"""The table of docs/compare.md is made of stored results alone. To make it again: python tests/docs/test_compare.py"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compare.md"
HEAD = "| what | beside | ours | theirs | ours is | results |\n|---|---|---|---|---|---|\n"
Row = tuple[str, str, float, float, bool]  # what, the peer, our figure, theirs, whether more is better


@cache
def stored(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def training() -> Iterator[Row]:
    for row in stored("train")["rows"]:
        peers = {peer["peer"]: peer["tokens_per_second"] for peer in row["peers"]}
        nanogpt = max((name for name in peers if "nanoGPT" in name), key=peers.__getitem__)
        for name in (nanogpt, "transformers eager float32", "llm.c"):
            what = f"training, {row['shape']}, {row['precision']}, tokens/s"
            yield what, name, row["tokens_per_second"], peers[name], True


def race() -> Iterator[Row]:
    ours, peer = stored("race")["ours"], stored("race")["peer"]
    what = f"seconds on Tiny Shakespeare to a loss of {ours['val_loss']:.3f}"
    beside = f"transformers' GPT-2, float32, {peer['steps']:,} steps, to {peer['val_loss']:.3f}"
    yield what, beside, ours["seconds"], peer["seconds"], False


def learning() -> Iterator[Row]:
    summary = stored("learning")["summary"]
    what = "loss on the books after the same tokens, NorMuon"
    yield what, "nanochat's MuonAdamW", summary["normuon_loss"], summary["nanochat_loss"], False


def attention() -> Iterator[Row]:
    for row in stored("attention")["against_dense"]:
        if row["dtype"] == "float32" and row["pattern"] in ("banded(256)", "strided(128)", "dense"):
            what = f"{row['pattern']}, {row['n']:,} positions, ms"
            yield what, "torch's dense attention", row["milliseconds"], row["dense_milliseconds"], False
    for row in stored("attention")["peers"]:
        what = f"{row['what']}, {row['n']:,} positions, ms"
        yield what, row["peer"], row["milliseconds"], row["peer_milliseconds"], False


def generation() -> Iterator[Row]:
    streams = stored("generate")["streams"]
    peer = next(row["tokens_per_second"] for row in streams if row["type"].startswith("transformers"))
    ours = {(row["type"], row["streams"]): row["tokens_per_second"] for row in streams}
    yield "generation, one stream, float32, tokens/s", "transformers", ours["float32", 1], peer, True


def serving() -> Iterator[Row]:
    names = {"xllamacpp": "llama.cpp", "ctranslate2": "CTranslate2", "vllm": "vLLM"}
    figures = {
        "tokens_per_second_1": ("one stream, tokens/s", True),
        "tokens_per_second_16": ("16 streams, tokens/s", True),
        "questions_seconds": ("16 questions on one prefix, s", False),
    }
    for run in stored("peers")["runs"]:
        threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        for peer in run["peers"]:
            if "problem" in run["sides"][peer]:
                continue
            for figure, (what, more) in figures.items():
                ours, theirs = run["sides"]["fewshot"][figure], run["sides"][peer][figure]
                yield f"server, GPT-2 small, {run['type']}, {threads}, {what}", names[peer], ours, theirs, more


def contract() -> Iterator[Row]:
    misses = stored("contract")["misses"]
    what = f"completions API: misses among {len(stored('contract')['rows'])} requests"
    yield what, "llama.cpp", misses["fewshot"], misses["llama.cpp"], False
    yield what, "vLLM", misses["fewshot"], misses["vllm"], False


def evaluation() -> Iterator[Row]:
    for row in stored("evaluate")["rows"]:
        fixed = "one fixed set" if row["fixed"] else "redrawn"
        what = f"evaluation, {row['task']}, {row['shots']} shots, {fixed}, questions/s"
        yield what, "lm-evaluation-harness", row["ours_per_second"], row["peer_per_second"], True


def text() -> Iterator[Row]:
    rates = stored("encode")["megabytes_per_second"]
    yield "encoding, MB/s", "tiktoken", rates["ours"], rates["tiktoken"], True
    rates = stored("big_text")["megabytes_per_second"]
    what = "10 GB: reading, choosing, encoding, writing, MB/s"
    yield what, "tiktoken alone, one thread, of text in memory", rates["ours"], rates["tiktoken_one_thread"], True


def meta() -> Iterator[Row]:
    row = stored("meta")["rows"][0]
    what = "MAML, sinusoid, 1 inner step, tasks/s"
    yield what, "the same by torch.func.vmap", row["program_per_second"], row["vmap_per_second"], True


GROUNDS: dict[str, Callable[[], Iterator[Row]]] = {
    "train": training,
    "race": race,
    "learning": learning,
    "attention": attention,
    "generate": generation,
    "peers": serving,
    "contract": contract,
    "evaluate": evaluation,
    "encode": text,
    "meta": meta,
}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _ratio(ours: float, theirs: float, more: bool) -> str:
    """Say how many times as good ours is."""
    if not ours or not theirs:
        return ""
    return f"{ours / theirs if more else theirs / ours:.2f} times as good"


def table() -> str:
    """Return the table: a row a figure, with the file that holds it."""
    rows = []
    for name, ground in GROUNDS.items():
        for what, peer, ours, theirs, more in ground():
            file = "big_text" if what.startswith("10 GB") else name
            cells = (what, peer, _figure(ours), _figure(theirs), _ratio(ours, theirs, more), f"`{file}.json`")
            rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows) + "\n"


def test_the_table_is_made_of_the_stored_results() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(table())


def test_a_ratio_above_one_says_that_ours_is_better() -> None:
    assert _ratio(20, 10, more=True) == _ratio(10, 20, more=False) == "2.00 times as good"
    assert _ratio(0, 20, more=False) == ""


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(HEAD)] + table(), encoding="utf-8")
