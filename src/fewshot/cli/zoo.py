"""Show all findings on one page: what each paper claims, what came out here, and whether it holds.

fewshot zoo report                         zoo.html, from the results stored beside runs/zoo
fewshot zoo report my/findings --out my.html
fewshot zoo table                          the same in short, as a Markdown table

`fewshot verify` runs findings and checks them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.cli.verify import FINDINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to show, the findings and the page."""
    parser.add_argument("what", choices=["report", "table"])
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"findings, or folders of them (default: {FINDINGS})"
    )
    parser.add_argument("--out", type=Path, default=Path("zoo.html"), help="report's page (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the page or print the table, from stored results; what has none is shown as not run."""
    from fewshot.base.errors import BadFile
    from fewshot.base.log import note
    from fewshot.zoo.finding import finding_files, read_finding
    from fewshot.zoo.report import Checked, markdown_table, write_zoo
    from fewshot.zoo.stored import read_stored

    checked = []
    for file in finding_files(args.files or [FINDINGS]):
        finding = read_finding(file)
        try:
            records = read_stored(file, finding)
        except BadFile as error:
            note(str(error))
            records = {}
        checked.append(Checked(file, finding, records))
    if args.what == "table":
        print(markdown_table(checked), end="")
    else:
        write_zoo(args.out, checked)
        print(args.out)
    return 0
