"""What a model writes while it is trained: completions of one prompt, a line each in samples.jsonl."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from fewshot.base.config import from_plain
from fewshot.base.errors import BadFile, FewshotError
from fewshot.base.files import decode_text, parse_json, read_bytes, to_json, written_whole
from fewshot.generate.complete import complete
from fewshot.generate.sampling import Sampling
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model wrote after a step."""

    step: int
    prompt: str
    text: str


def sample(model: GPT, tokenizer: Tokenizer, prompt: str, *, step: int, max_tokens: int = 60) -> Sample:
    """Return a completion of the prompt; the same model writes the same. The model is left in evaluation mode."""
    model.eval()
    tokens = tokenizer.encode(prompt) or [tokenizer.eot]
    sampling = Sampling(temperature=TEMPERATURE)
    (completion,) = complete(model, tokenizer, [tokens], max_tokens=max_tokens, sampling=sampling, slide=True)
    return Sample(step=step, prompt=prompt, text=completion.text)


def add_sample(new: Sample, path: Path) -> None:
    """Add a line to a samples.jsonl; those of the same step and later, which is done again, are dropped."""
    kept = [old for old in read_samples(path) if old.step < new.step]
    with written_whole(path) as partial:
        lines = [to_json(asdict(line), where=path.name) + "\n" for line in [*kept, new]]
        partial.write_text("".join(lines), encoding="utf-8")


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a file; none if it is not there. A line that is none raises `BadFile` with its number."""
    samples = []
    for number, line in enumerate(read_bytes(path).splitlines() if path.exists() else [], start=1):
        where = f"{path} line {number}"
        try:
            samples.append(from_plain(Sample, parse_json(decode_text(line, where), where), where=where))
        except FewshotError as error:
            raise BadFile(f"{error}; it is not a sample of fewshot train: delete the line") from None
    return samples
