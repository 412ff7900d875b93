from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.complete import complete, complete_requests
from fewshot.generate.engine import Engine
from fewshot.generate.request import Completion, Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.vocab import Tokenizer

WARM = Sampling(temperature=1.5, top_k=9)
N_CTX = 60


def make(pattern: str) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 18, "n_heads": 3, "d_head": 4, "n_ctx": N_CTX, "n_vocab": 20, "init_std": 0.3}
    return GPT(GPTConfig(**shape, pattern=pattern)).eval()


def engine_of(model: GPT, tokenizer: Tokenizer, *, n_texts: int = 4, **how: Any) -> Engine:
    packed = PackedGPT(model, how.pop("weight_type", "float32"))
    need = Engine(packed, tokenizer, cache_bytes=0).cache.bytes_of_text(model.config.n_ctx, n_new=how.get("chunk", 256))
    return Engine(packed, tokenizer, cache_bytes=n_texts * need, **how)


def drain(engine: Engine) -> dict[int, Completion]:
    done = {}
    while engine.busy:
        done.update({number: state.completion() for number, state in engine.step() if state.finish_reason})
    return done


def alone(model: GPT, tokenizer: Tokenizer, request: Request, **how: Any) -> Completion:
    engine = engine_of(model, tokenizer, **how)
    number = engine.submit(request)
    return drain(engine)[number]


# --- what is written


