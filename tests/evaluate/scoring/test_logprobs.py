from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.scoring.logprobs import Scorer, Span, score
from fewshot.evaluate.scoring.prefix_tree import build_prefix_tree
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layers=2, d_model=24, n_heads=3, n_ctx=19, n_vocab=37, init_std=0.5)).eval()


def random_spans(n: int) -> list[Span]:
    generator = torch.Generator().manual_seed(1)
    spans = []
    for _ in range(n):
        length = int(torch.randint(2, 20, (), generator=generator))
        tokens = torch.randint(37, (length,), generator=generator).tolist()
        spans.append(Span(tuple(tokens), int(torch.randint(1, length, (), generator=generator))))
    return spans


def test_scores_are_the_sums_of_the_models_own_logprobs(model):
    spans = random_spans(23)
    for span, result in zip(spans, score(GPTLanguageModel(model), spans, batch_size=5), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([span.tokens[:-1]]))[0, span.start - 1 :]
        targets = torch.tensor(span.tokens[span.start :])
        expected = logits.log_softmax(-1)[torch.arange(len(targets)), targets].sum().item()
        assert result.logprob == pytest.approx(expected, abs=1e-4)
        assert result.n_tokens == len(targets)
        assert result.greedy == bool((logits.argmax(-1) == targets).all())


def test_scores_do_not_depend_on_the_batch_size(model):
    spans = random_spans(31)
    alone, seven, together = (
        [result.logprob for result in score(GPTLanguageModel(model), spans, batch_size=n)] for n in (1, 7, 64)
    )
    assert seven == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(alone, abs=1e-5)


def test_scores_do_not_depend_on_how_many_logits_are_held(model, set_in_module):
    spans = random_spans(9)
    expected = [result.logprob for result in score(GPTLanguageModel(model), spans, batch_size=4)]
    set_in_module(score, "LOGIT_ROWS", 3)
    assert [result.logprob for result in score(GPTLanguageModel(model), spans, batch_size=4)] == pytest.approx(
        expected, abs=1e-5
    )


def test_choices_of_one_token_share_one_forward_pass_and_logits_are_for_completions_only(model, monkeypatch):
    seen, rows = [], []
    hidden, logits = model.hidden, model.logits
    monkeypatch.setattr(model, "hidden", lambda tokens: seen.append(tuple(tokens.shape)) or hidden(tokens))
    monkeypatch.setattr(model, "logits", lambda states: rows.append(len(states)) or logits(states))
    scores = score(GPTLanguageModel(model), [Span((5, 6, 7, 8, choice), 4) for choice in range(37)], batch_size=8)
    assert seen == [(1, 4)]
    assert sum(rows) == 37
    assert torch.tensor([result.logprob for result in scores]).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert sum(result.greedy for result in scores) == 1


PATTERNS = ["dense", "alternate(dense, banded(3))", "perhead(banded(4), strided(3))", "fixed(4, 1)"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("least_prefix", [1, 99])
def test_what_spans_share_is_read_once_and_scores_are_those_of_each_alone(
    pattern, least_prefix, monkeypatch, set_in_module
):
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 24, "n_heads": 2, "n_ctx": 40, "n_vocab": 37, "init_std": 0.5}
    model = GPT(GPTConfig(**shape, pattern=pattern)).eval()
    set_in_module(build_prefix_tree, "LEAST_PREFIX", least_prefix)
    demonstrations = tuple(range(20))
    spans = [Span((*demonstrations, *question, *choice), 20 + len(question))
             for question in ((1, 2, 3), (1, 2), (9,), (9, 9, 9, 9))
             for choice in ((4, 5, 6), (4, 5, 7), (8,))]  # fmt: skip
    read = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, *memory: read.append(tokens.numel()) or hidden(tokens, *memory))
    scorer = Scorer(GPTLanguageModel(model), batch_size=2)
    together = [scorer.score(part) for part in (spans[:7], spans[7:])]
    assert sum(read) < 80  # of the 280 tokens before the last one of each
    for span, result in zip(spans, [*together[0], *together[1]], strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([span.tokens[:-1]]))[0, span.start - 1 :].log_softmax(-1)
        targets = torch.tensor(span.tokens[span.start :])
        assert result.logprob == pytest.approx(expected.gather(1, targets[:, None]).sum().item(), abs=1e-4)
        assert result.greedy == bool((expected.argmax(-1) == targets).all())


def test_a_greedy_continuation_is_recognised(model):
    tokens = [3, 1, 4]
    with torch.no_grad():
        for _ in range(4):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    wrong = [*tokens[:-1], (tokens[-1] + 1) % 37]
    assert [
        result.greedy
        for result in score(GPTLanguageModel(model), [Span(tuple(tokens), 3), Span(tuple(wrong), 3)], batch_size=2)
    ] == [
        True,
        False,
    ]


def test_a_span_too_long_for_the_model_is_refused(model):
    assert len(score(GPTLanguageModel(model), [Span(tuple(range(20)), 1)], batch_size=1)) == 1
    with pytest.raises(ContextTooLong, match="20 tokens, the model's context holds 19"):
        score(GPTLanguageModel(model), [Span(tuple(range(21)), 1)], batch_size=1)


@pytest.mark.parametrize("start", [0, 3])
def test_a_span_without_a_beginning_or_an_end_is_refused(start):
    with pytest.raises(BadValue, match="cannot be scored"):
        Span((1, 2, 3), start)


def test_no_spans_give_no_scores(model):
    assert score(GPTLanguageModel(model), [], batch_size=3) == []
