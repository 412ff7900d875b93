"""Each row of "How to add a ..." in CONTRIBUTING.md is done in a copy of the package, and touches its files alone.

What was added must then work: by a command, and in the tests that the row says cover it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fewshot.cli.main import main

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "fewshot"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TEXT = "The cat sat on the mat. It was happy there: 1 + 1 = 2\nabcdefghijklmnopqrstuvwxyz0123456789->\n" * 40
SHAPE = [
    *("--data.tokenizer", "chars", "--model.n_layers", "2", "--model.d_model", "16", "--model.n_heads", "2"),
    *("--model.n_ctx", "64", "--schedule.batch_tokens", "128", "--n_tokens", "1024", "--loop.compile", "never"),
]


def rows() -> dict[str, list[str]]:
    """The rows of the table by what they add: the files that each names, `<name>` standing for any word."""
    table = PAGE.partition("## How to add a ...")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    return {what.strip(): re.findall(r"`([\w/<>]+\.\w+)`", touch) for what, touch, *_ in cells}


@dataclass(frozen=True)
class Tests:
    """Tests that are chosen by words of their names, all of which pass, or all of which fail."""

    __test__ = False  # it is no test itself

    files: list[str]
    chosen: str  # as pytest's -k
    outcome: str = "passed"

    def words(self) -> list[str]:
        """How pytest is called."""
        settings = [
            "-q",
            "--assert=plain",
            "-p",
            "no:xdist",
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(ROOT),
        ]
        return ["pytest", *settings, *(str(ROOT / "tests" / file) for file in self.files), "-k", self.chosen]


WORKSHOP = """
import json, os, pathlib, sys, traceback
import hypothesis, pytest, rich.progress, tokenizers, torch, torch._dynamo, torch.optim, yaml

def run(package, steps):
    sys.path.insert(0, str(package.parent))
    os.environ["PYTHONPATH"] = str(package.parent)
    import fewshot
    from fewshot.cli.main import main
    assert pathlib.Path(fewshot.__file__).parent == package
    for words in steps:
        if words[0] == "pytest":
            pytest.main(words[1:])
        else:
            assert main(words) == 0, words
        print("\\x1e", flush=True)

for line in sys.stdin:
    folder, steps = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for number, name in ((1, "printed"), (2, "errors")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        try:
            run(pathlib.Path(folder, "src", "fewshot"), steps)
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def differences(changed: set[str], named: list[str]) -> list[str]:
    """How the files that were changed differ from those that a row names."""
    patterns = {file: re.compile(re.sub(r"<\w+>", r"\\w+", re.escape(file))) for file in named}
    others = [name for name in sorted(changed) if not any(pattern.fullmatch(name) for pattern in patterns.values())]
    unchanged = [file for file, pattern in patterns.items() if not any(map(pattern.fullmatch, changed))]
    return [f"the row does not name {name}" for name in others] + [f"{file} was not touched" for file in unchanged]


class Workshop:
    """A process that has imported the libraries, but not the package: it forks to run steps on a copy of the package.

    So importing the libraries, which takes most of the time, is done once and not for every copy.
    """

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKSHOP],
            env={**environment, "OMP_NUM_THREADS": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, folder: Path, steps: list[list[str]]) -> list[str]:
        """Return what each step printed; the package is in `src` of the folder."""
        print(json.dumps([str(folder), steps]), file=self.process.stdin, flush=True)
        status = self.process.stdout.readline()
        printed = (folder / "printed").read_text(encoding="utf-8")
        assert status == "0\n", printed + (folder / "errors").read_text(encoding="utf-8")
        return printed.split("\x1e\n")[:-1]


