"""A run, exported with its card. In: a run. Out: a new folder for another program, and what was compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fewshot.checkpoint.data import read_data_config
from fewshot.checkpoint.export import export
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import FORMATS, check_convertible, format_for
from fewshot.checkpoint.load import load_run
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.evaluate.reports.card import card_files
from fewshot.evaluate.store.contamination import FOLDER, read_main_scores
from fewshot.evaluate.store.result_file import read_result_file
from fewshot.face.describe import evaluated_model_of, sources_of
from fewshot.kernels import sdpa


def export_run(source: Path, folder: Path, *, written_as: str | None = None, check: bool = True) -> str:
    """Write a run's newest model, or that of a checkpoint, with its card; return a line on what was compared.

    `written_as` is a name of `FORMATS`; None: the first class of transformers that can express the model. Raises
    BadValue, with the reason, where it cannot be expressed; ExportDiffers, and leaves no folder, where the format's own
    program computes something else.
    """
    model, tokenizer, checkpoint = load_run(source, attend=sdpa.attend)
    model = model.cpu()  # where other programs compute, too
    name = format_for(model.config, written_as)
    check_convertible(model, n_tokens=tokenizer.n_vocab, source=source)
    run = RunFolder.of_checkpoint(checkpoint.path)

    def card(told: str) -> dict[str, str]:
        if run is None:  # a checkpoint that was copied to another place: nothing is known of its training
            return {}
        whole = evaluated_model_of(run.path, model, checkpoint, with_positions=False)
        return card_files(
            replace(  # what is of this checkpoint; the run may hold later ones
                whole,
                results=whole.by_step.get(checkpoint.step, []),
                metrics=[row for row in whole.metrics if row.get("step", 0) <= checkpoint.step],
                summary={name: value for name, value in whole.summary.items() if name not in ("training", "text")},
            ),
            library=FORMATS[name].library,
            usage=FORMATS[name].usage,
            told=told,
            sources=sources_of(read_data_config(run)) if run.config.is_file() else [],
            contamination=[score for folder in _evidence(run, checkpoint) for score in read_main_scores(folder)],
        )

    its_name = checkpoint.path.name if run is None else run.path.resolve().name
    about = {"run": its_name, "step": checkpoint.step, "weights": checkpoint.weights}
    return export(folder, model, tokenizer, written_as=name, source=about, check=check, card=card)


def _evidence(run: RunFolder, checkpoint: Checkpoint) -> list[Path]:
    """Return the folders of evidence of contamination of this checkpoint's weights."""
    folders = sorted(run.evaluations.glob(f"step-{checkpoint.step:08d}*/{FOLDER}"))
    return [
        folder
        for folder in folders
        if all(read_result_file(path).weights in ("", checkpoint.weights) for path in folder.glob("*.json"))
    ]
