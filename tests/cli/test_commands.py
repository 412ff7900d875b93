"""Every command on a small run, as a user types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewshot import __version__
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import load_run
from fewshot.cli.main import COMMANDS, main
from fewshot.corpus.sources import SUFFIXES
from fewshot.evaluate.store.read import read_results, read_steps


def test_a_run_is_the_folder_that_the_readme_describes(small_run: Path) -> None:
    assert {"config.yaml", "tokenizer.json", "data", "checkpoints", "metrics.jsonl"} <= {
        p.name for p in small_run.iterdir()
    }
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["n_steps"]
    assert rows[-1]["val_loss"] < rows[0]["loss"]
    assert rows[-1]["tokens"] >= 2000


def test_generate_streams_the_prompt_and_its_continuation_and_repeats_it_for_a_seed(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(small_run), "The cat", "--n_tokens", "60", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0].startswith("The cat")
    assert outputs[0] == outputs[1] != outputs[2]


def test_the_prompt_may_stand_after_the_options(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(small_run), "--n_tokens", "5", "--stop", "\\n", "It was"]) == 0
    assert capsys.readouterr().out.startswith("It was")


def test_generate_json_has_text_tokens_and_log_probabilities(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(small_run), "The", "--json", "--n", "2", "--n_tokens", "7", "--temperature", "0"]
    assert main(words) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == second
    assert len(first["tokens"]) == len(first["logprobs"]) <= 7
    assert all(logprob <= 0 for logprob in first["logprobs"])


def test_evaluate_writes_results_and_report_shows_them(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(small_run), "--tasks", "novel_symbols,hidden_letter", "--shots", "2,0", "--limit", "9"]
    assert main([*words, "--json"]) == 0
    (results,) = [model["results"] for model in json.loads(capsys.readouterr().out)["models"]]
    assert [(result["task"], result["shots"]) for result in results] == [
        *(("novel_symbols", 0), ("novel_symbols", 2), ("hidden_letter", 0), ("hidden_letter", 2)),
    ]
    (kept,) = (small_run / "evaluations").glob("step-*")
    assert {path.name for path in kept.glob("*.json")} == {
        "novel_symbols.json",
        "hidden_letter.json",
    }
    assert main(words) == 0
    assert "novel_symbols" in capsys.readouterr().out
    assert main(["report", str(small_run)]) == 0
    page = (small_run / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "novel_symbols" in page
    assert "http" not in re.sub(
        r"http://www\.w3\.org|http://purl\.org|http://creativecommons\.org", "", page.split("<pre")[0]
    )


def test_evaluate_lists_its_tasks(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"lambada", "novel_symbols", "arithmetic_5d_subtract", "scramble_ri"} <= set(names)


def test_convert_to_hugging_face_and_back_keeps_every_weight(tmp_path: Path, small_run: Path) -> None:
    there, back = tmp_path / "hf", tmp_path / "back"
    assert main(["convert", str(small_run), str(there)]) == 0
    assert main(["convert", str(there), str(back)]) == 0
    (old, old_tokenizer, _), (new, new_tokenizer, _) = load_run(small_run), load_run(back)
    assert old_tokenizer.fingerprint == new_tokenizer.fingerprint
    for (name, a), b in zip(old.state_dict().items(), new.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_tokenizer_trains_and_encodes(tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.json"
    assert main(["tokenizer", "train", "--text", str(text_file), "--n_vocab", "290", "--out", str(path)]) == 0
    capsys.readouterr()
    assert main(["tokenizer", "encode", str(path), "the cat", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "".join(answer["pieces"]) == "the cat"
    assert len(answer["ids"]) < 7


def test_a_tokenizer_of_bytes_needs_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.json"
    assert main(["tokenizer", "train", "--kind", "bytes", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 257 entries\n"
    assert main(["tokenizer", "encode", str(path), "Aé"]) == 0
    assert capsys.readouterr().out == "65 195 169\n"


def test_a_run_reads_its_own_tokens_even_where_the_text_has_changed_moved_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, run = tmp_path / "a.txt", tmp_path / "run"
    text.write_text("one two three " * 300)
    shape = ["--model.n_layers", "1", "--model.d_model", "8", "--model.n_heads", "1", "--model.n_ctx", "8"]
    words = ["--data.tokenizer", "chars", "--loop.compile", "never", "--n_tokens", "64", *shape]
    assert main(["train", "--text", str(text), "--out", str(run), *words]) == 0
    text.unlink()
    monkeypatch.chdir("/")
    assert main(["resume", str(run)]) == 0
    capsys.readouterr()
    assert main(["resume", str(run), "--verify"]) == 0
    assert "each its own batch" in capsys.readouterr().out
    assert main(["replay", str(run), "--step", "2"]) == 0
    assert capsys.readouterr().out.startswith("step 2 has the bits of the log")
    shard = run / "data" / "text-train-00000.bin"
    shard.write_bytes(b"\x01" + shard.read_bytes()[1:])
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    assert "differs from its recorded sha256: start a new run" in capsys.readouterr().err


def test_a_new_run_over_old_tokens_of_changed_text_makes_them_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, run = tmp_path / "a.txt", tmp_path / "run"
    shape = ["--model.n_layers", "1", "--model.d_model", "8", "--model.n_heads", "1", "--model.n_ctx", "8"]
    words = ["--data.tokenizer", "chars", "--loop.compile", "never", "--n_tokens", "64", *shape]
    for content in ("one two three ", "three two one "):
        text.write_text(content * 300)
        assert main(["train", "--text", str(text), "--out", str(run), *words]) == 0
        (run / "config.yaml").rename(RunFolder(run).unfinished)  # as if killed before it was written
        shutil.rmtree(run / "checkpoints")
    assert "text changed" in capsys.readouterr().err


def stored_in(run: Path, name: str) -> Path:
    (path,) = (run / "evaluations").glob(f"step-*/{name}")
    return path


def test_results_of_other_shot_counts_stay_when_more_are_measured(small_run: Path) -> None:
    words = ["evaluate", str(small_run), "--tasks", "hidden_offset", "--limit", "5"]
    for shots in ("0,1", "2", "1"):
        assert main([*words, "--shots", shots]) == 0
    stored = json.loads(stored_in(small_run, "hidden_offset.json").read_text())
    assert [result["shots"] for result in stored["results"]] == [0, 1, 2]


def test_fewer_questions_never_replace_more_and_more_replace_no_other_k(tmp_path: Path, small_run: Path) -> None:
    run = copy_of(small_run, tmp_path / "run")
    stored_after = []
    for shots, limit in (("0,1", "6"), ("0", "4"), ("2", "8")):
        assert main(["evaluate", str(run), "--tasks", "hidden_offset", "--shots", shots, "--limit", limit]) == 0
        stored = json.loads(stored_in(run, "hidden_offset.json").read_text())["results"]
        stored_after.append([(result["shots"], result["n"]) for result in stored])
    assert stored_after == [[(0, 6), (1, 6)], [(0, 4), (0, 6), (1, 6)], [(0, 4), (0, 6), (1, 6), (2, 8)]]
    assert [(result.shots, result.n) for result in read_results(run / "evaluations")] == [(0, 6), (1, 6), (2, 8)]


def copy_of(run: Path, there: Path) -> Path:
    shutil.copytree(run, there, ignore=shutil.ignore_patterns("evaluations"))
    return there


def test_several_seeds_are_kept_and_summed_up_and_orders_are_only_shown(
    tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(small_run, tmp_path / "run")
    words = ["evaluate", str(run), "--tasks", "novel_symbols", "--shots", "0,3", "--limit", "6", "--calibration"]
    assert main([*words, "--seeds", "0,5", "--orders", "3", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["models"]
    stored = json.loads(stored_in(run, "novel_symbols.json").read_text())["results"]
    keys = [("accuracy", 0), ("accuracy", 3), ("calibration_error", 0), ("calibration_error", 3)]
    assert [(result["metric"], result["shots"], result["seed"]) for result in stored] == [
        (*k, seed) for k in keys for seed in (0, 5)
    ]
    assert [(row["metric"], row["shots"], row["spread"]["n"]) for row in shown["seeds"]] == [
        ("accuracy", 0, 2),
        ("calibration_error", 0, 2),
        ("accuracy", 3, 2),
        ("calibration_error", 3, 2),
    ]
    assert [(row["metric"], row["shots"], row["spread"]["n"]) for row in shown["orders"]] == [
        ("accuracy", 3, 3),
        ("calibration_error", 3, 3),
    ]
    assert main([*words, "--seeds", "0,5"]) == 0
    assert "over seeds of the demonstrations" in capsys.readouterr().out


def test_two_models_are_compared_on_the_same_questions(
    tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (copy_of(small_run, tmp_path / name) for name in ("one", "two"))
    words = ["evaluate", str(run), "--tasks", "novel_symbols", "--shots", "0,2", "--limit", "9", "--against"]
    assert main([*words, str(other), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    first, second = compared["models"]
    assert first["results"] == second["results"]  # they have the same weights
    assert [(row["shots"], row["n"], row["difference"], row["p_value"]) for row in compared["comparison"]] == [
        (0, 9, 0.0, 1.0),
        (2, 9, 0.0, 1.0),
    ]
    assert stored_in(other, "novel_symbols.json").is_file()
    assert main([*words, str(other)]) == 0
    assert "p (McNemar)" in capsys.readouterr().out
    assert main([*words, str(run)]) == 2
    assert "which is the first model itself: give another model" in capsys.readouterr().err
    assert main([*words, f"{run}/checkpoints/.."]) == 2
    assert "in one folder" in capsys.readouterr().err


def test_all_checkpoints_are_evaluated_and_drawn_against_the_training_step(
    tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(small_run, tmp_path / "run")
    newest = max((run / "checkpoints").iterdir())
    older = newest.with_name("step-00000004")
    shutil.copytree(newest, older)
    manifest = json.loads((older / "manifest.json").read_text())
    del manifest["sha256"]  # of the manifest itself; older versions wrote none
    (older / "manifest.json").write_text(json.dumps(manifest | {"step": 4}))
    words = ["evaluate", str(run), "--tasks", "novel_symbols", "--shots", "0,2", "--limit", "5"]
    assert main([*words, "--checkpoints", "all", "--json"]) == 0
    assert [model["step"] for model in json.loads(capsys.readouterr().out)["models"]] == [4, manifest["step"]]
    assert set(read_steps(run / "evaluations")) == {4, manifest["step"]}
    assert (run / "evaluations" / "step-00000004" / "novel_symbols.json").is_file()
    assert len(read_results(run / "evaluations")) == 2  # of the newest alone
    assert main(["report", str(run)]) == 0
    assert "against training step" in (run / "report.html").read_text()
    assert main(["evaluate", str(tmp_path), "--checkpoints", "all"]) == 2
    assert "not a run folder with checkpoints" in capsys.readouterr().err


def test_a_report_of_several_runs_is_one_page(
    tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [copy_of(small_run, tmp_path / name) for name in ("a", "b")]
    for run in runs:
        assert main(["evaluate", str(run), "--tasks", "novel_symbols", "--shots", "0,2", "--limit", "5"]) == 0
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "lab.html")]) == 0
    assert capsys.readouterr().out.endswith("lab.html\n")
    page = (tmp_path / "lab.html").read_text()
    assert page.count("<svg") == 3  # loss, position, accuracy over K
    assert "tokens read before" in page


def test_a_report_of_a_killed_run_leaves_out_the_line_that_was_cut(tmp_path: Path, small_run: Path) -> None:
    run = tmp_path / "killed"
    shutil.copytree(small_run, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    assert main(["report", str(run)]) == 0


def test_a_folder_written_by_transformers_tokenizer_converts(tmp_path: Path, small_run: Path) -> None:
    from transformers import GPT2TokenizerFast

    there = tmp_path / "hf"
    assert main(["convert", str(small_run), str(there)]) == 0
    theirs = GPT2TokenizerFast.from_pretrained(there)
    theirs.save_pretrained(there)
    assert main(["convert", str(there), str(tmp_path / "back")]) == 0
    _, tokenizer, _ = load_run(tmp_path / "back")
    assert tokenizer.encode("The cat sat") == theirs.encode("The cat sat")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_or_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert "usage: fewshot" in capsys.readouterr().out


def test_the_help_of_train_names_every_kind_of_text_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert f"files and folders to train on: {' '.join(SUFFIXES)}" in " ".join(capsys.readouterr().out.split())


def test_help_is_there_without_loading_torch() -> None:
    code = (
        "import sys; from fewshot.cli.main import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'rich', 'matplotlib', 'tiktoken', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fewshot {__version__}\n"


def test_readme_names_only_commands_and_options_that_exist() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    used = set(re.findall(r"^(?:source .*\n)?fewshot ([\w-]+)", readme, flags=re.M)) | set(
        re.findall(r"`fewshot ([\w-]+)", readme)
    )
    assert used <= set(COMMANDS)
    assert len(used) >= 8


def test_the_best_number_of_shots_needs_a_development_set(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(small_run), "--tasks", "novel_symbols", "--shots", "best"]) == 2
    assert "novel_symbols has no development set" in capsys.readouterr().err
