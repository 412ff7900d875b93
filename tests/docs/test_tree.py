"""The tree of files keeps its rules: tests mirror the source, folders and files stay small, imports go one way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tree_checks as rules

ROOT = Path(__file__).parents[2]
SRC, TESTS = ROOT / "src" / "fewshot", ROOT / "tests"

# Source files without a test file of their own: the test that covers each. It must import the file, or one that imports
# it, or run a command that does.
COVERED_BY = {
    "base/timings.py": "kernels/test_cost.py",
    "base/dist.py": "train/test_run.py",  # one process, the only case there is
    "base/log.py": "corpus/test_sources.py",  # a line to standard error
    "base/progress.py": "dataset/test_prepare.py",
    "bench/corpus.py": "bench/test_bench.py",
    "bench/memory.py": "bench/test_plan.py",
    "bench/harness.py": "evaluate/parity/test_windows.py",
    "checkpoint/data.py": "cli/test_contamination.py",
    "cli/bench.py": "bench/test_bench.py",
    "serve/server.py": "cli/test_serve.py",
    "serve/curve.py": "serve/test_few_shot.py",
    "generate/scores.py": "generate/test_engine.py",
    "checkpoint/formats/hugging_face/modeling_fewshot.py": "checkpoint/formats/hugging_face/test_own_code.py",
    "checkpoint/formats/plain_patterns.py": "checkpoint/formats/hugging_face/test_own_code.py",
    "checkpoint/runtimes/chromium.py": "checkpoint/formats/test_page.py",
    "checkpoint/runtimes/llama_cpp.py": "checkpoint/formats/test_gguf.py",
    "checkpoint/runtimes/onnx.py": "checkpoint/formats/test_onnx.py",
    "checkpoint/runtimes/transformers.py": "checkpoint/test_export.py",
    "face/describe.py": "cli/test_report.py",
    "face/exports.py": "cli/test_convert.py",
    "checkpoint/formats/hugging_face/folder.py": "checkpoint/formats/hugging_face/test_gpt2.py",
    "cli/lm_eval.py": "cli/test_readme.py",
    "cli/main.py": "cli/test_commands.py",
    "cli/replay.py": "cli/test_commands.py",
    "cli/resume.py": "cli/test_commands.py",
    "cli/tokenizer.py": "cli/test_commands.py",
    "cli/zoo.py": "cli/test_verify.py",
    "cli/train.py": "cli/test_commands.py",
    "corpus/document.py": "corpus/test_sources.py",
    "demo/recipe.py": "cli/test_demo.py",
    "demo/texts.py": "cli/test_demo.py",
    "evaluate/load.py": "evaluate/models/test_transformers_load.py",
    "evaluate/models/language_model.py": "evaluate/scoring/test_logprobs.py",
    "evaluate/models/lm_eval.py": "evaluate/parity/test_bridge.py",
    "evaluate/protocol.py": "evaluate/test_prompt.py",
    "kernels/interface.py": "kernels/test_choose.py",
    "kernels/operator.py": "kernels/test_native.py",
    "kernels/triton_code.py": "kernels/test_triton.py",
    "meta/episodes.py": "meta/test_outer_loop.py",
    "meta/state.py": "meta/test_experiment.py",
    "meta/tasks/functions.py": "meta/tasks/test_regression.py",
    "model/footprint/gpus.py": "model/footprint/test_cluster.py",
    "model/logprobs.py": "evaluate/scoring/test_logprobs.py",
    "model/memory.py": "model/test_gpt.py",
    "tokenizer/vocab.py": "checkpoint/formats/hugging_face/test_gpt2.py",
    "train/config.py": "train/test_schedule.py",
    "train/build.py": "train/test_run.py",
    "train/saving.py": "train/test_loop.py",
}

# Tests of no single source file: what they test.
OF_NO_FILE = {
    "zoo/test_files.py": "the findings in runs/zoo and their stored results",
    "bench/test_bench.py": "all of bench/ through the command",
    "serve/test_attack.py": "what is left after attacks",
    "serve/test_contract.py": "every field of the completions API",
    "serve/test_playground_page.py": "the files of serve/static/ in a browser",
    "cli/test_bad_inputs.py": "what every command refuses",
    "cli/test_commands.py": "every command on one small run",
    "cli/test_outputs.py": "where commands may write",
    "cli/test_readme.py": "the commands of README.md",
    "cli/test_wheel.py": "the wheel",
    "cli/test_streams.py": "closed streams and full memory",
    "train/parallel/test_faults.py": "processes that are killed or told to stop",
    "dataset/test_taken_up.py": "tokenising that was stopped ends with the same bytes",
    "docs/test_bad_days.py": "docs/bad-days.md",
    "docs/test_docs.py": "the pages of docs/",
    "checkpoint/formats/test_every_cell.py": "the table of docs/exports.md, cell by cell",
    "checkpoint/formats/hugging_face/test_hub_models.py": "published models",
    "docs/test_portable.py": "what only some systems have",
    "docs/test_targets.py": "the table of docs/exports.md",
    "docs/test_compare.py": "the table of docs/compare.md",
    "docs/test_site.py": "docs/ as a site",
    "docs/test_tutorial.py": "docs/tutorial.md as a notebook",
    "docs/test_how_to_add.py": "the table of CONTRIBUTING.md",
    "docs/test_journeys.py": "the journeys of docs/README.md",
    "docs/test_tree.py": "the tree of files",
    "evaluate/parity/test_bridge.py": "scores against lm-evaluation-harness",
    "evaluate/parity/test_choosing.py": "scores against lm-evaluation-harness",
    "evaluate/parity/test_superglue.py": "scores against lm-evaluation-harness",
    "evaluate/parity/test_windows.py": "scores against lm-evaluation-harness",
    "evaluate/parity/test_writing.py": "scores against lm-evaluation-harness",
    "evaluate/tasks/test_full_files.py": "the tasks on their whole original files",
    "evaluate/tasks/test_prompts.py": "the prompts of all tasks against stored ones",
    "kernels/test_kernel_agreement.py": "every kernel against the reference",
    "patterns/test_unlisted.py": "a pattern that no file knows, through all floors",
    "test_face.py": "fewshot/__init__.py",
    "test_soak.py": "bad days at random",
    "train/test_resume.py": "stopped runs end with the same bits",
}


def test_every_source_file_has_its_test_and_every_test_its_source_file() -> None:
    problems = rules.without_tests(SRC, TESTS, covered_by=COVERED_BY, of_no_file=OF_NO_FILE)
    assert not problems, "\n".join(problems)


def test_no_folder_holds_more_files_than_one_can_look_through() -> None:
    problems = rules.wide_folders(SRC, may_be_wide=["evaluate/tasks", "cli"])
    assert not problems, "\n".join(problems)


def test_no_file_is_longer_than_400_lines() -> None:
    problems = rules.long_files(SRC, may_be_long=[])
    assert not problems, "\n".join(problems)


def test_no_modules_import_each_other() -> None:
    problems = rules.import_loops(SRC)
    assert not problems, "\n".join(problems)


def test_init_files_hold_a_docstring_only() -> None:
    problems = rules.code_in_init_files(SRC)
    assert not problems, "\n".join(problems)


def test_no_name_says_nothing() -> None:
    problems = rules.empty_names(SRC)
    assert not problems, "\n".join(problems)


# ---- each rule finds a fault in a made-up tree

GOOD = {
    "src/fewshot/__init__.py": '"""Doc."""\n\nVERSION = 1\n',
    "src/fewshot/low/__init__.py": '"""Doc."""\n',
    "src/fewshot/low/a.py": "VALUE = 1\n",
    "src/fewshot/low/b.py": "from fewshot.low.a import VALUE\n",
    "src/fewshot/low/c.py": "from fewshot.low import b\n",
    "src/fewshot/cli/__init__.py": '"""Doc."""\n',
    "src/fewshot/cli/go_on.py": "STEPS = 1\n",
    "tests/low/test_a.py": "import fewshot.low.a\n",
    "tests/low/test_c.py": "from fewshot.low.c import b\n",
    "tests/cli/test_all.py": 'WORDS = "go-on RUN"\n',
}
COVERED = {"low/b.py": "low/test_c.py", "cli/go_on.py": "cli/test_all.py"}
mirror = partial(rules.without_tests, covered_by=COVERED, of_no_file={"cli/test_all.py": "all commands"})


def small_tree(root: Path, changes: dict[str, str | None]) -> tuple[Path, Path]:
    """Write the good tree with some files changed, added or, for None, left out; returns its src and tests."""
    for name, text in {**GOOD, **changes}.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    return root / "src" / "fewshot", root / "tests"


def of_src(rule: Callable[..., list[str]], **allowed: list[str]) -> Callable[[Path, Path], list[str]]:
    return lambda src, tests: rule(src, **allowed)


RULES = {
    "mirror": mirror,
    "width": of_src(rules.wide_folders, may_be_wide=["cli"]),
    "length": of_src(rules.long_files, may_be_long=["low/a.py"]),
    "loops": of_src(rules.import_loops),
    "init": of_src(rules.code_in_init_files),
    "names": of_src(rules.empty_names),
}
WIDE = {f"src/fewshot/{folder}/f{i:02}.py": "" for folder in ("low", "cli") for i in range(13)}
FAULTS: dict[str, tuple[str, dict[str, str | None], list[str]]] = {
    "a source file without a test": ("mirror", {"tests/low/test_a.py": None}, ["low/a.py has no test file"]),
    "a test without a source file": (
        "mirror",
        {"tests/low/test_d.py": ""},
        ["tests/low/test_d.py is the test of no source file"],
    ),
    "a file that went": (
        "mirror",
        {"src/fewshot/low/b.py": None},
        ["covered elsewhere: low/b.py is not there"],
    ),
    "a file that got a test": (
        "mirror",
        {"tests/low/test_b.py": ""},
        ["covered elsewhere: low/b.py has a test file of its own"],
    ),
    "a test that went": (
        "mirror",
        {"tests/cli/test_all.py": None},
        [
            "covered elsewhere: tests/cli/test_all.py, for cli/go_on.py, is not there",
            "of no file: tests/cli/test_all.py is not there",
        ],
    ),
    "a test that got a source file": (
        "mirror",
        {"src/fewshot/cli/all.py": ""},
        ["of no file: tests/cli/test_all.py is the test of a source file"],
    ),
    "a test that does not import the file it covers": (
        "mirror",
        {"tests/low/test_c.py": "from fewshot.low.a import VALUE\n"},
        ["covered elsewhere: tests/low/test_c.py does not use low/b.py"],
    ),
    "a test that does not name the command it covers": (
        "mirror",
        {"tests/cli/test_all.py": 'WORDS = "stop RUN"\n'},
        ["covered elsewhere: tests/cli/test_all.py does not use cli/go_on.py"],
    ),
    "a wide folder": ("width", WIDE, ["low holds 16 files, at most 15"]),
    "a wide folder that went": (
        "width",
        {"src/fewshot/cli/__init__.py": None, "src/fewshot/cli/go_on.py": None},
        ["cli is not there"],
    ),
    "a long file": (
        "length",
        {f"src/fewshot/low/{name}": "#\n" * 401 for name in ("a.py", "b.py", "d.cpp")},
        ["low/b.py has 401 lines, at most 400", "low/d.cpp has 401 lines, at most 400"],
    ),
    "a long file that went": ("length", {"src/fewshot/low/a.py": None}, ["low/a.py is not there"]),
    "two files that import each other in a function": (
        "loops",
        {"src/fewshot/low/a.py": "def value():\n    from fewshot.low import b\n    return b\n"},
        ["fewshot.low.a imports fewshot.low.b imports fewshot.low.a"],
    ),
    "a file that imports itself round another for a type": (
        "loops",
        {"src/fewshot/low/a.py": "if TYPE_CHECKING:\n    from fewshot.low.c import b\n"},
        ["fewshot.low.a imports fewshot.low.c imports fewshot.low.b imports fewshot.low.a"],
    ),
    "an import in an __init__.py": (
        "init",
        {"src/fewshot/low/__init__.py": '"""Doc."""\nfrom fewshot.low.a import VALUE\n'},
        ["low/__init__.py must hold a docstring and nothing else"],
    ),
    "an __init__.py without a docstring": (
        "init",
        {"src/fewshot/low/__init__.py": ""},
        ["low/__init__.py must hold a docstring and nothing else"],
    ),
    "a folder without __init__.py": ("init", {"src/fewshot/low/__init__.py": None}, ["low has no __init__.py"]),
    "names that say nothing": (
        "names",
        {
            "src/fewshot/low/a.py": "one = 1\nclass A:\n    each: int\n",
            "src/fewshot/low/b.py": "def f(found):\n    f.each = 1\nf = lambda one: [each for each in one]\n",
            "src/fewshot/low/c.py": "import os as found\nwith open('a') as one: print(one)\n",
        },
        [
            *("low/a.py:1: one", "low/a.py:3: each"),
            *("low/b.py:1: found", "low/b.py:2: each", "low/b.py:3: each", "low/b.py:3: one"),
            *("low/c.py:1: found", "low/c.py:2: one"),
        ],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_good_tree_breaks_no_rule(rule: str, tmp_path: Path) -> None:
    assert RULES[rule](*small_tree(tmp_path, {})) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_its_rule(fault: str, tmp_path: Path) -> None:
    rule, changes, problems = FAULTS[fault]
    assert RULES[rule](*small_tree(tmp_path, changes)) == problems


def test_every_rule_has_a_fault_that_breaks_it() -> None:
    assert {rule for rule, *_ in FAULTS.values()} == set(RULES)
