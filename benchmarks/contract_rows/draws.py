"""n, best_of, stop, seed, temperature, top_p, penalties and biases."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from contract_rows.answers import CLOSE
from contract_rows.side import N_TOKENS, PROMPTS, Miss, Rows, Side, same

ROWS = Rows()
N_DRAWS, N_BEST = 120, 8

# --- n, best_of, stop


@ROWS.row("n", "3", "three choices, drawn apart")
def _(side: Side) -> None:
    same(len({choice.text for choice in side.choices(3, n=3, max_tokens=N_TOKENS)}), 3)


@ROWS.row("n", "2, two prompts", "two choices of the first prompt, then two of the second")
def _(side: Side) -> None:
    choices = side.choices(4, prompt=list(PROMPTS), n=2, temperature=0, max_tokens=N_TOKENS)
    same([choice.text for choice in choices], [text for text in side.texts for _ in range(2)])


@ROWS.row("best_of", "4, n 2", "two choices")
def _(side: Side) -> None:
    side.choices(2, best_of=4, n=2, max_tokens=N_TOKENS)


@ROWS.row("best_of", str(N_BEST), "the completion with the highest log-probability per token")
def _(side: Side) -> None:
    plain = sorted(drawn(side, N_DRAWS))
    best = drawn(side, N_DRAWS // 2, best_of=N_BEST)
    shares = [((i + 1) ** N_BEST - i**N_BEST) / len(plain) ** N_BEST for i in range(len(plain))]  # of being the best
    expected = sum(share * value for share, value in zip(shares, plain, strict=True))
    mean, of_plain = statistics.fmean(best), statistics.fmean(plain)
    if mean < (of_plain + expected) / 2:
        raise Miss("ignored", f"mean log-probability {mean:.2f}; {of_plain:.2f} without it, {expected:.2f} of the best")


def stopped(side: Side, choice_text: str, finish_reason: str, stop: str) -> None:
    same(choice_text, side.texts[0][: side.texts[0].index(stop)], side.texts[0])
    same(finish_reason, "stop")


@ROWS.row("stop", "a token's text", "the text before it, and finish_reason `stop`")
def _(side: Side) -> None:
    stop = side.stops(across=False)[0]
    choice = side.greedy(stop=stop)
    stopped(side, choice.text, choice.finish_reason, stop)


@ROWS.row("stop", "two characters across two tokens", "the text before them")
def _(side: Side) -> None:
    stop = side.stops(across=True)[0]
    choice = side.greedy(stop=stop)
    stopped(side, choice.text, choice.finish_reason, stop)


@ROWS.row("stop", "4 texts", "the text before the first of them that comes")
def _(side: Side) -> None:
    first, second, *_ = side.stops(across=False)
    choice = side.greedy(stop=["never there", second, first, "nor here"])
    stopped(side, choice.text, choice.finish_reason, first)


@ROWS.row("stop", "a text that does not come", "the whole text")
def _(side: Side) -> None:
    same(side.greedy(stop=["never there"]).text, side.texts[0])


# --- seed, temperature, top_p, penalties, logit_bias


@ROWS.row("seed", "the same twice", "the same text")
def _(side: Side) -> None:
    same(side.draw(seed=5), side.draw(seed=5))


@ROWS.row("seed", "the same twice, n 2", "the same two texts, which are not alike")
def _(side: Side) -> None:
    first, again = ([choice.text for choice in side.choices(2, seed=5, n=2, max_tokens=N_TOKENS)] for _ in range(2))
    same(first, again)
    if first[0] == first[1]:
        raise Miss("wrong", "two choices that are alike")


@ROWS.row("seed", "two", "two texts")
def _(side: Side) -> None:
    if side.draw(seed=5) == side.draw(seed=6):
        raise Miss("ignored", "the same text")


@ROWS.row("seed", "absent", "two texts")
def _(side: Side) -> None:
    if side.draw() == side.draw():
        raise Miss("wrong", "the same text")


def drawn(side: Side, n: int, **fields: Any) -> list[float]:
    """Return the model's log-probabilities of first tokens that were drawn, where the text tells which they are."""
    own = side.truth.logprobs(side.ids[0])[-1]
    texts = [side.choices(max_tokens=1, seed=seed, **fields)[0].text for seed in range(n)]
    values = [float(own[side.truth.id_of_text[text]]) for text in texts if text in side.truth.id_of_text]
    if len(values) < n // 2:
        raise Miss("wrong", f"of {n} texts {n - len(values)} are no token's")
    return values