@pytest.mark.parametrize("length", [1, 4, 11, 12])
@torch.no_grad()
def test_greedy_is_the_argmax_loop_without_a_cache(random_model: GPT, letters: Tokenizer, length: int) -> None:
    prompt = torch.randint(20, (length,), generator=torch.Generator().manual_seed(length))
    text, expected = prompt, []
    while len(text) <= 12:
        logprobs = random_model(text[None])[0, -1].log_softmax(-1)
        text = torch.cat([text, logprobs.argmax(-1, keepdim=True)])
        expected.append(logprobs.amax(-1))
    done = alone(random_model, letters, Request(prompt=prompt.tolist(), max_tokens=99, sampling=GREEDY))
    assert list(done.tokens) == text[length:].tolist()
    torch.testing.assert_close(torch.tensor(done.logprobs), torch.stack(expected), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_sliding_drops_the_oldest_half_each_time_the_context_is_full(random_model: GPT, letters: Tokenizer) -> None:
    prompt = torch.randint(20, (10,))
    done = alone(random_model, letters, Request(prompt=prompt.tolist(), max_tokens=25, sampling=GREEDY, slide=True))
    text = prompt
    for token in done.tokens:
        if len(text) > 12:
            text = text[-6:]
        text = torch.cat([text, random_model(text[None])[0, -1:].argmax(-1)])
        assert text[-1] == token
    assert len(done.tokens) == 25


def test_log_probabilities_are_the_models_own_not_those_after_temperature(
    random_model: GPT, letters: Tokenizer
) -> None:
    done = alone(random_model, letters, Request(prompt=[3, 1, 4], max_tokens=4, sampling=WARM))
    text = torch.tensor([[3, 1, 4, *done.tokens]])
    with torch.no_grad():
        expected = random_model(text)[0, 2:-1].log_softmax(-1).gather(1, text[0, 3:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(done.logprobs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weight_type", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    "pattern", ["dense", "alternate(dense, banded(9))", "fixed(8, 2)", "perhead(dense, strided(5))"]
)
def test_the_same_bits_whatever_runs_beside_it_is_cached_or_how_it_is_cut(
    letters: Tokenizer, pattern: str, weight_type: str
) -> None:
    model, rng = make(pattern), random.Random(0)
    shared = [rng.randrange(20) for _ in range(30)]
    requests = [
        Request(
            prompt=[*shared[: rng.choice([0, 7, 16, 30])], *(rng.randrange(20) for _ in range(rng.randint(1, 20)))],
            max_tokens=rng.randint(1, 12),
            sampling=rng.choice([GREEDY, WARM, Sampling(top_p=0.8)]),
            seed=seed,
        )
        for seed in range(14)
    ]
    expected = [alone(model, letters, request, weight_type=weight_type) for request in requests]
    for seed, chunk in enumerate((16, 32, 256)):
        rng = random.Random(seed)
        engine = engine_of(model, letters, chunk=chunk, weight_type=weight_type, n_texts=rng.choice([2, 5]))
        order, numbers, done = rng.sample(range(14), 14), dict[int, int](), dict[int, Completion]()
        while order or engine.busy:
            for _ in range(rng.randint(0, 3)):
                if order:
                    number = engine.submit(requests[order[-1]])
                    numbers[number] = order.pop()
            for number, state in engine.step():
                if state.finish_reason is not None:
                    done[numbers[number]] = state.completion()
        assert [done[i] for i in range(14)] == expected


@pytest.mark.parametrize("chunk", [16, 256])
@torch.no_grad()
def test_scores_of_prompt_and_completion_are_those_of_the_whole_text(letters: Tokenizer, chunk: int) -> None:
    model, prompt = make("alternate(dense, banded(9))"), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    request = Request(
        prompt=prompt, max_tokens=5, sampling=WARM, top_logprobs=3, logprob_tokens=[7, 2], prompt_logprobs=True
    )
    engine = engine_of(model, letters, chunk=chunk)
    first = engine.submit(request)
    done = drain(engine)[first]
    text = torch.tensor([*prompt, *done.tokens])
    expected = model(text[None])[0].log_softmax(-1)
    scores = [*done.prompt_scores, *done.scores]
    assert len(scores) == len(text) - 1
    for score, logprobs, token in zip(scores, expected, text[1:], strict=False):
        assert score.logprob == pytest.approx(float(logprobs[token]), abs=1e-4)
        assert [token for token, _ in score.top] == logprobs.topk(3).indices.tolist()
        assert [value for _, value in score.top] == pytest.approx(logprobs.topk(3).values.tolist(), abs=1e-4)
    assert all(score.others == () for score in done.prompt_scores)
    assert done.scores[0].others == pytest.approx(expected[len(prompt) - 1, [7, 2]].tolist(), abs=1e-4)
    again = engine.submit(request)  # what was read before is not read again, and what is known of it is told
    counts = counted(engine)
    assert drain(engine)[again] == done
    assert counts[0] == 2
    whole = replace(request, prompt=text.tolist(), max_tokens=0, logprob_tokens=())
    number = engine.submit(whole)
    read = drain(engine)[number]
    assert (read.text, read.tokens, read.finish_reason) == ("", (), "length")
    assert read.prompt_scores == tuple(replace(score, others=()) for score in scores)  # to the last bit


@pytest.mark.parametrize("n_unscored", [1, 2, 9, 10, 11, 30])
@pytest.mark.parametrize("cached", [0, 8, 12, 20])
def test_a_part_of_the_prompts_scores_has_the_bits_of_all_of_them_whatever_was_read_before(
    letters: Tokenizer, n_unscored: int, cached: int
) -> None:
    model, prompt = make("alternate(dense, banded(9))"), [i * i % 19 for i in range(24)]
    request = Request(prompt=prompt, max_tokens=1, prompt_logprobs=True, top_logprobs=2)
    expected = alone(model, letters, request).prompt_scores
    engine = engine_of(model, letters, chunk=16)
    if cached:
        engine.submit(Request(prompt=prompt[:cached], max_tokens=1))
        drain(engine)
    number = engine.submit(replace(request, n_unscored=n_unscored))
    counts = counted(engine)
    assert drain(engine)[number].prompt_scores == expected[n_unscored - 1 :]
    assert sum(counts) == len(prompt) - min(cached, n_unscored - 1)
    again = engine.submit(request)  # what was kept of the part is no score of the whole
    assert drain(engine)[again].prompt_scores == expected


def test_penalties_count_what_was_written_and_biases_ban_and_force(letters: Tokenizer) -> None:
    model = make("dense")
    plain = alone(model, letters, Request(prompt=[1, 2], max_tokens=30, sampling=GREEDY))
    banned = replace(GREEDY, logit_bias={plain.tokens[0]: -100.0})
    assert plain.tokens[0] not in alone(model, letters, Request(prompt=[1, 2], max_tokens=30, sampling=banned)).tokens
    forced = replace(GREEDY, logit_bias={5: 100.0})
    assert set(alone(model, letters, Request(prompt=[1, 2], max_tokens=9, sampling=forced)).tokens) == {5}
    varied = replace(GREEDY, presence_penalty=2.0, frequency_penalty=2.0)
    many = alone(model, letters, Request(prompt=[1, 2], max_tokens=30, sampling=varied))
    assert len(set(many.tokens)) > len(set(plain.tokens))
    assert many.tokens[0] == plain.tokens[0]  # the prompt counts nothing
    assert many.logprobs[0] == plain.logprobs[0]  # and the model's own log-probability is told


# --- how requests come and go


def test_requests_begin_in_their_order_as_room_allows_and_none_is_interrupted(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, n_texts=2)
    numbers = [engine.submit(Request(prompt=[i], max_tokens=N_CTX, sampling=WARM, seed=i)) for i in range(1, 6)]
    seen: list[int] = []
    while engine.busy:
        grown = [number for number, _ in engine.step()]
        assert len(grown) <= 2
        seen += [number for number in grown if number not in seen]
        assert engine.cache.n_used_bytes <= engine.cache_bytes
        assert engine.n_reserved_bytes <= engine.cache_bytes
    assert seen == numbers


def test_keys_take_turns(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, max_rows=1)
    owners = {}
    for key in "aaabbc":
        owners[engine.submit(Request(prompt=[1], max_tokens=1, sampling=GREEDY, key=key))] = key
    assert "".join(owners[number] for number in drain(engine)) == "abcaba"


def test_a_long_prompt_is_read_in_chunks_while_others_go_on(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, chunk=16)
    first = engine.submit(Request(prompt=[1], max_tokens=30, sampling=GREEDY))
    engine.step()
    long = engine.submit(Request(prompt=[2] * 40, max_tokens=1, sampling=GREEDY))
    steps = [{number for number, _ in engine.step()} for _ in range(3)]
    assert steps == [{first}] * 2 + [{first, long}]


def test_short_prompts_begin_together_but_not_those_that_begin_alike(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, chunk=64, n_texts=9)
    for i in range(5):
        engine.submit(Request(prompt=[i] * 12, max_tokens=1, sampling=GREEDY))
    assert len(engine.step()) == 5
    alike = [engine.submit(Request(prompt=[7] * 20 + [i], max_tokens=1, sampling=GREEDY)) for i in range(3)]
    assert [{number for number, _ in engine.step()} for _ in range(2)] == [{alike[0]}, set(alike[1:])]


# --- what a bad day does


def test_a_text_that_is_not_finite_ends_alone(letters: Tokenizer) -> None:
    model = make("alternate(dense, banded(9))")
    with torch.no_grad():
        model.wte.weight[19] = torch.nan
    healthy = [
        Request(prompt=[3, i], max_tokens=6, sampling=replace(GREEDY, logit_bias={19: -100.0})) for i in range(3)
    ]
    broken = Request(prompt=[3, 19, 2], max_tokens=6, sampling=GREEDY)
    with torch.no_grad():
        model.lm_head = torch.nn.Linear(18, 20, bias=False)  # so that the embedding is no output
    expected = [alone(model, letters, request) for request in healthy]
    engine = engine_of(model, letters)
    numbers = [engine.submit(request) for request in (healthy[0], broken, *healthy[1:])]
    done, errors = {}, {}
    while engine.busy:
        for number, state in engine.step():
            if state.error is not None:
                errors[number] = str(state.error)
            elif state.ended:
                done[number] = state.completion()
    assert list(errors) == [numbers[1]]
    assert "log-probabilities are not finite" in errors[numbers[1]]
    assert [done[number] for number in (numbers[0], *numbers[2:])] == expected
    assert engine.n_reserved_bytes == 0


def test_a_step_that_fails_ends_what_it_read_and_nothing_else(
    letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(make("dense"), letters, max_rows=2)
    request = Request(prompt=[1, 2, 3], max_tokens=4, sampling=GREEDY)
    expected = alone(make("dense"), letters, request)
    for _ in range(2):
        engine.submit(request)
    last = engine.submit(request)
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "hidden", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    done = drain(engine)
    assert done[last] == expected
    while engine.cache.make_room():
        pass
    assert engine.cache.n_used_bytes == engine.n_reserved_bytes == 0


@pytest.mark.parametrize(
    "pattern", ["dense", "alternate(dense, banded(9))", "alternate(dense, banded(32))", "fixed(24, 3)"]
)
def test_the_room_of_the_largest_requests_is_enough_whatever_is_kept_beside_them(
    letters: Tokenizer, pattern: str
) -> None:
    model, rng = PackedGPT(make(pattern)), random.Random(1)
    shared = [rng.randrange(20) for _ in range(40)]
    for batch_size in (1, 2):
        requests = [
            Request(
                prompt=[*shared[: rng.randint(0, 40)], *(rng.randrange(20) for _ in range(rng.randint(1, 15)))],
                max_tokens=rng.choice([0, 1, 5, 40]),
                prompt_logprobs=True,
                slide=rng.random() < 0.3,
                sampling=GREEDY,
            )
            for _ in range(25)
        ]
        together = complete_requests(model, letters, requests, batch_size=batch_size)
        assert together[3] == complete_requests(model, letters, [requests[3]])[0]


def test_a_cancelled_request_leaves_nothing_behind(letters: Tokenizer) -> None:
    engine = engine_of(make("alternate(dense, banded(9))"), letters, chunk=16, max_rows=2)
    stay = engine.submit(Request(prompt=[1, 2], max_tokens=20, sampling=GREEDY))
    writing = engine.submit(Request(prompt=[3], max_tokens=20, sampling=GREEDY))
    engine.step()
    engine.step()
    queued = engine.submit(Request(prompt=[4] * 30, max_tokens=20, sampling=GREEDY))
    engine.cancel(writing)
    engine.step()  # reads a chunk of the third now
    engine.cancel(queued)
    engine.cancel(queued)
    done = drain(engine)
    assert list(done) == [stay]
    assert done[stay] == alone(
        make("alternate(dense, banded(9))"), letters, Request(prompt=[1, 2], max_tokens=20, sampling=GREEDY)
    )
    while engine.cache.make_room():
        pass
    assert engine.cache.n_used_bytes == engine.n_reserved_bytes == 0


def test_what_can_never_have_room_is_refused_before_it_queues(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, n_texts=1)
    with pytest.raises(ContextTooLong, match="the prompt has 61 tokens, the model's context holds 60"):
        engine.submit(Request(prompt=[1] * 61, max_tokens=1))
    small = Engine(engine.model, letters, cache_bytes=engine.cache_bytes // 2)
    with pytest.raises(
        BadValue, match=r"a request of 40 \+ 20 tokens needs .* bytes of keys and values, the cache has"
    ):
        small.submit(Request(prompt=[1] * 40, max_tokens=20))
    for wrong in ({"max_rows": 0}, {"chunk": 0}, {"chunk": 8}, {"chunk": 24}):
        with pytest.raises(BadValue, match="must be"):
            Engine(engine.model, letters, cache_bytes=0, **wrong)
    for outside in (
        {"prompt": [20]},
        {"prompt": [-1]},
        {"logprob_tokens": [20]},
        {"sampling": Sampling(logit_bias={20: 1.0})},
    ):
        with pytest.raises(BadValue, match="is not in the vocabulary: 0 to 19"):
            engine.submit(Request(**({"prompt": [1], "max_tokens": 1} | outside)))
    assert not engine.busy
    assert engine.step() == []


# --- prompts that begin alike


def counted(engine: Engine) -> list[int]:
    """How many tokens each step reads."""
    counts, hidden = [], engine.model.hidden

    def count(tokens: torch.Tensor, *others: Any) -> torch.Tensor:
        counts.append(tokens.numel())
        return hidden(tokens, *others)

    engine.model.hidden = count  # type: ignore[method-assign]
    return counts


@pytest.mark.parametrize("pattern", ["dense", "alternate(dense, banded(9))", "fixed(8, 2)", "strided(7)"])
def test_what_prompts_begin_with_is_read_once(letters: Tokenizer, pattern: str) -> None:
    engine, shared = engine_of(make(pattern), letters), [5, 3] * 15
    counts = counted(engine)
    for i in range(4):
        engine.submit(Request(prompt=[*shared, i, i + 1], max_tokens=1, sampling=GREEDY))
    drain(engine)
    assert counts == [32, 6]  # the others in one step


def test_of_texts_read_before_the_least_recently_used_goes_first(letters: Tokenizer) -> None:
    engine = engine_of(make("dense"), letters, n_texts=1)
    prompts = [[i] * 15 for i in range(1, 9)]
    for prompt in prompts:
        engine.submit(Request(prompt=prompt, max_tokens=1, sampling=GREEDY))
        drain(engine)
        assert engine.cache.n_used_bytes <= engine.cache_bytes
    counts = counted(engine)
    for prompt in (prompts[-1], prompts[0]):
        engine.submit(Request(prompt=prompt, max_tokens=1, sampling=GREEDY))
        drain(engine)
    assert counts == [1, 15]


def test_the_same_request_again_gives_the_same_completion(random_model: GPT, letters: Tokenizer) -> None:
    request = Request(prompt=[1, 2, 3], max_tokens=8, sampling=WARM, seed=5)
    engine = engine_of(random_model, letters)
    first, second = engine.submit(request), engine.submit(request)
    done = drain(engine)
    assert (
        done[first]
        == done[second]
        == complete(random_model, letters, [[1, 2, 3]], max_tokens=8, sampling=WARM, seed=5)[0]
    )
    other = engine.submit(replace(request, place=1))
    assert drain(engine)[other] != done[first]


def test_tokens_carry_no_gradient_and_gradients_stay_on(random_model: GPT, letters: Tokenizer) -> None:
    alone(random_model, letters, Request(prompt=[1], max_tokens=2))
    assert torch.is_grad_enabled()
