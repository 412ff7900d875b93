"""A run, exported with its card. In: a run. Out: a new folder for another program, and what was compared."""

from __future__ import annotations

from pathlib import Path

from fewshot.checkpoint.export import export
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import FORMATS, check_convertible, format_for
from fewshot.checkpoint.load import load_run
from fewshot.evaluate.reports.card import card_files
from fewshot.evaluate.store.contamination import FOLDER, read_main_scores
from fewshot.face.describe import evaluated_model_of


def export_run(source: Path, folder: Path, *, written_as: str | None = None, check: bool = True) -> str:
    """Write a run's newest model, or that of a checkpoint, with its card; return a line on what was compared.

    `written_as` is a name of `FORMATS`; None: the first class of transformers that can express the model. Raises
    BadValue, with the reason, where it cannot be expressed; ExportDiffers, and leaves no folder, where the format's own
    program computes something else.
    """
    model, tokenizer, checkpoint = load_run(source)
    name = format_for(model.config, written_as)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=source)
    run = RunFolder.of_checkpoint(checkpoint.path)

    def card(told: str) -> dict[str, str]:
        if run is None:  # a checkpoint that was copied to another place: nothing is known of its training
            return {}
        evaluated = evaluated_model_of(run.path, model, checkpoint)
        folders = sorted(run.evaluations.glob(f"step-{checkpoint.step:08d}*/{FOLDER}"))
        return card_files(
            evaluated,
            library=FORMATS[name].library,
            usage=FORMATS[name].usage,
            told=told,
            sources=[*filter(None, str(evaluated.summary.get("text", "")).split(", "))],
            contamination=[score for its_folder in folders for score in read_main_scores(its_folder)],
        )

    its_name = checkpoint.path.name if run is None else run.path.resolve().name
    about = {"run": its_name, "step": checkpoint.step, "weights": checkpoint.weights}
    return export(folder, model, tokenizer, written_as=name, source=about, check=check, card=card)
