"""A model whose log-probabilities are not finite gets no answer, in whatever way it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.base.errors import NotFinite
from fewshot.evaluate import run
from fewshot.evaluate.best_shots import best_shots
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy, greedy_accuracy, perplexity, written_exactly
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.models.transformers import TransformersLanguageModel
from fewshot.evaluate.scoring.answerer import write_all
from fewshot.evaluate.scoring.logprobs import Span, score
from fewshot.evaluate.scoring.loss_by_position import loss_by_position
from fewshot.evaluate.task import Task
from fewshot.generate.complete import complete, stream
from fewshot.generate.sampling import Sampling
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

N_VOCAB = 97
FEW = [Example(str(i), f"{i} +", (" a", " bc"), i % 2) for i in range(6)]
FORMS: dict[str, dict[str, Any]] = {
    "choose": {"kind": "choose", "metrics": (accuracy(),)},
    "choose above the answer alone": {
        "kind": "choose",
        "metrics": (accuracy("unconditional"),),
        "answer_context": "A:",
    },
    "complete": {"kind": "complete", "metrics": (written_exactly(),), "max_answer_tokens": 3},
    "perplexity": {"kind": "perplexity", "metrics": (greedy_accuracy(), perplexity())},
    "rolling": {"kind": "rolling", "metrics": (perplexity("byte"),)},
}


def asked(form: str, *, shots: int) -> Callable[[LanguageModel, Any], object]:
    episodes = drawn_episodes("t", FEW[:3], FEW[3:])
    task = Task(name="t", source="test", episodes=episodes, dev=episodes, **FORMS[form])

    def ask(lm: LanguageModel, tokenizer: Any) -> object:
        return run.evaluate(lm, tokenizer, task, shots=(shots,), limit=3, seed=0, batch_size=2)

    return ask


def best_of_several(lm: LanguageModel, tokenizer: Any) -> object:
    episodes = drawn_episodes("t", FEW[:3], FEW[3:])
    task = Task(name="t", source="test", episodes=episodes, dev=episodes, **FORMS["choose"])
    return best_shots(lm, tokenizer, task, (0, 2), limit=3, seed=0, batch_size=2)


ROWS = np.arange(40).reshape(4, 10)
WAYS: dict[str, Callable[[LanguageModel, Any], object]] = {
    **{f"{form}, {shots} shots": asked(form, shots=shots) for form in FORMS for shots in (0, 2)},
    "a span": lambda lm, _: score(lm, [Span((1, 2, 3), 1)], batch_size=1),
    "loss by position": lambda lm, _: loss_by_position(lm, [ROWS]),
    "greedy answers": lambda lm, tokenizer: write_all(
        lm, tokenizer, [[1], [2, 3]], batch_size=4, beams=1, max_tokens=3
    ),
    "the best number of shots": best_of_several,
}
BY_OUR_OWN_MODEL: dict[str, Callable[[GPT, Any], object]] = {
    "complete": lambda model, tokenizer: complete(model, tokenizer, [[1], [2, 3]], max_tokens=3),
    "complete, sampled": lambda model, tokenizer: complete(
        model, tokenizer, [[1]], max_tokens=3, sampling=Sampling(top_k=5, top_p=0.9)
    ),
    "stream": lambda model, tokenizer: list(stream(model, tokenizer, [1], max_tokens=3)),
    "stream beyond the context": lambda model, tokenizer: list(
        stream(model, tokenizer, [1] * 60, max_tokens=9, slide=True, sampling=Sampling())
    ),
}


@torch.no_grad()
def all_norm(model: GPT) -> None:
    model.ln_f.weight.fill_(torch.nan)


@torch.no_grad()
def one_weight(model: GPT) -> None:
    model.h[0].mlp.c_fc.weight[3, 5] = torch.nan


@torch.no_grad()
def one_output(model: GPT) -> None:
    model.wte.weight[N_VOCAB - 3, 2] = torch.nan  # of a token that no prompt holds


@torch.no_grad()
def half_overflows(model: GPT) -> None:
    model.wte.weight.mul_(1e6)  # each weight fits, sums of products do not
    model.half()


BROKEN = {broken.__name__: broken for broken in (all_norm, one_weight, one_output, half_overflows)}


def own_model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=64, n_vocab=N_VOCAB)).eval()


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_is_broken_gets_no_score(small_tokenizer, broken: str, way: str) -> None:
    model = own_model()
    WAYS[way](GPTLanguageModel(model), small_tokenizer())  # sound, it is answered
    BROKEN[broken](model)
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        WAYS[way](GPTLanguageModel(model), small_tokenizer())


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("way", BY_OUR_OWN_MODEL)
def test_a_model_that_is_broken_writes_nothing(small_tokenizer, broken: str, way: str) -> None:
    model = own_model()
    BY_OUR_OWN_MODEL[way](model, small_tokenizer())
    BROKEN[broken](model)
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        BY_OUR_OWN_MODEL[way](model, small_tokenizer())


@pytest.mark.parametrize("kind", ["gpt2", "mamba"])  # read as trees with a cache; read one by one, without
@pytest.mark.parametrize("way", WAYS)
def test_a_broken_model_of_the_library_gets_no_score(small_tokenizer, kind: str, way: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = (
        transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=N_VOCAB, n_embd=16, n_layer=1, n_head=2))
        if kind == "gpt2"
        else transformers.MambaForCausalLM(
            transformers.MambaConfig(vocab_size=N_VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4)
        )
    )
    lm = TransformersLanguageModel(model)
    WAYS[way](lm, small_tokenizer())
    with torch.no_grad():
        next(model.parameters())[:, 3] = torch.nan
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        WAYS[way](lm, small_tokenizer())


def test_a_token_that_a_model_rules_out_is_never_written_and_no_fault(small_tokenizer) -> None:
    model = own_model()
    logits = model.logits

    def without_an_end(hidden: torch.Tensor) -> torch.Tensor:
        return logits(hidden).index_fill(-1, torch.tensor([N_VOCAB - 1]), -torch.inf)

    model.logits = without_an_end  # type: ignore[method-assign]
    tokenizer = small_tokenizer()
    (text,) = write_all(GPTLanguageModel(model), tokenizer, [[1]], batch_size=4, beams=4, max_tokens=5)
    (completion,) = complete(model, tokenizer, [[1]], max_tokens=5, sampling=Sampling())
    assert (len(text), len(completion.tokens)) == (5, 5)
    assert score(GPTLanguageModel(model), [Span((1, 2, 3), 1)], batch_size=1)[0].logprob > -20
    with pytest.raises(NotFinite):  # but a text that it rules out has no log-probability
        score(GPTLanguageModel(model), [Span((1, 2, N_VOCAB - 1), 1)], batch_size=1)
