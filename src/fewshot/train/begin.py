"""A run that begins with the weights of another model: of a run, or what another program wrote ("hf:PATH").

In: a partial configuration with `start`. Out: the same with the model's shape, its tokenizer and a recipe for training
it further; and the model. The weights become the run's checkpoint of step 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.base.config import cast, to_plain
from fewshot.base.errors import BadFile, BadValue, check
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import HUB, open_model, path_of
from fewshot.checkpoint.load import tokenizer_file
from fewshot.checkpoint.save import save
from fewshot.dataset.prepare import Say
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.plan import n_parameters
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer
from fewshot.train.records.counters import Counters
from fewshot.train.resolving.overrides import section
from fewshot.train.resolving.recipes import lr_for

MAY_DIFFER = ("pattern", "dropout")  # of the model's shape
LR_FRACTION = 0.1  # of the learning rate of a new model of that size
BATCH_ROWS = 8


def begin(given: Mapping[str, Any], *, say: Say) -> tuple[Mapping[str, Any], GPT | None]:
    """Return the configuration, completed by what `start` names, and that model; as it was, and None, without `start`.

    What `given` says stays, but for what cannot be otherwise than in the model: that raises BadValue.
    """
    name = cast(given.get("start"), str | None, "start")
    if name is None:
        return given, None
    check(name != "", "start is empty; give a run folder, or hf:PATH")
    model, tokenizer, _ = open_model(name)
    shape, data = section(given, "model"), section(given, "data")
    check(given.get("preset") is None, f"preset {given.get('preset')} and start {name}: leave one out")
    other = sorted(set(shape) - set(MAY_DIFFER))
    if other:
        raise BadValue(
            f"model.{other[0]} is given, but the model's shape is that of start {name}; only {', '.join(MAY_DIFFER)} "
            "may be others"
        )
    for field in ("tokenizer", "n_vocab"):
        check(field not in data, f"data.{field} is given, but the tokenizer is that of start {name}: leave it out")
    lr = float(f"{LR_FRACTION * lr_for(n_parameters(model.config)):.2g}")
    changed = [f"{field} {value}" for field, value in shape.items() if value != getattr(model.config, field)]
    say(
        f"start: the weights of {name}{' with ' + ', '.join(changed) if changed else ''}; adamw at {LR_FRACTION:g} of "
        f"the learning rate of a new model, batches of {BATCH_ROWS} rows; to choose others: --optimizer.name, "
        "--optimizer.lr, --schedule.batch_tokens"
    )
    schedule = section(given, "schedule")
    if "batch_start_tokens" not in schedule:
        schedule = {"batch_tokens": BATCH_ROWS * model.config.n_ctx, **schedule}
    return {
        **given,
        "model": {**to_plain(model.config), **shape},
        "data": {**data, "tokenizer": str(_tokenizer_of(name, tokenizer))},
        "optimizer": {"name": "adamw", "lr": lr, **section(given, "optimizer")},
        "schedule": schedule,
    }, model


def save_beginning(run: RunFolder, model: GPT, config: GPTConfig) -> None:
    """Write the model's weights as the checkpoint of step 0 of a run that the caller holds."""
    new = GPT(config)
    new.load_state_dict(model.state_dict())
    save(run.path, new, step=0, counters=Counters(rows=0, seconds=0.0).plain())


def _tokenizer_of(name: str, tokenizer: Tokenizer) -> Path:
    """Return where the tokenizer of a model that `open_model` opens lies; raises BadValue where it is in the model."""
    path = path_of(name).absolute()
    if not name.startswith(HUB):
        return tokenizer_file(path)
    folder = path if path.is_dir() else path.parent
    try:
        same = load_tokenizer(folder).fingerprint == tokenizer.fingerprint
    except BadFile:
        same = False
    check(
        same, f"the vocabulary of {name} is in its own file: make it a run with 'fewshot convert', and start from that"
    )
    return folder
