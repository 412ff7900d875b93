"""The face for Python: what the commands do, from a program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import fewshot
from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.cli.main import main
from fewshot.evaluate.data.hub import open_data
from fewshot.evaluate.load import load as load_for_questions
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.tasks.table import make_task

SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 32}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> fewshot.Run:
    folder = tmp_path_factory.mktemp("face")
    (folder / "text.txt").write_text("The cat sat on the mat. A dog ran after it. " * 60)
    steps: list[int] = []
    run = fewshot.train_on(
        folder / "text.txt",
        folder / "run",
        n_tokens=640,
        model=SHAPE,
        data={"tokenizer": "bytes"},
        schedule={"batch_tokens": 64},
        loop={"compile": "never"},
        on_step=lambda metrics: steps.append(metrics.step),
        say=lambda line: None,
    )
    assert steps[-1] == run.metrics[-1]["step"] == 11
    return run


def test_a_run_writes_the_text_of_the_command(trained: fewshot.Run, capsys: pytest.CaptureFixture[str]) -> None:
    how = {"max_tokens": 12, "temperature": 0.7, "top_p": 0.9, "seed": 3}
    text = trained.generate("The cat", **how)
    words = ["--n_tokens", "12", "--temperature", "0.7", "--top_p", "0.9", "--seed", "3", "--json"]
    assert main(["generate", trained.name, "The cat", *words]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"] == text
    assert "".join(trained.stream("The cat", **how)) == text
    assert trained.generate("The cat", **how | {"seed": 4}) != text
    assert len(trained.tokenizer.encode(trained.generate("The", max_tokens=50, temperature=0))) <= 50


def test_an_option_that_is_none_is_refused_with_the_nearest(trained: fewshot.Run) -> None:
    with pytest.raises(BadValue, match="unknown option 'temprature'; nearest: 'temperature'"):
        trained.generate("The", temprature=0.5)  # type: ignore[call-arg]
    with pytest.raises(BadValue, match="weight type"):
        fewshot.load(trained.name, weight_type="int3")


def test_of_an_older_checkpoint_the_card_says_nothing_of_later_ones(trained: fewshot.Run, tmp_path: Path) -> None:
    checkpoints = sorted((Path(trained.name) / "checkpoints").iterdir())
    newest = fewshot.load(checkpoints[-1])
    assert newest.weights == trained.weights
    assert newest.metrics == trained.metrics
    shutil.copytree(trained.name, tmp_path / "run")
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    later = json.loads(metrics[-1]) | {"step": 12, "tokens": 123_456}
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join([*metrics, json.dumps(later)]) + "\n")
    fewshot.load(tmp_path / "run").export(tmp_path / "out", check=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "tokens in 11 steps" in card
    assert "123,456" not in card


def test_log_probabilities_are_the_model_s_and_sum_up_to_the_loss(trained: fewshot.Run) -> None:
    found = trained.logprobs("A dog")
    assert [token for token, _ in found] == list("A dog")
    ids = torch.tensor([[256, *b"A dog"]])
    with torch.no_grad():
        loss = trained.model.loss(ids[:, :-1], ids[:, 1:])
    assert sum(value for _, value in found) / 5 == pytest.approx(-loss.item(), abs=1e-5)
    assert trained.logprobs("") == []
    with pytest.raises(ContextTooLong, match="the text has 33 tokens"):
        trained.logprobs("x" * 33)


def test_results_are_those_of_the_command(trained: fewshot.Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = trained.evaluate("novel_symbols", shots=[0, 2], limit=6, seed=1)
    words = ["--tasks", "novel_symbols", "--shots", "0,2", "--limit", "6", "--seeds", "1", "--json"]
    assert main(["evaluate", trained.name, *words]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    said = [(row["task"], row["metric"], row["shots"], row["value"]) for row in model["results"]]
    assert [(row.task, row.metric, row.shots, row.value) for row in found] == said
    with pytest.raises(BadValue, match="unknown task 'novel_symbol'"):
        trained.evaluate("novel_symbol")


def test_a_run_is_loaded_and_exported(trained: fewshot.Run, tmp_path: Path) -> None:
    again = fewshot.load(trained.name)
    assert again.weights == trained.weights
    assert again.config == trained.config
    assert again.config.n_ctx == 32
    assert trained.export(tmp_path / "gpt2", check=False).startswith("written, not checked")
    theirs = fewshot.load(f"hf:{tmp_path / 'gpt2'}")
    assert theirs.metrics == []
    assert theirs.generate("The", max_tokens=8, temperature=0) == again.generate("The", max_tokens=8, temperature=0)
    with pytest.raises(BadValue, match="convert it to a run"):
        theirs.export(tmp_path / "more")


@pytest.fixture
def tiny_gpt2(trained: fewshot.Run, tmp_path: Path) -> Path:
    """A GPT-2 that transformers made and wrote, with a tokenizer of its format."""
    transformers = pytest.importorskip("transformers")
    trained.export(tmp_path / "for_its_tokenizer", written_as="gpt2", check=False)
    shape = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 32, "vocab_size": 257}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    model.save_pretrained(tmp_path / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "for_its_tokenizer" / name, tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize(
    ("pattern", "written_as"), [("dense", "gpt2"), ("alternate(dense, banded(8))", "gpt_neo")], ids=["dense", "banded"]
)
def test_a_gpt2_of_transformers_is_trained_further_and_goes_back_to_it(
    tiny_gpt2: Path, tmp_path: Path, pattern: str, written_as: str
) -> None:
    (tmp_path / "text.txt").write_text("A bird sang in the tree. " * 60)
    run = fewshot.train_on(
        tmp_path / "text.txt", tmp_path / "run", start_from=f"hf:{tiny_gpt2}", n_tokens=200 * 64,
        schedule={"batch_tokens": 64, "batch_start_tokens": 64}, loop={"compile": "never", "log_every": 1},
        model={"pattern": pattern}, optimizer={"lr": 3e-3}, say=lambda line: None,
    )  # fmt: skip
    assert run.config.pattern == pattern
    assert len(run.metrics) == 200
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"] - 2
    assert run.export(tmp_path / "out").startswith("checked with transformers")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == written_as
    text = run.generate("A bird", max_tokens=8, temperature=0)
    assert fewshot.load(f"hf:{tmp_path / 'out'}").generate("A bird", max_tokens=8, temperature=0) == text


@pytest.mark.parametrize("written_as", ["gpt2", "gpt_neo", "opt", "code", "gguf"])
def test_an_export_answers_every_question_as_the_run(trained: fewshot.Run, tmp_path: Path, written_as: str) -> None:
    """By what `fewshot evaluate hf:PATH` asks: transformers, or our own reader where it has no class."""
    pytest.importorskip("transformers")
    trained.export(tmp_path / "out", written_as=written_as, check=False)
    said = []
    for name in (trained.name, f"hf:{tmp_path / 'out' / ('model.gguf' if written_as == 'gguf' else '')}"):
        loaded, task = load_for_questions(name), make_task("novel_symbols", data=open_data(None))
        answered = evaluate(loaded.lm, loaded.tokenizer, task, shots=[0, 1, 8], limit=20, seed=0)
        answers = [answer for of_k in answered for answer in of_k.answers]
        said.append([(answer.shots, answer.text, answer.logprobs and answer.choice("sum")) for answer in answers])
    assert len(said[0]) == 60
    assert said[0] == said[1]
