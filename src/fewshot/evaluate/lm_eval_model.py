"""Our models inside lm-evaluation-harness: `--model fewshot --model_args path=RUN`.

The harness (0.4.13) looks for no models outside its own package, so `fewshot lm-eval` registers this one and then hands
all arguments to the harness's own command line.
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from fewshot.base.errors import BadValue, check
from fewshot.evaluate.answers import write_all
from fewshot.evaluate.models import load
from fewshot.evaluate.prompt import cut_span, make_span, rolling_spans
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.score import Scorer

MAX_TOKENS = 256  # of an answer, where a task says nothing: the harness's own number


@register_model("fewshot")
class FewshotLM(LM):
    """A run of ours, or any `hf:PATH`, read with shared beginnings."""

    def __init__(self, path: str, batch_size: int | str = 32, **ignored: Any) -> None:
        """`path` is a run folder; of what the harness adds, `device` and `max_batch_size` have no meaning here.

        Raises BadValue for another argument.
        """
        super().__init__()
        unknown = ignored.keys() - {"device", "max_batch_size"}
        if unknown:
            raise BadValue(f"--model fewshot knows no {sorted(unknown)[0]!r}; allowed: path, batch_size")
        words = str(batch_size)
        check(words.isdecimal() or words.startswith("auto"), f"batch_size is {words!r}; give a number, or auto")
        self.batch_size = 32 if words.startswith("auto") else int(words)
        self.loaded = load(path)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding would write it) of each (context, continuation)."""
        tokenizer, reader = self.loaded.tokenizer, self.loaded.reader
        spans = [cut_span(make_span(tokenizer, HARNESS, *request.args), reader.n_ctx) for request in requests]
        return [(one.logprob, one.greedy) for one in Scorer(reader, batch_size=self.batch_size).score(spans)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability in nats of each whole text."""
        tokenizer, reader = self.loaded.tokenizer, self.loaded.reader
        windows = [rolling_spans(tokenizer, request.args[0], reader.n_ctx) for request in requests]
        scores = iter(Scorer(reader, batch_size=self.batch_size).score([one for spans in windows for one in spans]))
        return [sum(next(scores).logprob for _ in spans) for spans in windows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The greedy answer to each context, up to a stop; sampling is refused with BadValue."""
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
        if settings.get("do_sample") or settings.get("temperature"):
            raise BadValue("--model fewshot writes greedily: take do_sample and temperature out of gen_kwargs")
        tokenizer, reader = self.loaded.tokenizer, self.loaded.reader
        until = settings.get("until") or []
        n_new = int(settings.get("max_gen_toks", MAX_TOKENS))
        if n_new >= reader.n_ctx:
            raise BadValue(f"max_gen_toks is {n_new}, the model's context holds {reader.n_ctx}: set it in --gen_kwargs")
        before = [tokenizer.start] if tokenizer.adds_start else []
        room = reader.n_ctx - n_new
        prompts = [[*before, *tokenizer.encode(context)][-room:] or [tokenizer.start] for context in contexts]
        return write_all(
            reader,
            tokenizer,
            prompts,
            batch_size=self.batch_size,
            max_tokens=n_new,
            stop=[until] if isinstance(until, str) else until,
            beams=1,
            length_penalty=0.0,
        )
