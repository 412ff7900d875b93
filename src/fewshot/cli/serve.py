"""Serve a run's model as OpenAI's completions API.

fewshot serve RUN                                   at http://127.0.0.1:8000/v1, for this machine alone
fewshot serve RUN --weight_type bfloat16 --port 9000
fewshot serve hf:PATH                               a Hugging Face GPT-2 folder
fewshot serve RUN --host 0.0.0.0 --allow_host mine.example --key SECRET
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from pathlib import Path

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where it listens, who may call, and how much memory it takes."""
    parser.add_argument("model", metavar="RUN", help="a run folder, or hf:PATH for a Hugging Face GPT-2 folder")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--allow_host", action="append", default=[], metavar="NAME", help="a name that clients may call the server by"
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        help="a key that clients must send; can be given several times (or FEWSHOT_KEYS, with commas between them)",
    )
    parser.add_argument("--name", help="the model's name for clients (default: the folder's)")
    parser.add_argument(
        "--weight_type",
        default="float32",
        metavar="TYPE",
        help="float32, or bfloat16 and int8, which are faster and a little less exact (default: %(default)s)",
    )
    parser.add_argument(
        "--tasks",
        metavar="NAMES",
        help="tasks that the playground can draw questions of, separated by commas (default: all that need no files)",
    )
    parser.add_argument(
        "--data", help="folder or zip archive with the tasks' original files, or 'hub' to download them"
    )
    parser.add_argument(
        "--cache_mb", type=int, default=2048, help="megabytes for keys and values (default: %(default)s)"
    )
    parser.add_argument(
        "--grace_seconds", type=int, default=20, help="for running requests when it is stopped (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from fewshot.base.errors import FewshotError, check

    check(0 <= args.port <= 65535, f"--port is {args.port}, must be in 0..65535")
    check(args.grace_seconds >= 0, f"--grace_seconds is {args.grace_seconds}, must be at least 0")
    check(args.cache_mb >= 1, f"--cache_mb is {args.cache_mb}, must be at least 1")
    keys = [*args.key, *filter(None, os.environ.get("FEWSHOT_KEYS", "").split(","))]
    check(all(keys), "a key is empty")
    is_local = args.host in ("127.0.0.1", "localhost", "::1")
    check(is_local or bool(keys), f"--host {args.host} can be reached from other machines: give a --key")
    try:
        from fewshot.serve.app import make_app
        from fewshot.serve.server import Server
    except ImportError as error:
        raise FewshotError(f"{error.name} is not installed: pip install 'fewshot[serve]'") from None
    from fewshot.checkpoint.formats.table import HUB, open_model
    from fewshot.evaluate.data.hub import open_data
    from fewshot.evaluate.tasks.table import made_by_rule, make_task
    from fewshot.generate.engine import Engine
    from fewshot.model.packed import PackedGPT
    from fewshot.serve.completions import Served
    from fewshot.serve.fingerprint import identity
    from fewshot.serve.limits.protect import Limits
    from fewshot.serve.worker import Worker

    data = open_data(args.data)
    names = [name.strip() for name in args.tasks.split(",")] if args.tasks else []
    tasks = {name: make_task(name, data=data) for name in names} or made_by_rule()
    model, tokenizer, weights = open_model(args.model)
    packed = PackedGPT(model, args.weight_type)
    engine = Engine(packed, tokenizer, cache_bytes=args.cache_mb << 20)
    served = Served(
        name=args.name or Path(args.model.removeprefix(HUB)).resolve().name,
        tokenizer=tokenizer,
        n_ctx=packed.config.n_ctx,
        identity=identity(weights, tokenizer, args.weight_type, packed.wte.weight.device.type),
        tasks=tasks,
    )
    limits = Limits(hosts=[*LOCAL, args.host, *args.allow_host], keys=keys)
    worker = Worker(engine)
    app = make_app(worker, served, limits)
    server = Server(
        app, worker, limits, host=args.host, port=args.port, name=served.name, grace_seconds=args.grace_seconds
    )
    _pause_less()
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises again, in the end, the signal that ended it
        server.run()
    return 0


def _pause_less() -> None:
    """Keep Python's own pauses between tokens short."""
    # The engine lets go of the GIL at every call into torch, fifty times a step, and where clients keep the event loop
    # busy it waits this long each time to have it back (5 ms by default).
    sys.setswitchinterval(0.00005)
    # A search for cycles would go through all objects of torch, for a tenth of a second, and so comes too seldom for
    # what clients that went away leave behind.
    gc.collect()
    gc.freeze()
