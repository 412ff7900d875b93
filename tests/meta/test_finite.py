"""Predictions that are no numbers are no figure: neither an accuracy nor an error, of any learner and kind of task."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue, Diverged
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.finetune import FineTuning, choose_settings
from fewshot.meta.learners.maml import InnerLoop, adapted, finite_or_nan, start_of
from fewshot.meta.tasks.classes import accuracy
from fewshot.meta.tasks.text_tasks import share_answered
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SHORT = ["--outer.n_iterations", "1", "--learner.compile", "untraced"]
IMAGES = ["--n_ways", "3", "--data.n_bytes", "9", "--data.validation", "0", "--data.test", "0.4", "--test.n_tasks", "8",
          "--network.n_filters", "4", "--learner.n_tasks", "2", *SHORT]  # fmt: skip
WILD = ["--learner.step_size", "1e30"]
LEARNERS = ("maml", "fomaml", "anil", "meta-sgd", "maml++", "pretrain")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve classes of four texts each."""
    rows = [{"text": f"{chr(97 + c) * (3 + i)} {i}", "label": c} for c in range(12) for i in range(4)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape = {"n_layers": 1, "d_model": 8, "n_heads": 2, "n_ctx": 48}
    tokenizer = Bytes()
    save(tmp_path / "run", GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **shape)), step=1)
    tokenizer.save(tmp_path / "run" / "tokenizer.json")
    return tmp_path / "run"


CASES = {
    **{f"classes, {name}": ["omniglot", *IMAGES, *WILD, "--learner.name", name, "--test.steps", "[0,20]"]
       for name in LEARNERS},
    "classes, reptile": ["omniglot", *IMAGES, "--learner.name", "reptile", "--learner.step_size", "1e38",
                         "--learner.n_query", "2", "--learner.batch", "3", "--test.steps", "[0,20]"],
    "classes, each query alone": ["omniglot", *IMAGES, *WILD, "--learner.name", "pretrain", "--test.transductive",
                                  "false", "--test.steps", "[0,20]"],
    "classes, watched": ["omniglot", *IMAGES, *WILD, "--learner.name", "pretrain", "--data.validation", "0.3",
                         "--test.steps", "[20]"],
    "sinusoids": ["sinusoid", *SHORT, *WILD, "--learner.name", "pretrain", "--test_tasks", "3"],
    "functions": ["regression", *SHORT, *WILD, "--learner.name", "pretrain", "--learner_outer.n_iterations", "1",
                  "--test_tasks", "3", "--reader", "null"],
}  # fmt: skip


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_a_learner_whose_predictions_are_no_numbers_has_no_figure(words, texts, tmp_path, capsys):
    data = ["--data.path", str(texts)] if words[0] == "omniglot" else []
    assert main(["meta", *words, *data, "--out", str(tmp_path / "out")]) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot: "))
    assert "is no number" in error
    assert "learner.step_size" in error
    assert not (tmp_path / "out" / "result.json").exists()


def test_rules_of_text_too(checkpoint, tmp_path, capsys):
    few = ["--tasks", "[hidden_letter]", "--shots", "[2]", "--seeds", "2", "--test_tasks", "2", "--finetune.tasks", "1",
           "--learner.n_tasks", "2", "--learner.n_query", "1", "--learner.n_support", "2", *SHORT,
           "--run", str(checkpoint), "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(["meta", "text", *few, "--learner.name", "pretrain", *WILD]) == 2
    assert "learner.step_size" in capsys.readouterr().err
    too_large = ["--finetune.sgd", "[1e30]", "--finetune.adam", "[1e38]", "--finetune.steps", "[5]"]
    few[-1] = str(tmp_path / "other")
    assert main(["meta", "text", *few, *too_large]) == 2
    assert "finetune.sgd" in capsys.readouterr().err


def _lost(*values: float) -> torch.Tensor:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0]])
    for i, value in enumerate(values):
        scores.view(-1)[i] = value
    return scores


@pytest.mark.parametrize("values", [(math.nan,), (math.inf,), (-math.inf,), (0.0, math.nan), [math.nan] * 6])
@pytest.mark.parametrize("judge", [accuracy, share_answered, mse_loss])
def test_what_is_judged_must_be_finite_whatever_judges_it(judge, values):
    y = _lost() if judge is mse_loss else torch.tensor([0, 1, 0])
    assert finite_or_nan(judge)(_lost(), y) == judge(_lost(), y)
    assert finite_or_nan(judge)(_lost(*values), y).isnan()


class Shift(nn.Module):
    """Scores that are the weights, whatever is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w.expand(len(x), 2) * x


def test_of_several_tasks_those_that_are_lost_are_known():
    x = torch.tensor([1.0, 1e30, 1.0])[:, None, None].expand(3, 4, 1)
    y = torch.ones(3, 4, dtype=torch.long)
    module, inner = Shift(), InnerLoop(step_size=1e30, second_order=False)
    values = adapted(
        module, start_of(module), Episodes(x, y, x, y), nn.functional.cross_entropy, accuracy, inner, [0, 2]
    )
    assert values[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert values[:, 1].isnan().tolist() == [False, True, False]


def test_fine_tuning_passes_over_settings_that_lead_nowhere_and_says_so_if_all_do():
    x, y = torch.ones(5, 4, 1), torch.ones(5, 4, dtype=torch.long)
    given = Shift(), Episodes(x, y, x, y), nn.functional.cross_entropy, accuracy
    wild = float(torch.finfo(torch.float32).max)
    lost = FineTuning(sgd=(wild,), adam=(), steps=(20,))
    x.fill_(1e30)
    with pytest.raises(Diverged, match=r"finetune.sgd"):
        choose_settings(*given, lost)
    found = choose_settings(*given, FineTuning(sgd=(wild, 1e-30), adam=(), steps=(2,)))
    assert (found.inner.step_size, found.value) == (1e-30, 1.0)


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 0.0, -1.0])
def test_a_step_size_is_a_finite_number_above_0(value):
    with pytest.raises(BadValue, match="step_size is"):
        InnerLoop(step_size=value)


@pytest.mark.parametrize(
    "words",
    [["sinusoid", "--learner.step_size", ".inf"], ["sinusoid", "--learner.step_size", "inf"],
     ["sinusoid", "--learner.step_size", ".nan"], ["sinusoid", "--outer.lr", ".inf"],
     ["sinusoid", "--outer.lr", "nan"], ["sinusoid", "--outer.clip_norm", ".inf"],
     ["sinusoid", "--outer.weight_decay", ".nan"], ["sinusoid", "--learner.multi_step_share", ".nan"],
     ["regression", "--noise", ".inf"], ["regression", "--learner_outer.lr", ".inf"],
     ["text", "--reader_lr", ".inf"], ["text", "--finetune.sgd", "[.inf]"], ["text", "--finetune.adam", "[.nan]"],
     ["omniglot", "--data.test", ".nan"], ["omniglot", "--data.validation", ".inf"]],
    ids=" ".join,
)  # fmt: skip
def test_a_setting_that_is_not_finite_is_refused_with_its_value(words, tmp_path, capsys):
    assert main(["meta", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    name = words[1].removeprefix("--").rpartition(".")[2]
    assert name in error
    assert "inf" in error or "nan" in error
    assert error.count("\n") == 1
