"""Our models inside lm-evaluation-harness: `--model fewshot --model_args path=RUN`.

The harness (0.4.13) looks for no models outside its own package, so `fewshot lm-eval` registers this one and then hands
all arguments to the harness's own command line.
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from fewshot.base.errors import BadValue, check
from fewshot.evaluate.load import load
from fewshot.evaluate.prompt import cut_span, harness_pair, rolling_spans
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.scoring.answerer import write_all
from fewshot.evaluate.scoring.logprobs import Scorer, Span

MAX_TOKENS = 256  # of an answer, where a task says nothing: the harness's own number
WITHOUT_EFFECT = {"temperature", "top_p", "top_k", "min_p", "typical_p"}


@register_model("fewshot")
class FewshotLM(LM):
    """A run of ours, or any `hf:PATH`; what prompts share at their beginnings is read once."""

    def __init__(self, path: str = "", batch_size: int | str = 32, **ignored: Any) -> None:
        """Load the model at `path`, a run folder or `hf:PATH`.

        The harness adds `device` and `max_batch_size`, which have no meaning here; raises BadValue for other arguments.
        """
        super().__init__()
        unknown = ignored.keys() - {"device", "max_batch_size"}
        if unknown:
            raise BadValue(f"--model fewshot knows no {sorted(unknown)[0]!r}; allowed: path, batch_size")
        check(path != "", "--model fewshot needs --model_args path=RUN, a run folder, or path=hf:FOLDER")
        words = str(batch_size)
        check(words.isdecimal() or words.startswith("auto"), f"batch_size is {words!r}; give a number, or auto")
        self.batch_size = 32 if words.startswith("auto") else int(words)
        self.loaded = load(path)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return (log-probability in nats, whether greedy decoding would write it) of each (context, continuation)."""
        spans = [self._span(*request.args) for request in requests]
        scores = Scorer(self.loaded.lm, batch_size=self.batch_size).score(spans)
        return [(score.logprob, score.greedy) for score in scores]

    def _span(self, context: str, continuation: str) -> Span:
        """Return a span whose scored part is the continuation; raises BadValue where the harness's own models stop."""
        n_ctx = self.loaded.lm.n_ctx
        before, scored = harness_pair(self.loaded.tokenizer, HARNESS, context, continuation)
        what = f"the continuation {continuation[:40]!r} of {context[-40:]!r}"
        check(len(scored) > 0, f"{what} has no token of its own to score: give it text")
        check(len(scored) <= n_ctx, f"{what} has {len(scored):,} tokens, the model's context holds {n_ctx:,}")
        alone = not context or context.strip() or self.loaded.tokenizer.adds_start
        check(bool(alone), f"the context {context!r} is only white space: leave it empty or give it text")
        return cut_span(Span((*before, *scored), len(before)), n_ctx)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-probability in nats of each whole text."""
        tokenizer, lm = self.loaded.tokenizer, self.loaded.lm
        windows = [rolling_spans(tokenizer, request.args[0], lm.n_ctx) for request in requests]
        scores = iter(Scorer(lm, batch_size=self.batch_size).score([span for spans in windows for span in spans]))
        return [sum(next(scores).logprob for _ in spans) for spans in windows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the greedy answer to each context, up to a stop; raises BadValue for sampling."""
        groups: dict[str, list[int]] = {}
        for at, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(at)
        texts = [""] * len(requests)
        for members in groups.values():
            prompts = [requests[at].args[0] for at in members]
            for at, text in zip(members, self._write(prompts, dict(requests[members[0]].args[1])), strict=True):
                texts[at] = text
        return texts

    def _write(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        until, n_new = _read_settings(settings)
        tokenizer, lm = self.loaded.tokenizer, self.loaded.lm
        if n_new >= lm.n_ctx:
            raise BadValue(f"max_gen_toks is {n_new}, the model's context holds {lm.n_ctx}: set it in --gen_kwargs")
        before = [tokenizer.start] if tokenizer.adds_start else []
        room = lm.n_ctx - n_new
        prompts = [[*before, *tokenizer.encode(context)][-room:] or [tokenizer.start] for context in contexts]
        return write_all(
            lm,
            tokenizer,
            prompts,
            batch_size=self.batch_size,
            max_tokens=n_new,
            stop=until,
            beams=1,
            length_penalty=0.0,
        )

    @property
    def tokenizer_name(self) -> str:
        """The name that a chat template is cached by; raises BadValue, as there is no template."""
        raise _no_chat()

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return no template: our models were not trained on conversations; raises BadValue where one is wanted."""
        if chat_template:
            raise _no_chat()
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Raise BadValue: there is no chat template."""
        raise _no_chat()


def _no_chat() -> BadValue:
    return BadValue("--model fewshot has no chat template: remove --apply_chat_template")


def _read_settings(settings: dict[str, Any]) -> tuple[list[str], int]:
    """Return the stops and the number of new tokens, read from settings by the harness itself.

    Raises BadValue for settings that are not honoured. Those of `WITHOUT_EFFECT` change nothing under greedy decoding,
    with the harness's own models too.
    """
    try:
        plain = dict(normalize_gen_kwargs(settings, MAX_TOKENS))
    except (TypeError, ValueError) as error:
        raise BadValue(f"gen_kwargs are not understood: {error}") from None
    if plain.pop("do_sample"):
        raise BadValue("--model fewshot decodes greedily: remove do_sample and temperature from gen_kwargs")
    until, n_new, beams = plain.pop("until"), plain.pop("max_gen_toks"), plain.pop("num_beams", 1)
    unknown = sorted(plain.keys() - WITHOUT_EFFECT)
    if unknown:
        allowed = ", ".join(sorted({"until", "max_gen_toks", "do_sample", "num_beams", *WITHOUT_EFFECT}))
        raise BadValue(f"--model fewshot knows no {unknown[0]!r} in gen_kwargs; allowed: {allowed}")
    check(beams == 1, f"num_beams is {beams}, --model fewshot decodes greedily: remove it from gen_kwargs")
    check(n_new >= 1, f"max_gen_toks is {n_new}, must be at least 1")
    check(all(until), "a stop text is empty: remove it from until")
    return until, n_new
