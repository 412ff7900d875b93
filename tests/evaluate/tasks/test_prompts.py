"""The prompts of every task on its sample, against those that stand in golden/prompts.

Those of the sets' own files, which may not be copied, against their sha256 in golden/digests.json.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from fewshot.evaluate.prompt import build_prompt
from fewshot.evaluate.protocol import PROTOCOLS, EvalProtocol
from fewshot.evaluate.tasks.table import TASKS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_prompts", GOLDEN / "make_prompts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
DIGESTS = json.loads((GOLDEN / "digests.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_the_golden_ones(task: str) -> None:
    expected = (GOLDEN / "prompts" / f"{task}.txt").read_text(encoding="utf-8")
    assert MAKER.golden(task, MAKER.made_up(task)) == expected


@pytest.mark.parametrize("task", MAKER.SHARED)
def test_prompts_of_the_original_files_have_the_known_digests(task: str, shared_data: Path) -> None:
    found = MAKER.digests(task, MAKER.original(task, shared_data))
    assert found == DIGESTS[task], f"to read them: make_prompts.py --shared {shared_data} --show {task}"


class Characters:
    """A tokenizer whose tokens are the text's own characters."""

    eot = start = 0
    adds_start = False

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("name", TASKS)
def test_the_golden_text_is_what_a_model_is_given(name: str, protocol: EvalProtocol) -> None:
    task = MAKER.make(name, protocol, MAKER.made_up(name))
    for wanted in MAKER.shots_of(task) if task else ():
        episodes, shots = MAKER.first_episodes(task, wanted)
        assert shots == wanted, "a sample needs demonstrations for every golden prompt"
        for episode in episodes:
            prompt = build_prompt(Characters(), task, episode, shots=shots, n_ctx=999_999)
            assert prompt is not None
            assert (prompt.text, prompt.shots) == (MAKER.prompt_text(task, episode, shots), shots)


def test_no_golden_file_is_left_of_a_task_that_is_no_more() -> None:
    assert {file.stem for file in (GOLDEN / "prompts").iterdir()} == set(TASKS)
    assert set(DIGESTS) == set(MAKER.SHARED) <= set(TASKS)
    in_use = {MAKER.FOLDERS.get(task, task) for task in TASKS}
    assert {folder.name for folder in (GOLDEN / "samples").iterdir()} <= in_use
