"""What `generate` refuses is one line, and nothing is on standard output before it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot.base.files import sha256_file
from fewshot.checkpoint.formats.table import open_model
from fewshot.cli.main import main
from fewshot.evaluate.tasks.qualitative import RECIPES
from fewshot.generate.complete import complete
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

REFUSED = {
    "a prompt longer than the context": (["cat " * 100], "the model's context holds 32: shorten it"),
    "a prompt of one token too many": (["zq" * 20], "the prompt has 40 tokens, the model's context holds 32"),
    "an empty stop": (["--stop", "", "the"], "a stop string is empty; give at least one character"),
    "an empty stop among others": (["--stop", "x", "--stop", "", "the"], "a stop string is empty"),
    "temperature nan": (["--temperature", "nan", "the"], "temperature is nan, must be at least 0 (0 is greedy)"),
    "temperature inf": (["--temperature", "inf", "the"], "temperature is inf, must be at most 1e6"),
    "temperature beyond float32": (["--temperature", "1e300", "the"], "temperature is 1e+300, must be at most 1e6"),
    "temperature below 0": (["--temperature=-1e-9", "the"], "temperature is -1e-09, must be at least 0 (0 is greedy)"),
    "top_k 0": (["--top_k", "0", "the"], "top_k is 0, must be at least 1"),
    "top_k below 0": (["--top_k", "-5", "the"], "top_k is -5, must be at least 1"),
    "top_p 0": (["--top_p", "0", "the"], "top_p is 0.0, must be in (0, 1]"),
    "top_p nan": (["--top_p", "nan", "the"], "top_p is nan, must be in (0, 1]"),
    "top_p above 1": (["--top_p", "1.0001", "the"], "top_p is 1.0001, must be in (0, 1]"),
    "an unknown recipe": (
        ["--recipe", "novel_word"],
        "unknown recipe 'novel_word'; nearest: 'novel_words'; allowed: grammar, news, novel_words",
    ),
    "a new word without its word": (
        ["--recipe", "novel_words", "It is a small animal."],
        "the definition must have its word in quotation marks",
    ),
    "an unknown type of weights": (
        ["--weight_type", "int4", "the"],
        "unknown weight type 'int4'; nearest: 'int8'; allowed: bfloat16, float32, int8",
    ),
    "a recipe longer than the context": (["--recipe", "grammar"], "the model's context holds 32: shorten it"),
    "no tokens": (["--n_tokens", "0", "the"], "--n is 1 and --n_tokens 0, both must be at least 1"),
    "no samples": (["--n", "0", "the"], "--n is 0 and --n_tokens 200, both must be at least 1"),
    "fewer than no tokens": (["--n_tokens", "-3", "the"], "--n is 1 and --n_tokens -3, both must be at least 1"),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_nothing_on_standard_output(
    small_run: Path, case: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = REFUSED[case]
    assert main(["generate", str(small_run), *words, *(["--json"] if as_json else [])]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("words", [[], ["--temperature", "0"], ["--json"], ["--n", "2", "--top_k", "3"]])
def test_a_model_of_broken_weights_is_refused_and_writes_nothing(
    small_run: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "broken"
    shutil.copytree(small_run, run)
    file = next(run.glob("checkpoints/*/model.safetensors"))
    before, weights = sha256_file(file), load_file(file)
    weights["ln_f.weight"] = torch.full_like(weights["ln_f.weight"], torch.nan)
    save_file(weights, file)
    manifest = file.with_name("manifest.json")  # as if it had been saved so, by a version without its own sha256
    plain = json.loads(manifest.read_text().replace(before, sha256_file(file)))
    del plain["sha256"]
    manifest.write_text(json.dumps(plain))
    assert main(["generate", str(run), *words, "the "]) == 2
    captured = capsys.readouterr()
    assert "log-probabilities are not finite" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_prompt_comes_first_and_once_a_sample(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(small_run), "--n", "2", "--n_tokens", "3", "--temperature", "1e-39", "the "]) == 0
    first, second = capsys.readouterr().out.removesuffix("\n").split("\n\n" + "-" * 40 + "\n")
    assert first == second  # so small a temperature is greedy
    assert first.startswith("the ")
    assert len(first) > len("the ")


@pytest.fixture
def long_context(set_in_module: Callable[[object, str, object], None]) -> None:
    """A model of bytes whose context holds the recipes, instead of a run's."""
    torch.manual_seed(0)
    tokenizer = Bytes()
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=2048, n_vocab=tokenizer.n_vocab)).eval()
    set_in_module(open_model, "open_model", lambda name: (model, tokenizer, ""))


SUBJECTS = {
    "novel_words": 'A "dax" is a café.',
    "grammar": "I eated the purple berries.",
    "news": "Dogs Bark | Cats do not",
}


@pytest.mark.usefixtures("long_context")
@pytest.mark.parametrize("subject", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_puts_its_prompt_around_the_subject(
    name: str, subject: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "run", "--recipe", name, "--n_tokens", "4", *([SUBJECTS[name]] if subject else [])]
    expected = RECIPES[name].prompt(SUBJECTS[name] if subject else "")
    assert main([*words, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["prompt"] == expected
    assert main(words) == 0
    assert capsys.readouterr().out == f"{expected}{result['text']}\n"


@pytest.mark.usefixtures("long_context")
def test_what_a_recipe_makes_the_model_write_ends_before_its_stop_and_before_the_users_own(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    stops: list[list[str]] = []
    set_in_module(complete, "complete", lambda *given, stop, **how: stops.append(stop) or [])
    assert main(["generate", "run", "--recipe", "news", "--stop", "END", "--json"]) == 0
    assert main(["generate", "run", "--stop", "\\n", "--json"]) == 0
    assert stops == [["END", RECIPES["news"].stop], ["\n"]]


def test_the_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in RECIPES)
