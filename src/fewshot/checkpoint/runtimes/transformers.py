"""What the transformers library computes from an exported folder, beside the model that was exported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.checkpoint.runtimes.compare import (
    Checked,
    NotChecked,
    compare_cached,
    compare_greedy,
    compare_ids,
    compare_logits,
)
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer


def check_with_transformers(
    folder: Path, model: GPT, tokenizer: Tokenizer, *, own_code: bool = False, cache: bool = True
) -> Checked:
    """Compare logits, whole and through the cache, greedy text and ids; raises ExportDiffers.

    `own_code`: whether the class in the folder is used, as `trust_remote_code` has it. Raises ModuleNotFoundError
    where the library is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise
    except (ImportError, RuntimeError) as error:  # it does not fit the other packages here
        raise NotChecked(f"transformers cannot be imported: {' '.join(str(error).split())[:200]}") from None

    by = f"transformers {transformers.__version__}"
    with _quiet(), torch.no_grad():
        place = {"local_files_only": True, "trust_remote_code": own_code}
        theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, **place).eval()
        theirs_tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **place)

        def in_chunks(chunks: Sequence[Tensor]) -> Tensor:
            kept, parts = None, []
            for chunk in chunks:
                answer = theirs(chunk, past_key_values=kept, use_cache=True)
                kept = answer.past_key_values
                parts.append(answer.logits)
            return torch.cat(parts, dim=1)

        def greedy(prompt: list[int], count: int) -> list[int]:
            options = {"do_sample": False, "eos_token_id": None, "pad_token_id": tokenizer.eot}
            written = theirs.generate(torch.tensor([prompt]), max_new_tokens=count, **options)
            return written[0, len(prompt) :].tolist()

        about: dict[str, Any] = {"n_tokens": tokenizer.n_vocab, "by": by}
        lengths, largest, worst = compare_logits(model, lambda tokens: theirs(tokens).logits, **about)
        if cache:
            worst = max(worst, compare_cached(model, in_chunks, **about))
        return Checked(
            by=by,
            lengths=lengths,
            largest_logit=largest,
            largest_difference=worst,
            greedy_tokens=compare_greedy(model, greedy, **about),
            texts=compare_ids(tokenizer, lambda text: theirs_tokenizer(text)["input_ids"], by=by),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the library's warnings and bars, of which none is about the export."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
