"""lm-evaluation-harness with our models: all arguments are its own, and it knows `--model fewshot`.

  fewshot lm-eval run --model fewshot --model_args path=RUN --tasks hellaswag --num_fewshot 10

The harness finds no models outside its own package, so its own command cannot be taught this one by an installation.
"""

from __future__ import annotations

import argparse
import sys

TAKES_OVERRIDES = PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add none: all arguments are the harness's."""


def run(args: argparse.Namespace) -> int:
    """Hand over to the harness."""
    from fewshot.base.errors import BadValue

    try:
        from lm_eval.__main__ import cli_evaluate

        import fewshot.evaluate.models.lm_eval  # noqa: F401  # registers the model
    except ModuleNotFoundError as error:
        raise BadValue(f"{error.name} is not installed: pip install 'fewshot[harness]'") from None
    sys.argv = ["lm_eval", *args.overrides]
    try:
        cli_evaluate()
    except ValueError as error:  # the harness has no error of its own for a task or a model that it does not know
        raise BadValue(f"lm_eval: {str(error).strip().splitlines()[0]}") from error
    return 0
