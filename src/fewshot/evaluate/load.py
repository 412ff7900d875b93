"""Models by name, ready to be evaluated. In: a run folder, or `hf:PATH` for another program's. Out: `Loaded`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fewshot.base.errors import BadValue, check
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import HUB, is_read_here_alone, open_model, path_of
from fewshot.checkpoint.load import load_run
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with its tokenizer and what its results are stored under."""

    lm: LanguageModel
    tokenizer: Tokenizer
    weights: str  # tells one model from another
    step: int
    folder: Path  # for results of all models beside it, a folder each
    name: str = ""  # of a model that is no checkpoint of ours


def load(name: str) -> Loaded:
    """Return the model of a run folder, or of `hf:PATH`, with its tokenizer.

    Transformers reads `hf:PATH`, so that its own models are measured; what it has no class for is read here.
    """
    if name.startswith(HUB):
        path = name.removeprefix(HUB)
        check(bool(path.strip()), f"give a path after {HUB}, such as {HUB}models/gpt2")
        lm, its_tokenizer, weights = _of_another_program(path)
        name = Path(path).resolve().name
        folder = RunFolder(Path()).evaluations  # in the current folder, as it has no run
        return Loaded(lm=lm, tokenizer=its_tokenizer, weights=weights, step=0, folder=folder, name=name)
    model, tokenizer, checkpoint = load_run(Path(name))
    return Loaded(
        lm=GPTLanguageModel(model),
        tokenizer=tokenizer,
        weights=checkpoint.weights,
        step=checkpoint.step,
        folder=_results_folder(checkpoint),
    )


def _of_another_program(path: str) -> tuple[LanguageModel, Tokenizer, str]:
    if is_read_here_alone(path_of(path)):
        model, tokenizer, weights = open_model(HUB + path)
        return GPTLanguageModel(model), tokenizer, weights
    from fewshot.evaluate.models.transformers import load_transformers

    return load_transformers(path)


def _results_folder(checkpoint: Checkpoint) -> Path:
    """Return the folder of results of the checkpoint's run; of a checkpoint that lies elsewhere, a folder in it."""
    path = checkpoint.path.resolve()
    return (RunFolder.of_checkpoint(path) or RunFolder(path)).evaluations


def names_of_checkpoints(name: str) -> list[str]:
    """Return all checkpoints of the run `name`, oldest first, as names for `load`."""
    folders = [] if name.startswith(HUB) else RunFolder(Path(name)).checkpoint_folders()
    if not folders:
        raise BadValue(f"{name} is not a run folder with checkpoints, which --checkpoints all needs")
    return [str(path) for path in folders]
