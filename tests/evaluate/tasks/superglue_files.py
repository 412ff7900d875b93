"""SuperGLUE's tasks on the whole files, on the samples of formats, and on made-up files."""

from __future__ import annotations

from pathlib import Path

from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task

SAMPLE = "eval/format_samples/super_glue__boolq__1.0.2.zip"  # WiC and ReCoRD are here in samples alone
MADE_UP = DataFolder(Path(__file__).resolve().parents[1] / "golden" / "samples" / "superglue")


def full(task: str, shared_data: Path, protocol: EvalProtocol = GPT3) -> Task:
    return make_task(task, data=DataFolder(shared_data / "eval/superglue"), protocol=protocol)


def sample(task: str, shared_data: Path) -> Task:
    return make_task(task, data=DataFolder(shared_data / SAMPLE))