def from_the_distribution(fields: dict[str, float], temperature: float, side: Side) -> None:
    """Check the mean log-probability of drawn tokens: it is within four standard errors of the expected."""
    values = torch.tensor(drawn(side, N_DRAWS, **fields), dtype=torch.double)
    known = torch.tensor(sorted(side.truth.id_of_text.values()))
    own = side.truth.logprobs(side.ids[0])[-1][known]
    p = side.truth.logprobs(side.ids[0], temperature)[-1][known].softmax(-1)
    mean = float(p @ own)
    error = math.sqrt(float(p @ (own - mean) ** 2) / len(values))
    if not abs(float(values.mean()) - mean) < 4 * error:
        raise Miss("wrong", f"mean log-probability {values.mean():.2f}, expected {mean:.2f} +- {error:.2f}")


for value, fields, temperature in (
    ("absent, as top_p", {}, 1.0),
    ("0.5", {"temperature": 0.5, "top_p": 1}, 0.5),
    ("1", {"temperature": 1, "top_p": 1}, 1.0),
    ("2", {"temperature": 2, "top_p": 1}, 2.0),
):
    ROWS.row("temperature", value, "draws from the model's own distribution, at that temperature (1)")(
        partial(from_the_distribution, fields, temperature)
    )


@ROWS.row("temperature", "0", "the likeliest tokens")
def _(side: Side) -> None:
    same(side.draw(temperature=0, seed=1), side.texts[0])


@ROWS.row("top_p", "0", "the likeliest tokens")
def _(side: Side) -> None:
    same(side.draw(top_p=0, seed=1), side.texts[0])


@ROWS.row("top_p", "0.6", "draws from the likeliest tokens that have 0.6 of the probability")
def _(side: Side) -> None:
    own = side.truth.logprobs(side.ids[0])[-1].sort(descending=True)[0]
    n = int((own.exp().cumsum(0) < 0.6).sum()) + 1
    values = drawn(side, 60, top_p=0.6, temperature=1)
    if min(values) < float(own[n - 1]) - CLOSE:
        raise Miss("ignored", f"a token of log-probability {min(values):.2f}; the least allowed is {own[n - 1]:.2f}")
    if len(set(values)) < min(n, 3):
        raise Miss("wrong", f"{len(set(values))} of {n} tokens")


def penalised(fields: dict[str, float], side: Side) -> None:
    """Check a greedy text; "the text so far" may be the completion alone or the prompt too."""
    how = {name.removesuffix("_penalty"): value for name, value in fields.items()}
    allowed = [side.expected(side.ids[0], count_prompt=count_prompt, **how) for count_prompt in (False, True)]
    text = side.greedy(**fields).text
    same(text if text not in allowed else allowed[0], allowed[0], side.texts[0])


for fields in (
    {"presence_penalty": 2}, {"presence_penalty": -2}, {"frequency_penalty": 2}, {"frequency_penalty": -2},
    {"presence_penalty": 1, "frequency_penalty": 0.5},
):  # fmt: skip
    values = ", ".join(f"{value:g}" for value in fields.values())
    ROWS.row(" and ".join(fields), values, "it is taken off what was written before")(partial(penalised, fields))


def biased(bias_of: Callable[[Side], dict[int, int]], side: Side) -> None:
    bias = bias_of(side)
    expected = side.expected(side.ids[0], bias=bias)
    same(side.greedy(logit_bias={str(token): value for token, value in bias.items()}).text, expected, side.texts[0])


def raised(side: Side) -> dict[int, int]:
    """Return a bias that makes the second likeliest token the likeliest by less than it would need to be forced."""
    best = side.truth.logits(side.ids[0])[-1].topk(2)
    return {int(best.indices[1]): math.ceil(float(best.values[0] - best.values[1]) + 0.1)}


for value, asks, bias_of in (
    ("-100", "the token is banned", lambda side: {side.written[0][0]: -100}),
    ("100", "no other token", lambda side: {side.ids[1][0]: 100}),
    ("a few", "the second likeliest token becomes the likeliest", raised),
):
    ROWS.row("logit_bias", value, asks)(partial(biased, bias_of))
