from __future__ import annotations

import itertools

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.generate.beam import beam_search
from fewshot.generate.next_logits import GPTSteps
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.vocab import Tokenizer

END = 4


class Letters:
    """a, b, c, a line break, and the end of a text."""

    eot, n_vocab = END, 5
    pieces_stand_alone = True

    def decode_bytes(self, ids):
        return "".join("abc\n"[i] for i in ids).encode()


@pytest.fixture(scope="module", params=["dense", "alternate(dense, banded(3))"])
def model(request) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": 24, "n_vocab": 5, "init_std": 0.7}
    return GPT(GPTConfig(**shape, pattern=request.param)).eval()


def every_answer(model: GPT, prompt: list[int], room: int, stop: bool) -> dict[tuple[int, ...], float]:
    """The log-probability of every text that ends within `room` tokens, or fills it."""
    answers = {}
    for length in range(1, room + 1):
        for tokens in itertools.product(range(5), repeat=length):
            last = (END, 3) if stop else (END,)
            if any(token in last for token in tokens[:-1]) or (length < room and tokens[-1] not in last):
                continue
            with torch.no_grad():
                logprobs = model(torch.tensor([[*prompt, *tokens[:-1]]]))[0, len(prompt) - 1 :].log_softmax(-1)
            answers[tokens] = logprobs.gather(1, torch.tensor(tokens)[:, None]).sum().item()
    return answers


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("stop", [False, True])
def test_a_wide_search_finds_what_an_exhaustive_one_finds(model, alpha, stop):
    prompts = [[0, 1], [0, 1, 2, 2], [2]]
    completions = beam_search(
        GPTSteps(model), Letters(), prompts, n_ctx=24, max_tokens=4, stop=("\n",) if stop else (),
        beams=500, length_penalty=alpha,
    )  # fmt: skip
    for prompt, completion in zip(prompts, completions, strict=True):
        answers = every_answer(model, prompt, 4, stop)
        best = max(answers, key=lambda tokens: answers[tokens] / ((5 + len(tokens)) / 6) ** alpha)
        assert completion.tokens == best
        assert sum(completion.logprobs) == pytest.approx(answers[best], abs=1e-4)
        assert len(completion.logprobs) == len(completion.tokens)
        ended = best[-1] == END or (stop and best[-1] == 3)
        assert completion.finish_reason == ("stop" if ended else "length")
        assert completion.text == Letters().decode_bytes([t for t in best if t < 3 or (t == 3 and not stop)]).decode()


def test_one_beam_takes_the_likeliest_token_each_time(model):
    prompts = [[0, 1, 2], [1]]
    completions = beam_search(GPTSteps(model), Letters(), prompts, n_ctx=24, max_tokens=9, beams=1, length_penalty=0.0)
    for prompt, completion in zip(prompts, completions, strict=True):
        tokens = list(prompt)
        with torch.no_grad():
            while len(tokens) < len(prompt) + 9 and (len(tokens) == len(prompt) or tokens[-1] != END):
                tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        assert list(completion.tokens) == tokens[len(prompt) :]


def test_answers_do_not_depend_on_the_neighbours(model):
    prompts = [[0, 1, 2, 0], [0, 1, 2, 1, 1], [0, 1], [2, 2, 2]]
    settings = {"n_ctx": 24, "max_tokens": 6, "beams": 3, "length_penalty": 0.6}
    together = beam_search(GPTSteps(model), Letters(), prompts, **settings)
    alone = [beam_search(GPTSteps(model), Letters(), [prompt], **settings)[0] for prompt in prompts]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]


def test_an_answer_ends_where_the_context_is_full(model):
    (completion,) = beam_search(GPTSteps(model), Letters(), [[0] * 23], n_ctx=24, max_tokens=9, beams=2)
    assert 1 <= len(completion.tokens) <= 2


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"length_penalty": -1.0}])
def test_settings_that_mean_nothing_are_refused(model, wrong):
    with pytest.raises(BadValue, match=next(iter(wrong))):
        beam_search(GPTSteps(model), Letters(), [[0]], n_ctx=24, max_tokens=2, **wrong)


class Recorded:
    """Another tokenizer that counts the ids it decodes."""

    def __init__(self, tokenizer: Tokenizer, *, alone: bool) -> None:
        self.tokenizer, self.pieces_stand_alone = tokenizer, alone
        self.eot, self.n_vocab, self.n_calls, self.n_decoded = tokenizer.eot, tokenizer.n_vocab, 0, 0

    def decode_bytes(self, ids):
        self.n_calls, self.n_decoded = self.n_calls + 1, self.n_decoded + len(ids)
        return self.tokenizer.decode_bytes(ids)


TEXT = "né 日本\n\nA: a b ba\n"
TOKENIZERS = {"chars": lambda: train_chars([TEXT]), "bytes": Bytes, "bpe": lambda: train_bpe([TEXT * 9], n_vocab=290)}
STOPS = {"none": (), "a line": ("\n",), "two lines": ("\n\n",), "several": ("本\n\nA", "ba\n", "b a")}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_that_stand_alone_are_decoded_once_and_give_the_same_answers(name, beams, stop):
    tokenizer = TOKENIZERS[name]()
    generator = torch.Generator().manual_seed(3)
    script = [*tokenizer.encode(TEXT * 2), tokenizer.eot]

    class Mostly:
        """Steps that are nearly sure of the script, whatever was written."""

        def start(self, prompts):
            self.at = -1
            generator.manual_seed(3)
            return self.go_on(range(len(prompts)), [])

        def go_on(self, rows, tokens):
            self.at += 1
            logits = torch.randn(1, tokenizer.n_vocab, generator=generator).repeat(len(rows), 1)
            logits[:, script[min(self.at, len(script) - 1)]] += 6.0
            return logits

    settings = {"n_ctx": 999, "max_tokens": 40, "beams": beams, "stop": stop}
    once, whole = Recorded(tokenizer, alone=True), Recorded(tokenizer, alone=False)
    completions = beam_search(Mostly(), once, [[0], [1, 2]], **settings)
    assert completions == beam_search(Mostly(), whole, [[0], [1, 2]], **settings)
    assert once.n_decoded == once.n_calls == whole.n_calls
    assert whole.n_decoded > whole.n_calls


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_of_our_tokenizers_stand_alone(name):
    tokenizer = TOKENIZERS[name]()
    assert tokenizer.pieces_stand_alone
    ids = [*range(tokenizer.n_vocab), *reversed(range(tokenizer.n_vocab))]
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == tokenizer.decode_bytes(ids)