class Copy:
    """A copy of the package that is added to, and the commands and tests that run on it."""

    def __init__(self, folder: Path, workshop: Workshop | None = None) -> None:
        self.folder, self.package, self.workshop = folder, folder / "src" / "fewshot", workshop
        shutil.copytree(SRC, self.package)

    def write(self, file: str, text: str) -> None:
        """Write a file that is not there yet."""
        assert not (self.package / file).exists(), file
        (self.package / file).write_text(text, encoding="utf-8")

    def renamed(self, file: str, *changes: tuple[str, str]) -> str:
        """The text of a file under other names: the shortest way to something of its kind."""
        text = (SRC / file).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, f"{file} holds no {old!r}"
            text = text.replace(old, new)
        return text

    def insert(self, file: str, before: str, text: str) -> None:
        """Insert text before the line that begins so, which must be one."""
        path = self.package / file
        whole = path.read_text(encoding="utf-8")
        places = [match.start() for match in re.finditer(rf"^{re.escape(before)}", whole, re.MULTILINE)]
        assert len(places) == 1, f"{file}: {len(places)} lines begin with {before!r}"
        path.write_text(whole[: places[0]] + text + whole[places[0] :], encoding="utf-8")

    def add_row(self, file: str, table: str, row: str) -> None:
        """Add a last row to a table, which is a dict or tuple with a row a line."""
        path = self.package / file
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        starts = [number for number, line in enumerate(lines) if re.match(rf"{table}\b.* = .*[({{\[]$", line.rstrip())]
        assert len(starts) == 1, f"{file} holds {len(starts)} tables {table}"
        end = next(number for number in range(starts[0], len(lines)) if re.match(r"[)}\]]", lines[number]))
        path.write_text("".join([*lines[:end], f"    {row},\n", *lines[end:]]), encoding="utf-8")

    def changed(self) -> set[str]:
        """The files that differ from the package's, or are not in it."""
        files = (path for path in self.package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        names = {path.relative_to(self.package).as_posix() for path in files}
        return {
            name
            for name in names
            if not (SRC / name).is_file() or (SRC / name).read_bytes() != (self.package / name).read_bytes()
        }

    def run(self, *steps: list[str | Path] | Tests) -> list[str]:
        """Return what commands and tests print that run on the copy, one after the other in one process."""
        words = [step.words() if isinstance(step, Tests) else [str(word) for word in step] for step in steps]
        assert self.workshop is not None
        printed = self.workshop.run(self.folder, words)
        for step, text in zip(steps, printed, strict=True):
            if isinstance(step, Tests):
                outcomes = re.findall(r"\d+ (passed|failed|error)", text)
                assert outcomes == [step.outcome], text
        return printed


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    with workshop.process:
        yield workshop


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "--text", str(text_file), "--out", str(run), *SHAPE]) == 0
    return run


# ---- the additions: each edits the copy and returns what shows, on a text and a small run, that it works

Check = Callable[[Path, Path], None]


def add_pattern(copy: Copy) -> Check:
    kind = '''@dataclass(frozen=True)
class Doubling(Pattern):
    """Itself and the positions 1, 2, 4, 8 ... before."""

    def allows(self, q: Any, k: Any, h: Any = 0) -> Any:
        return (k <= q) & ((q - k) & (q - k - 1) == 0)


'''
    copy.insert("patterns/pattern.py", "PATTERNS", kind)
    copy.add_row("patterns/pattern.py", "PATTERNS", '"doubling": Doubling')

    def check(text_file: Path, small_run: Path) -> None:
        run = copy.folder / "run"
        generate = ["--temperature", "0", "--json"]
        shown, _, whole = copy.run(
            ["patterns", "show", "doubling", "--n", "8", "--json"],
            ["train", "--text", text_file, "--out", run, *SHAPE, "--model.pattern", "alternate(doubling, dense)"],
            ["generate", run, "The cat", "--n_tokens", "20", *generate],
        )
        assert json.loads(shown)["layers"][0]["mean_keys_per_query"] == (1 + 2 + 3 + 3 + 4 * 4) / 8
        (first,) = json.loads(whole)
        more, _ = copy.run(
            ["generate", run, f"The cat{first['text'][:10]}", "--n_tokens", "10", *generate],
            Tests(
                ["patterns/test_pattern.py", "kernels/test_kernel_agreement.py"],
                "every_pattern_in_the_table_is_tried or holds_every_pattern_of_the_table",
                outcome="failed",
            ),
        )
        (second,) = json.loads(more)
        assert second["text"] == first["text"][10:]  # token by token, from the cache, as from a longer prompt
        assert second["logprobs"] == pytest.approx(first["logprobs"][10:], abs=1e-4)

    return check


