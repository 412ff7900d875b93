from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.decode import decode
from fewshot.generate.request import Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.model.gpt import GPT

WARM = Sampling(temperature=1.5, top_k=9)


def requests(prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY) -> list[Request]:
    return [Request(prompt=row, max_tokens=1, sampling=sampling, place=place) for place, row in enumerate(prompts)]


def run(model: GPT, prompts: Tensor, n: int, *, sampling: Sampling = GREEDY, **how: object) -> tuple[Tensor, Tensor]:
    """The first n tokens, or fewer, and their log-probabilities: [B, n] each."""
    steps = itertools.islice(decode(model, requests(prompts.tolist(), sampling), **how), n)
    tokens, logprobs = zip(*steps, strict=True)
    return torch.stack(tokens, 1), torch.stack(logprobs, 1)


def prompts(n_rows: int, length: int) -> Tensor:
    return torch.randint(20, (n_rows, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", [1, 4, 11, 12])
@torch.no_grad()
def test_greedy_is_the_argmax_loop_without_a_cache(random_model: GPT, length: int) -> None:
    text = prompts(3, length)
    expected = []
    while text.shape[1] <= 12:
        logprobs = random_model(text)[:, -1].log_softmax(-1)
        text = torch.cat([text, logprobs.argmax(-1, keepdim=True)], 1)
        expected.append(logprobs.amax(-1))
    tokens, logprobs = run(random_model, text[:, :length], 99)
    assert torch.equal(tokens, text[:, length:])
    torch.testing.assert_close(logprobs, torch.stack(expected, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
@pytest.mark.parametrize("slide", [True, False])
def test_the_cache_changes_nothing(random_model: GPT, sampling: Sampling, slide: bool) -> None:
    how = {"sampling": sampling, "slide": slide}
    cached, cached_logprobs = run(random_model, prompts(3, 5), 30, **how)
    plain, plain_logprobs = run(random_model, prompts(3, 5), 30, use_cache=False, **how)
    assert torch.equal(cached, plain)
    torch.testing.assert_close(cached_logprobs, plain_logprobs, rtol=1e-4, atol=1e-5)
    assert cached.shape == (3, 30 if slide else 8)  # 12 positions hold the prompt and 7; the last is not read


@torch.no_grad()
def test_sliding_drops_the_oldest_half_each_time_the_context_is_full(random_model: GPT) -> None:
    tokens, _ = run(random_model, prompts(2, 10), 25, slide=True)
    text = prompts(2, 10)
    for t in range(25):
        if text.shape[1] > 12:
            text = text[:, -6:]
        text = torch.cat([text, random_model(text)[:, -1:].argmax(-1)], 1)
        assert torch.equal(text[:, -1], tokens[:, t])


def test_log_probabilities_are_the_models_own_not_those_after_temperature(random_model: GPT) -> None:
    text = prompts(2, 3)
    tokens, logprobs = run(random_model, text, 4, sampling=WARM)
    full = torch.cat([text, tokens], 1)
    with torch.no_grad():
        expected = random_model(full)[:, 2:-1].log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(random_model: GPT) -> None:
    together, _ = run(random_model, prompts(4, 3), 9, sampling=WARM)
    assert not torch.equal(together[0], together[1])
    for row in range(4):
        alone = decode(random_model, requests(prompts(4, 3).tolist(), WARM)[row : row + 1])
        assert [int(token) for token, _ in itertools.islice(alone, 9)] == together[row].tolist()


@pytest.mark.parametrize("slide", [True, False])
def test_prompts_of_different_lengths_share_a_batch_as_if_each_were_alone(random_model: GPT, slide: bool) -> None:
    lists = [prompts(1, length)[0].tolist() for length in (2, 12, 5, 11)]
    together = requests(lists, WARM)
    steps = list(itertools.islice(decode(random_model, together, slide=slide), 30))
    for row, request in enumerate(together):
        alone = decode(random_model, [request], slide=slide)
        expected = [(int(token), float(logprob)) for token, logprob in itertools.islice(alone, 30)]
        got = [(int(tokens[row]), float(logprobs[row])) for tokens, logprobs in steps[: len(expected)]]
        assert [token for token, _ in got] == [token for token, _ in expected]
        assert [logprob for _, logprob in got] == pytest.approx([logprob for _, logprob in expected], abs=1e-4)
    assert len(steps) == (30 if slide else 11)  # the shortest prompt has room for 10, the last token is not read


def test_a_prompt_that_does_not_fit_is_refused(random_model: GPT) -> None:
    with pytest.raises(ContextTooLong, match="the prompt has 13 tokens, the model's context holds 12"):
        run(random_model, prompts(1, 13), 1)
    with pytest.raises(BadValue, match="the prompt is empty; give at least one token"):
        run(random_model, prompts(1, 0), 1)


def test_tokens_carry_no_gradient(random_model: GPT) -> None:
    _, logprobs = run(random_model, prompts(1, 2), 2)
    assert not logprobs.requires_grad
    assert torch.is_grad_enabled()
