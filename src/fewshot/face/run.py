"""A model that is loaded once and used often. In: a run folder, or `hf:PATH`. Out: `Run`; `train_on` makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from fewshot.base.errors import BadValue, ContextTooLong, look_up
from fewshot.base.log import note
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.table import HUB, open_model, path_of
from fewshot.checkpoint.load import load_run
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.evaluate.data.hub import open_data
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.result import Result
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.tasks.table import make_task
from fewshot.face.exports import export_run
from fewshot.generate.complete import complete, stream
from fewshot.generate.sampling import Sampling
from fewshot.kernels.invariant.linear import WEIGHT_TYPES
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.vocab import Tokenizer
from fewshot.train.records.metrics import StepMetrics, read_metrics
from fewshot.train.run import start


class How(TypedDict, total=False):
    """How a text is written."""

    temperature: float
    top_k: int | None
    top_p: float | None
    stop: Sequence[str]
    seed: int


Text = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model with its tokenizer."""

    name: str  # as it was loaded: a run folder, a checkpoint in one, or hf:PATH
    model: GPT
    tokenizer: Tokenizer
    weights: str  # sha256 that tells its weights from others
    checkpoint: Checkpoint | None = None  # that it was read from; None of another program's model
    _packed: PackedGPT = field(repr=False)

    @property
    def config(self) -> GPTConfig:
        """The shape of the model."""
        return self.model.config

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of its run's metrics.jsonl; none of a model that is in no run."""
        run = None if self.checkpoint is None else RunFolder.of_checkpoint(self.checkpoint.path)
        return [] if run is None else read_metrics(run.metrics)

    def generate(self, prompt: str, *, max_tokens: int = 64, **how: Unpack[How]) -> str:
        """Return what the model writes after `prompt`, up to `<|endoftext|>`, a stop text or `max_tokens`.

        `how`: temperature (1.0; 0 is greedy), top_k, top_p, stop (texts), seed (0: the same seed writes the same text).
        Where the context is full, its second half is read anew and the text goes on.
        """
        (written,) = complete(
            self._packed, self.tokenizer, [self._ids(prompt)], max_tokens=max_tokens, slide=True, **_settings(how)
        )
        return written.text

    def stream(self, prompt: str, *, max_tokens: int = 64, **how: Unpack[How]) -> Iterator[str]:
        """Yield the text of `generate` piece by piece, as it is written."""
        yield from stream(
            self._packed, self.tokenizer, self._ids(prompt), max_tokens=max_tokens, slide=True, **_settings(how)
        )

    def logprobs(self, text: str) -> list[tuple[str, float]]:
        """Return every token of `text` with its log-probability in nats, given the end of a text and all before it.

        Raises ContextTooLong where they are more than n_ctx.
        """
        ids = [self.tokenizer.start, *self.tokenizer.encode(text)]
        if len(ids) - 1 > self.config.n_ctx:
            raise ContextTooLong(len(ids) - 1, self.config.n_ctx, "the text")
        if len(ids) == 1:
            return []
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids[:-1]], device=device))[0].float()
        values = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:], device=device)[:, None])[:, 0].tolist()
        return [(self.tokenizer.decode([token]), value) for token, value in zip(ids[1:], values, strict=True)]

    def evaluate(
        self,
        tasks: str | Sequence[str],
        *,
        shots: Sequence[int] = (0, 1, 4),
        limit: int = 200,
        seed: int = 0,
        data: str | None = None,
    ) -> list[Result]:
        """Return every metric of every task for every K in `shots`, with 95% intervals; no weight changes.

        `tasks` are names of `fewshot evaluate list`; those with original files need `data`, their folder. Nothing is
        stored: `fewshot evaluate` does that.
        """
        lm, results = GPTLanguageModel(self.model), []
        for name in [tasks] if isinstance(tasks, str) else tasks:
            task = make_task(name, data=open_data(data))
            answered = evaluate(lm, self.tokenizer, task, shots=shots, limit=limit, seed=seed)
            results += [result for of_k in answered for result in of_k.results()]
        return results

    def export(self, folder: str | Path, *, written_as: str | None = None, check: bool = True) -> str:
        """Write this model for another program, with its card; return a line on what was compared. See `export_run`."""
        if self.checkpoint is None:
            raise BadValue(f"{self.name} is another program's already; convert it to a run, which can be exported")
        return export_run(self.checkpoint.path, path_of(str(folder)), written_as=written_as, check=check)

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt) or [self.tokenizer.eot]


def load(name: str | Path, *, weight_type: str = "float32") -> Run:
    """Return the newest model of a run folder, that of a checkpoint in it, or one of another program at `hf:PATH`.

    Text is written with weights of `weight_type`: float32, bfloat16 or int8.
    """
    text, checkpoint = str(name), None
    look_up("weight type", weight_type, dict.fromkeys(WEIGHT_TYPES, True))
    if text.startswith(HUB):
        model, tokenizer, weights = open_model(text)
    else:
        text = str(path_of(text))
        model, tokenizer, checkpoint = load_run(Path(text))
        weights = checkpoint.weights
    packed = PackedGPT(model, weight_type)
    return Run(name=text, model=model, tokenizer=tokenizer, weights=weights, checkpoint=checkpoint, _packed=packed)


def train_on(
    text: Text,
    out: str | Path,
    *,
    start_from: str | None = None,
    on_step: Callable[[StepMetrics], None] | None = None,
    say: Callable[[str], None] = note,
    **settings: Any,
) -> Run:
    """Train a model on a file or folder of text, or several, in the new run folder `out`, and return it.

    `settings` are those of `fewshot train`: preset, n_tokens, and sections such as `model={"n_layers": 4}`; what is not
    given is chosen, and `say` is told which and why. `start_from` is a model to begin with, a run or `hf:PATH`.
    `on_step` is called after every step. A run that was stopped goes on with `fewshot.resume`.
    """
    texts = [text] if isinstance(text, str | Path) else list(text)
    given: Mapping[str, Any] = {"text": [str(path) for path in texts], **settings}
    if start_from is not None:
        given = {**given, "start": start_from}
    out = path_of(str(out))
    for metrics in start(given, out, say=say):
        if on_step is not None:
            on_step(metrics)
    return load(out)


def _settings(how: How) -> dict[str, Any]:
    for name in how:
        look_up("option", name, How.__annotations__)
    names = ("temperature", "top_k", "top_p")
    sampling = Sampling(**{name: how[name] for name in names if name in how})  # type: ignore[literal-required]
    return {"sampling": sampling, "stop": how.get("stop", ()), "seed": how.get("seed", 0)}