def add_kernel(copy: Copy) -> Check:
    code = '''"""Attention in float64: masked softmax over all scores."""

import torch

from fewshot.base.errors import check


def supports(need):
    return None


def attend(q, k, v, pattern, *, q_start=0, documents=None, dropout=None):
    (H, T), S = q.shape[1:3], k.shape[2]
    check(q_start + T <= S, f"queries reach position {q_start + T - 1}, keys end before")
    heads, queries, keys = torch.arange(H)[:, None, None], q_start + torch.arange(T)[:, None], torch.arange(S)
    allowed = torch.as_tensor(pattern.allows(queries, keys, heads)).expand(H, T, S)
    if documents is not None:
        allowed = allowed & (documents[:, None, q_start : q_start + T, None] == documents[:, None, None, :])
    scores = (q.double() @ k.double().transpose(-1, -2)) / q.shape[-1] ** 0.5
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
    return ((dropout.of_weights(weights) if dropout else weights) @ v.double()).to(q.dtype)
'''
    copy.write("kernels/double.py", code)
    copy.insert("kernels/choose.py", "from fewshot.kernels.cost", "from fewshot.kernels import double\n")
    copy.add_row("kernels/choose.py", "KERNELS", '"double": double')

    def check(text_file: Path, small_run: Path) -> None:
        run = copy.folder / "run"
        copy.run(
            ["train", "--text", text_file, "--out", run, *SHAPE, "--loop.kernel", "double"],
            Tests(["kernels/test_kernel_agreement.py"], "forward_and_backward and double and float32"),
        )

    return check


def add_task(copy: Copy) -> Check:
    copy.write(
        "evaluate/tasks/story_end.py", copy.renamed("evaluate/tasks/story_cloze.py", ("story_cloze", "story_end"))
    )
    copy.insert("evaluate/tasks/table.py", "TASKS", "from fewshot.evaluate.tasks import story_end  # noqa: E402\n\n")
    copy.add_row("evaluate/tasks/table.py", "TASKS", "**story_end.TASKS")

    def check(text_file: Path, small_run: Path) -> None:
        titles = ["InputStoryid", *(f"InputSentence{i}" for i in (1, 2, 3, 4))]
        titles += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        name = "cloze_test_test__spring2016 - cloze_test_ALL_test.csv"
        write_csv(copy.folder / name, titles, *(f"{i} {i} b c d e f 1".split() for i in range(30)))
        words = [
            "evaluate",
            small_run,
            "--tasks",
            "story_end",
            "--data",
            copy.folder,
            "--shots",
            "1",
            "--limit",
            "4",
            "--json",
        ]
        printed, _ = copy.run(words, Tests(["evaluate/tasks/test_table.py"], "story_end"))
        (model,) = json.loads(printed)["models"]
        assert [(result["task"], result["shots"]) for result in model["results"]] == [("story_end", 1)]

    return check


def add_novel_family(copy: Copy) -> Check:
    family = '''class Multiple(Offset):
    """An unknown number to multiply by, "7 -> 21"."""

    name, kind, sign, default_shots = "novel_multiple", "complete", "->", 4
    max_answer_tokens = 6  # a space, four digits and the line break, a token a character

    def answer(self, rule: int, question: str) -> str:
        return str(int(question) * rule)


'''
    copy.insert("evaluate/tasks/novel.py", "FAMILIES", family)
    path = copy.package / "evaluate/tasks/novel.py"
    path.write_text(re.sub(r"^(FAMILIES.*, Letter)\b", r"\1, Multiple", path.read_text(), flags=re.MULTILINE))

    def check(text_file: Path, small_run: Path) -> None:
        words = ["evaluate", small_run, "--tasks", "novel_multiple", "--shots", "0,2", "--limit", "4", "--json"]
        printed, _ = copy.run(words, Tests(["evaluate/tasks/test_novel.py"], "novel_multiple"))
        (model,) = json.loads(printed)["models"]
        shown = [(result["task"], result["shots"]) for result in model["results"]]
        assert shown == [("novel_multiple", 0), ("novel_multiple", 2)]

    return check


