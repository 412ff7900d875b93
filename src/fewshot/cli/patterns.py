"""Show which positions attend to which.

fewshot patterns show "alternate(dense, banded(8))" --n 32
fewshot patterns show "perhead(banded(16), strided(16))" --n 128 --png pattern.png
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: what is shown, and where."""
    parser.add_argument("verb", choices=["show"])
    parser.add_argument("text", metavar="PATTERN", help="such as dense, banded(8), or alternate(dense, banded(8))")
    parser.add_argument("--n", type=int, default=32, help="how many positions (default: %(default)s)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw a picture instead of text")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print density, mean keys per query and the layers until every position depends on every earlier one",
    )


def run(args: argparse.Namespace) -> int:
    """Print a pattern or draw it into a file."""
    from fewshot.base.errors import check
    from fewshot.base.files import check_is_free
    from fewshot.cli.show import print_json
    from fewshot.patterns.draw import to_png, to_text
    from fewshot.patterns.layout import density, hops, mean_keys_per_query
    from fewshot.patterns.schedule import parse

    check(not (args.json and args.png), "--json and --png cannot be used together: run it twice")
    check(1 <= args.n <= 16384, f"--n is {args.n}, must be in 1..16384")
    schedule = parse(args.text)
    if args.json:
        layers = [
            {
                "pattern": str(pattern),
                "density": density(pattern, args.n),
                "mean_keys_per_query": mean_keys_per_query(pattern, args.n),
            }
            for pattern in schedule.patterns
        ]
        print_json(
            {"schedule": str(schedule), "n": args.n, "layers": layers, "layers_to_reach_all": hops(schedule, args.n)}
        )
    elif args.png:
        check_is_free(args.png)
        to_png(schedule, args.n, args.png)
        print(args.png)
    else:
        print(to_text(schedule, args.n), end="")
    return 0
