"""Prompts of every task, on samples in the original files' layouts, for a person to read and for tests to compare.

    PYTHONPATH=src python tests/evaluate/golden/make_prompts.py [--shared FOLDER] [--show TASK]

makes `prompts/` anew from `samples/`, whose text is made up. With --shared, a folder with the original files'
samples, which may not be copied, it makes `digests.json` anew, which holds of their prompts only the sha256. With
--show it prints the prompts of one task. Look at what changed, and why, before you commit it.
A new task needs a folder of its name in `samples/`, or a place in `SETS`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from fewshot.base.errors import BadValue
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.protocol import HARNESS, PROTOCOLS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks import arithmetic, scramble, translation
from fewshot.evaluate.tasks.table import TASKS, make_task

HERE = Path(__file__).parent
SHOTS = (0, 1, 3)
MOST_ASKED = 6  # questions shown without demonstrations; with them it is the first alone

# Folder in samples/ -> its tasks, where it is not called as its one task is.
SETS = {
    "arc": ("arc_easy", "arc_challenge"),
    "anli": ("anli_r1", "anli_r2", "anli_r3"),
    "race": ("race_h", "race_m"),
    "superglue": ("boolq", "cb", "copa", "rte", "wic", "wsc", "multirc", "record"),
    "wmt": tuple(translation.TASKS),
    "gpt3": (*arithmetic.TASKS, *scramble.TASKS),
}
FOLDERS = {task: folder for folder, tasks in SETS.items() for task in tasks}

# Task -> an archive in shared/data/eval/format_samples, or a folder of shared/data/eval.
SHARED = {
    "hellaswag": "hellaswag__0.1.0.zip",
    "lambada": "lambada__plain_text__1.1.0.zip",
    "story_cloze": "story_cloze__2016__0.0.0.zip",
    "nq_open": "nq_open__nq_open__2.0.0.zip",
    "web_questions": "web_questions__1.0.0.zip",
    "trivia_qa": "trivia_qa__rc.nocontext__1.2.0.zip",
    "wmt16_ro_en": "wmt16_roen_dev",
    "wmt16_en_ro": "wmt16_roen_dev",
    "winograd": "winograd_wsc__wsc273__0.0.0.zip",
    "winogrande": "winogrande__winogrande_xl__1.1.0.zip",
    "piqa": "piqa__plain_text__1.1.0.zip",
    "arc_easy": "ai2_arc__ARC-Easy__1.0.0.zip",
    "arc_challenge": "ai2_arc__ARC-Challenge__1.0.0.zip",
    "openbookqa": "openbookqa__main__1.0.0.zip",
    "quac": "quac__plain_text__1.1.0.zip",
    "squad_v2": "squad2",  # the archive's training file is its development file
    "coqa": "coqa__1.0.0.zip",
    "drop": "drop__0.1.0.zip",
    "race_h": "race__all__0.1.0.zip",
    "race_m": "race__all__0.1.0.zip",
    "boolq": "super_glue__boolq__1.0.2.zip",
    "cb": "super_glue__boolq__1.0.2.zip",
    "copa": "super_glue__boolq__1.0.2.zip",
    "rte": "super_glue__boolq__1.0.2.zip",
    "wic": "super_glue__boolq__1.0.2.zip",
    "wsc": "superglue",  # in the archive no training row has the right noun
    "multirc": "super_glue__boolq__1.0.2.zip",
    "record": "super_glue__boolq__1.0.2.zip",
    "anli_r1": "anli__plain_text__0.1.0.zip",
    "anli_r2": "anli__plain_text__0.1.0.zip",
    "anli_r3": "anli__plain_text__0.1.0.zip",
    "ptb": "ptb_text_only__penn_treebank__1.1.0.zip",
    "wikitext": "wikitext__wikitext-2-raw-v1__1.0.0.zip",
    "arithmetic_2d_add": "gpt3",
    "arithmetic_3d_subtract": "gpt3",
    "arithmetic_1d_composite": "gpt3",
    "scramble_cl": "gpt3",
    "scramble_ri": "gpt3",
}


def made_up(task: str) -> DataFolder | None:
    """The task's sample in `samples/`; None where the task has no files."""
    folder = HERE / "samples" / FOLDERS.get(task, task)
    return DataFolder(folder) if folder.exists() else None