def add_checkpoint_format(copy: Copy) -> Check:
    code = copy.renamed(
        "checkpoint/formats/hugging_face/gpt2.py",
        (
            "is_of_type(path) and not any(is_of_type(path, kind) for kind in OTHER_TYPES)",
            '(path / "settings.json").is_file()',
        ),
        ("read_config(folder)", 'folder, __import__("json").loads((folder / "settings.json").read_text())'),
        ("state, eot=eot)", 'state, eot=eot)\n    (folder / "config.json").rename(folder / "settings.json")'),
    )
    copy.write("checkpoint/formats/theirs.py", code)
    functions = (
        "is_gpt2, with_tokenizer(theirs.read_hugging_face), theirs.check_is_gpt2, "
        "and_tokenizer(theirs.write_hugging_face)"
    )
    copy.insert("checkpoint/formats/table.py", "FORMATS", "from fewshot.checkpoint.formats import theirs\n\n")
    copy.add_row("checkpoint/formats/table.py", "FORMATS", f'"theirs": Format("their folder", theirs.{functions})')

    def check(text_file: Path, small_run: Path) -> None:
        folder, run = copy.folder / "theirs", copy.folder / "run"
        assert main(["convert", str(small_run), str(folder)]) == 0
        (folder / "config.json").rename(folder / "settings.json")
        written, _, rewritten, _ = copy.run(
            *(["generate", small_run, "The cat", "--seed", "1"], ["convert", folder, run]),
            ["generate", run, "The cat", "--seed", "1"],
            Tests(["checkpoint/formats/test_table.py"], "theirs"),
        )
        assert rewritten == written

    return check


def add_text_format(copy: Copy) -> Check:
    reader = """def _read_csv(path: Path, field: _Field) -> Records:
    import csv

    for number, record in enumerate(csv.DictReader(read_text(path).splitlines()), start=1):
        yield f"#{number}", record[field.name]


"""
    copy.insert("corpus/sources.py", "SUFFIXES", reader)
    copy.add_row("corpus/sources.py", "SUFFIXES", '".csv": _read_csv')

    def check(text_file: Path, small_run: Path) -> None:
        write_csv(copy.folder / "a.csv", ["id", "text"], *([str(i), f"{i} cats and a mat. " * 20] for i in range(40)))
        run = copy.folder / "run"
        tests = Tests(["corpus/test_sources.py"], "test_every_suffix_is_reached_by_a_file_of_that_name")
        copy.run(["train", "--text", copy.folder / "a.csv", "--out", run, *SHAPE], tests)
        assert set(json.loads((run / "tokenizer.json").read_text())["characters"]) == set("0123456789 cats and a mat.")

    return check


def add_optimizer(copy: Copy) -> Check:
    optimizer = '''def _sgd(
    parts: Parts, config: OptimizerConfig, model: GPTConfig, layout: Layout, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Return gradient descent with momentum; weight decay on matrices only."""
    held = [part.local for part in parts]
    matrices = {"params": [weight for weight in held if weight.ndim >= 2], "weight_decay": config.weight_decay}
    vectors = {"params": [weight for weight in held if weight.ndim < 2]}
    sgd = torch.optim.SGD([matrices, vectors], lr=config.lr, momentum=config.momentum)
    for weight in held:
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return [sgd]


'''
    copy.insert("train/optim.py", "OPTIMIZERS", optimizer)
    copy.add_row("train/optim.py", "OPTIMIZERS", '"sgd": _sgd')

    def check(text_file: Path, small_run: Path) -> None:
        run = copy.folder / "run"
        words = ["train", "--text", text_file, "--out", run, *SHAPE, "--optimizer.name", "sgd"]
        copy.run(words, Tests(["train/test_optim.py"], "sgd"))
        losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert losses[-1] < losses[0]

    return check


def add_model_size(copy: Copy) -> Check:
    copy.add_row("model/presets.py", "TINY", '"tiny-2m": _tiny(3, 160, 5, 128, 32)')
    copy.add_row(
        "train/resolving/recipes.py", "RECIPES", '"tiny-2m": Recipe(batch_tokens=2048, lr=1.23e-3, ramp_tokens=0)'
    )

    def check(text_file: Path, small_run: Path) -> None:
        run = copy.folder / "run"
        train = ["train", "--text", text_file, "--out", run, "--preset", "tiny-2m", "--n_tokens", "128"]
        plan, *_ = copy.run(
            ["plan", "tiny-2m", "--json"],
            [*train, "--loop.compile", "never"],
            Tests(["model/test_presets.py"], "tiny-2m"),
        )
        assert json.loads(plan)[0]["name"] == "tiny-2m"
        assert "lr: 0.00123\n" in (run / "config.yaml").read_text()

    return check


