"""One small model for both, small random sets, and the comparison: `--protocol lm-eval` against the harness itself.

A test gives the harness's own file of a task, the files of its splits as our loader finds them, and a function
`make(made, n, path)` that writes n random rows to `path` in the set's original layout and returns them in the layout
that the harness reads.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
import string
import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType

import pytest

from fewshot.bench.harness import (
    harness_model,
    harness_scores,
    harness_task,
    local_task,
    save_small_model,
    write_repositories,
    write_rows,
)
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.data.hub import FILES, FOLDERS, Hub
from fewshot.evaluate.load import load
from fewshot.evaluate.protocol import HARNESS, PROTOCOLS
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.tasks.table import make_task

WORDS = ["12", "the", "dog", "sits", "well-known", "cat", "runs", "over", "green", "tree", "house", "and", "small", "7",
         "3.5", "naïve", "it's", "under", "a", "no", "yes"]  # fmt: skip
ODD = (*[""] * 9, "  ", ' "q"', " (a) [b]", " “né”", " {{x}}", " &amp;", "\t", " '")
LAST = ("dog", "tree", "naïve")  # what ends a text
N_EVALUATED, N_SHOWN, LIMIT = 12, 16, 10
ANSWER_TOKENS = 20  # in place of the harness's 256, which a small model fills


class Words(random.Random):
    """Random texts; each word is often followed by its own next, so that a small model learns to be right at times."""

    def words(self, least: int, most: int) -> str:
        at, chosen = -1, []
        while len(chosen) < most and (len(chosen) < least or WORDS[at] not in LAST):
            at = (at + 1) % len(WORDS) if self.random() < 0.6 else self.randrange(len(WORDS))
            chosen.append(WORDS[at])
        return " ".join(chosen)

    def sentence(self, least: int = 3, most: int = 9) -> str:
        odd, end = self.choice(ODD), self.choice([".", ".", ".", "?", "!", ". "])
        return f"{self.words(least, most).capitalize()}{odd}{end}" if self.random() < 0.8 else f"{odd} {end}"

    def text(self, n: int = 3) -> str:
        return " ".join(self.sentence() for _ in range(n))


def squad_words(text: str) -> list[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def squad_exact(right: str, said: str) -> int:
    return int(squad_words(right) == squad_words(said))


def squad_f1(right: str, said: str) -> float:
    theirs, ours = squad_words(right), squad_words(said)
    if not theirs or not ours:
        return int(theirs == ours)
    n_same = (Counter(theirs) & Counter(ours)).total()
    return 2 * n_same / (len(theirs) + len(ours))


@pytest.fixture(scope="session", autouse=True)
def squad_metrics():
    """SQuAD's official measures under the name by which the harness imports them; transformers 5 has them no more."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'fewshot[harness]'")
    name = "transformers.data.metrics.squad_metrics"
    if importlib.util.find_spec("transformers.data.metrics") is None:
        module = ModuleType(name)
        module.compute_exact, module.compute_f1 = squad_exact, squad_f1
        package = ModuleType("transformers.data.metrics")
        package.squad_metrics = module
        sys.modules |= {package.__name__: package, module.__name__: module}
    return sys.modules.get(name) or importlib.import_module(name)


