"""Which fields of OpenAI's completions servers honour, refuse or ignore, row by row, with OpenAI's own client.

    python benchmarks/sides/folder.py /tmp/tiny --vocabulary ../shared/data/vocab/gpt2
    fewshot serve hf:/tmp/tiny --port 9000
    python benchmarks/contract.py --model /tmp/tiny --server fewshot=http://127.0.0.1:9000/v1 \
        --out benchmarks/results/contract.json

All servers serve the model in the folder --model, in float32; what an answer must be is computed from it by the
transformers library. A row is a value of a field and what the description of OpenAI's API (CreateCompletionRequest, as
in the types of its client) asks for; its verdict is one of `VERDICTS`. The rows are in `contract_rows/`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
from contract_rows import answers, draws, refused, streams
from contract_rows.side import Miss, Row, Side
from contract_rows.truth import Truth

from fewshot.bench.hardware import hardware

ROWS: list[Row] = [*answers.ROWS, *draws.ROWS, *streams.ROWS, *refused.ROWS]
VERDICTS = {
    "holds": "the answer is what is asked for",
    "ignored": "accepted without effect, or without the error that is asked for",
    "refused": "an error where an answer is asked for",
    "wrong": "another answer, or another error, than is asked for",
    "no answer": "nothing in the time limit, or a broken connection",
}


def judge(row: Row, side: Side) -> tuple[str, str]:
    """Return the verdict and what came instead."""
    try:
        row.check(side)
    except Miss as miss:
        return miss.verdict, str(miss)
    except openai.APIStatusError as error:
        return "refused", f"{error.status_code}: {error.message}"
    except openai.APIConnectionError as error:  # which a time limit is too
        return "no answer", type(error).__name__
    except openai.APIError as error:  # an event of a stream, or an answer that is no JSON
        return "wrong", f"{type(error).__name__}: {error.message}"
    return "holds", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face folder that all serve")
    parser.add_argument("--server", action="append", required=True, metavar="NAME=URL")
    parser.add_argument(
        "--version", action="append", default=[], metavar="NAME=VERSION", help="of a server, to be told"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    truth = Truth(args.model)
    servers, rows = dict(word.split("=", 1) for word in args.server), list[dict[str, Any]]()
    sides = {name: Side(url, truth) for name, url in servers.items()}
    for row in ROWS:
        verdicts, came = {}, {}
        for name, side in sides.items():
            verdicts[name], said = judge(row, side)
            if said:
                came[name] = said[:200]
        rows.append({"field": row.field, "value": row.value, "asks": row.asks, "verdicts": verdicts, "came": came})
        print(f"{row.field} {row.value}: {verdicts} {came or ''}", flush=True)
    counts = {name: Counter(row["verdicts"][name] for row in rows) for name in servers}
    result = {
        "bench": "contract",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "versions": dict(word.split("=", 1) for word in args.version)
        | {name: version(name) for name in ("openai", "transformers")},
        "model": {**truth.shape, "weights": "random"},
        "meaning": VERDICTS,
        "misses": {name: len(rows) - count["holds"] for name, count in counts.items()},
        "counts": {name: dict(count) for name, count in counts.items()},
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({"rows": len(rows), "counts": result["counts"]}, indent=1))


if __name__ == "__main__":
    main()