def add_learner(copy: Copy) -> Check:
    options = '"two-step": {"first_order_share": 0.5, "multi_step_share": 0.1}'
    copy.add_row("meta/learners/weight_learner.py", "LEARNERS", options)

    def check(text_file: Path, small_run: Path) -> None:
        short = ["--outer.n_iterations", "2", "--outer.report_every", "1", "--test_tasks", "3"]
        out = copy.folder / "meta"
        printed, _ = copy.run(
            ["meta", "sinusoid", "--learner", "two-step", "--out", out, "--json", *short],
            Tests(["meta/learners/test_weight_learner.py"], "lowers_the_loss and two-step"),
        )
        assert [curve["learner"] for curve in json.loads(printed)["curves"]] == ["two-step"]

    return check


def add_meta_kind(copy: Copy) -> Check:
    copy.write("meta/tasks/waves.py", copy.renamed("meta/tasks/sinusoid.py", ('tasks="sinusoid"', 'tasks="waves"')))
    copy.insert("meta/experiment.py", "EXPERIMENTS", "from fewshot.meta.tasks import waves  # noqa: E402\n\n")
    copy.add_row("meta/experiment.py", "EXPERIMENTS", '"waves": (waves.Config, waves.Experiment)')
    path = copy.package / "cli/meta.py"
    path.write_text(re.sub(r"^(TASKS = \(.*)\)$", r'\1, "waves")', path.read_text(), flags=re.MULTILINE))

    def check(text_file: Path, small_run: Path) -> None:
        short = ["--outer.n_iterations", "2", "--outer.report_every", "1", "--test_tasks", "3"]
        (printed,) = copy.run(["meta", "waves", "--out", copy.folder / "meta", "--json", *short])
        assert json.loads(printed)["tasks"] == "waves"

    return check


def write_csv(path: Path, *lines: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


ADDITIONS: dict[str, Callable[[Copy], Check]] = {
    "attention pattern": add_pattern,
    "kernel": add_kernel,
    "evaluation task": add_task,
    "family of novel tasks": add_novel_family,
    "checkpoint format": add_checkpoint_format,
    "text format": add_text_format,
    "optimizer": add_optimizer,
    "model size": add_model_size,
    "learner in weights": add_learner,
    "kind of meta-learning task": add_meta_kind,
}
NOT_DONE_HERE = {
    "repository of the hub": "it needs a repository; tests/evaluate/data/test_hub.py has them all",
    "published finding": "it is no code; tests/cli/test_verify.py runs, stores and checks a new one",
}


def test_every_row_of_the_table_is_done_here_or_is_left_out_with_a_reason() -> None:
    assert set(rows()) == {*ADDITIONS, *NOT_DONE_HERE}


def test_a_file_that_the_row_does_not_name_or_that_needs_no_change_is_told() -> None:
    row = ["kernels/<name>.py", "kernels/choose.py"]
    assert differences({"kernels/new.py", "kernels/choose.py"}, row) == []
    assert differences({"kernels/new.py", "kernels/sub/new.py"}, row) == [
        "the row does not name kernels/sub/new.py",
        "kernels/choose.py was not touched",
    ]


def test_a_copy_tells_what_was_changed_in_it(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    assert copy.changed() == set()
    copy.write("kernels/new.py", "")
    copy.insert("kernels/choose.py", "KERNELS", "# a comment\n")
    assert copy.changed() == {"kernels/new.py", "kernels/choose.py"}


@pytest.mark.parametrize("what", ADDITIONS)
def test_an_addition_touches_the_files_of_its_row_and_works(
    what: str, tmp_path: Path, text_file: Path, small_run: Path, workshop: Workshop
) -> None:
    copy = Copy(tmp_path / "copy", workshop)
    check = ADDITIONS[what](copy)
    assert differences(copy.changed(), rows()[what]) == []
    check(text_file, small_run)