@pytest.fixture(autouse=True)
def no_environment(squad_metrics, monkeypatch):
    """The harness asks the whole machine for its versions after every run, which takes longer than the run."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """(our reader and tokenizer, the harness's model) of the same folder."""
    folder, made = tmp_path_factory.mktemp("model"), Words(1)
    lines = [f"{made.choice(['Question: ', 'Q: ', ''])}{made.text()}\nAnswer: {made.words(1, 2)}\n" for _ in range(400)]
    save_small_model(folder, lines, init=0.1, steps=200)
    return load(f"hf:{folder}"), harness_model(folder, batch_size=4)


def write_sets(folder, splits, make):
    """The splits in both layouts, in folder/ours and folder/theirs; the harness's files by split."""
    made, files = Words(2), {}
    for split, file in splits.items():
        path = folder / "ours" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = make(made, N_SHOWN if "train" in split or "dev" in split else N_EVALUATED, path)
        files[split] = write_rows(folder / "theirs" / f"{split}.jsonl", rows)
    return files


@pytest.fixture
def parity(small_model, tmp_path, monkeypatch):
    """The comparison, of a model that reads 512 tokens or fewer; it returns what our side answered."""
    ours, theirs = small_model

    def compare(name, yaml, splits, make, *, shots, n_ctx=512, batch_sizes=(1, 5, 32), without=(), **changed):
        monkeypatch.setattr(ours.lm, "n_ctx", n_ctx)
        monkeypatch.setattr(theirs, "_max_length", n_ctx)
        files = write_sets(tmp_path, splits, make)
        task = make_task(name, data=DataFolder(tmp_path / "ours"), protocol=HARNESS)
        if task.kind == "complete":
            assert task.max_answer_tokens == theirs.max_gen_toks
            task = replace(task, max_answer_tokens=ANSWER_TOKENS)
            monkeypatch.setattr(type(theirs), "max_gen_toks", ANSWER_TOKENS)
        expected = harness_scores(theirs, local_task(yaml, files, **changed), shots=shots, limit=LIMIT)
        for batch_size in batch_sizes:
            (answered,) = evaluate(
                ours.lm, ours.tokenizer, task, shots=[shots], limit=LIMIT, seed=0, batch_size=batch_size
            )
            assert_same(task, answered, expected, without)
        return answered

    return compare


STORED = {file: stored for file, (stored, _) in (FILES | FOLDERS).items()}


@pytest.fixture
def from_hub(tmp_path, monkeypatch):
    """The comparison of a task on the original files with the same on what the hub holds, here copied into a folder.

    `hub_files` are the splits' files in the hub's table, where they differ from the local ones; `same` takes out of an
    example what the hub has not.
    """
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def compare(name, yaml, splits, make, *, hub_files=None, same=lambda example: example, protocols=PROTOCOLS):
        files = hub_files or splits
        rows = {split: read_rows(file) for split, file in write_sets(tmp_path, splits, make).items()}
        stored = {split: STORED[files[split]] for split in splits if files[split] in STORED}
        assert_named_as_by_the_harness(stored, yaml)
        write_repositories(tmp_path / "hub", {stored[split]: rows[split] for split in stored})
        for protocol in map(PROTOCOLS.get, protocols):
            ours, hub = (
                make_task(name, data=data, protocol=protocol).episodes(N_EVALUATED, 3, 0)
                for data in (DataFolder(tmp_path / "ours"), Hub(tmp_path / "hub"))
            )
            assert [without_ids(one, same) for one in hub] == [without_ids(one, same) for one in ours]
            assert len(hub) > 1

    return compare


def read_rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def assert_named_as_by_the_harness(stored, yaml):
    """The repository, configuration and splits of the harness's own file, where it names them."""
    said = harness_task(yaml) if yaml else {}
    for split, one in stored.items():
        assert one.split == split.rpartition("/")[2]
        if one.file:
            assert said["dataset_kwargs"]["data_files"][split] == f"hf://datasets/{one.repository}/{one.file}"
        elif yaml:
            assert (one.repository, one.config) == (said["dataset_path"], said.get("dataset_name"))


def without_ids(episode, same):
    """The example and its demonstrations, in both forms; some sets' ids are the names of files, which differ here."""
    plain = [(one, one.zero_shot) for one in (episode.example, *episode.demonstrations)]
    return [[replace(same(form), id="", zero_shot=None) for form in both if form] for both in plain]


@pytest.fixture
def bridged(small_model, tmp_path, monkeypatch):
    """(scores, answers) of a task by the harness with our bridge to a model, and with its own."""
    pytest.importorskip("fewshot.evaluate.models.lm_eval")
    from fewshot.evaluate.models.lm_eval import FewshotLM

    theirs = small_model[1]

    def run(yaml, splits, make, *, shots, n_ctx, batch_size):
        bridge = FewshotLM(path=f"hf:{theirs.pretrained}", batch_size=batch_size)
        monkeypatch.setattr(bridge.loaded.lm, "n_ctx", n_ctx)
        monkeypatch.setattr(theirs, "_max_length", n_ctx)
        task = local_task(yaml, write_sets(tmp_path, splits, make))
        if "generation_kwargs" in task:
            task["generation_kwargs"] |= {"max_gen_toks": ANSWER_TOKENS}
        return [harness_scores(model, task, shots=shots, limit=LIMIT) for model in (bridge, theirs)]

    return run


def assert_read(answered, prompt, theirs, ours):
    """The same text, or its end where the prompt was cut, perhaps within a letter of several bytes."""
    cut = prompt.shots < answered.shots or answered.task.description
    assert theirs.endswith(ours.lstrip("\ufffd")) if cut else theirs == ours


def assert_same(task, answered, expected, without):
    """Prompts and answers letter by letter, log-probabilities closely, every score to a millionth."""
    assert len(answered.answers) == len(expected["samples"])
    for answer, prompt, sample in zip(answered.answers, answered.prompts, expected["samples"], strict=True):
        asked, gold = sample["arguments"], answer.example.gold
        if task.kind == "complete":
            assert_read(answered, prompt, asked[0][0], prompt.text)
            assert answer.text.lstrip() == sample["filtered_resps"][0].lstrip()
        elif task.kind == "rolling":
            assert answer.example.completions[0] == asked[0][0]
            assert answer.logprobs[0] == pytest.approx(float(sample["filtered_resps"][0]), rel=1e-6)
        else:
            right = asked[gold] if len(asked) > 1 else asked[0]
            assert_read(answered, prompt, "".join(right), prompt.text + answer.example.completions[gold])
            logprobs = [float(pair[0]) for pair in sample["filtered_resps"]]
            assert answer.logprobs == pytest.approx(logprobs, abs=1e-4)
    found = {result.metric: result.value for result in answered.results()}
    assert found.keys() == expected["scores"].keys() - set(without)
    for metric, value in found.items():
        assert value == pytest.approx(float(expected["scores"][metric]), rel=1e-6, abs=1e-9), metric