def original(task: str, shared_data: Path) -> DataFolder:
    """The sample of the task's original files."""
    name = SHARED[task]
    return DataFolder(shared_data / "eval" / ("format_samples" if name.endswith(".zip") else "") / name)


def golden(name: str, data: DataFolder | None) -> str:
    """The prompts of a task in both forms, for every number of demonstrations."""
    return "\n".join(text for protocol in PROTOCOLS.values() for text in _form(name, protocol, data).values())


def digests(name: str, data: DataFolder) -> dict[str, dict[str, str]]:
    """Protocol -> K -> sha256 of the prompts with their completions, as `golden` has them."""
    return {
        protocol.name: {shots: sha256(text.encode()).hexdigest() for shots, text in _form(name, protocol, data).items()}
        for protocol in PROTOCOLS.values()
    }


def make(name: str, protocol: EvalProtocol, data: DataFolder | None) -> Task | None:
    """The task in that form; None where the harness has no such task."""
    try:
        return make_task(name, data=data, protocol=protocol)
    except BadValue as error:
        if protocol is HARNESS and "is no task of lm-evaluation-harness" in str(error):
            return None
        raise


def _form(name: str, protocol: EvalProtocol, data: DataFolder | None) -> dict[str, str]:
    task = make(name, protocol, data)
    return {str(wanted): _text(task, wanted) for wanted in shots_of(task)} if task else {}


def _text(task: Task, wanted: int) -> str:
    episodes, shots = first_episodes(task, wanted)
    fewer = f": {shots} in the sample" if shots < wanted else ""
    lines = [f"===== {task.name}, {task.protocol.name}, K = {wanted}{fewer}"]
    for episode in episodes:
        lines += (f"|{line}" for line in prompt_text(task, episode, shots).split("\n"))
        lines += [*_answers(task, shown_at(episode, shots)), ""]
    return "\n".join(lines)


def shots_of(task: Task) -> tuple[int, ...]:
    """The numbers of demonstrations to show it with: text that is only read has none."""
    return SHOTS[:1] if task.kind == "rolling" else SHOTS


def first_episodes(task: Task, wanted: int) -> tuple[list[Episode], int]:
    """The first episodes with as many demonstrations as are wanted, or as the sample has, and how many these are."""
    for shots in range(wanted, 0, -1):
        try:
            episode = task.episodes(1, shots, 0)[0]
        except (BadValue, ValueError):  # fewer in the sample
            continue
        return [episode], min(shots, len(episode.demonstrations))
    return list(task.episodes(1 if wanted else MOST_ASKED, 0, 0)), 0


def shown_at(episode: Episode, shots: int) -> Example:
    """The question as it is put after so many demonstrations."""
    return episode.example.zero_shot or episode.example if shots == 0 else episode.example


def prompt_text(task: Task, episode: Episode, shots: int) -> str:
    """Description, demonstrations and question, joined by the delimiter; the right choice's where each has its own.

    Written without `evaluate.prompt`, so that either can be held against the other.
    """
    question = shown_at(episode, shots)
    if question is not episode.example:
        return question.context
    shown = [one.demonstration for one in episode.demonstrations[:shots]]
    described = [task.description] if task.description else []
    return task.delimiter.join([*described, *shown, question.pairs[question.gold][0]])


def _answers(task: Task, example: Example) -> Iterator[str]:
    for number, (context, completion) in enumerate(example.pairs):
        right = "right" if task.kind == "complete" or example.is_right(number) else "wrong"
        after = f" after {_quoted(context)}" if example.contexts else ""
        yield f"{right}: {_quoted(completion)}{after}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main() -> None:
    """Write, or show, what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, metavar="FOLDER", help="shared/data, with the original files' samples")
    parser.add_argument("--show", metavar="TASK", choices=TASKS, help="print this task's prompts and write nothing")
    options = parser.parse_args()
    if options.show and options.shared and options.show not in SHARED:
        parser.error(f"{options.shared} has no sample of {options.show}: leave --shared out")
    if options.show:
        print(golden(options.show, original(options.show, options.shared) if options.shared else made_up(options.show)))
    elif options.shared:
        known = {task: digests(task, original(task, options.shared)) for task in SHARED}
        (HERE / "digests.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    else:
        for task in TASKS:
            (HERE / "prompts" / f"{task}.txt").write_text(golden(task, made_up(task)), encoding="utf-8")


if __name__ == "__main__":
    main()
