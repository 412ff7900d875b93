"""The number of demonstrations that does best on a development set, which is how the paper chooses K.

Source: Brown et al. 2020, section 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fewshot.base.errors import BadValue, check
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.task import Task
from fewshot.tokenizer.vocab import Tokenizer


def candidates(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to the paper's K, which is always among them."""
    return tuple(sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most}))


def best_shots(
    lm: LanguageModel,
    tokenizer: Tokenizer,
    task: Task,
    shots: Sequence[int],
    *,
    limit: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[int, dict[int, float]]:
    """Return the K of `shots` with the highest main metric on the development set, and the metric at every K.

    The least of equals is taken. Raises BadValue for a task without one, or where none of its questions fits.
    """
    check(len(shots) > 0, f"{task.name}: give at least one number of shots to choose among")
    if task.dev is None:
        raise BadValue(
            f"{task.name} has no development set here, which the best K is chosen on: give numbers to --shots"
        )
    dev = replace(task, episodes=task.dev)
    answered = evaluate(
        lm, tokenizer, dev, shots=shots, limit=limit, seed=seed, batch_size=batch_size, on_progress=on_progress
    )
    values = {result.shots: task.metrics[0].of(result.answers) for result in answered if result.answers}
    if not values:
        raise BadValue(
            f"{task.name}: no question of the development set fits into the model's context of {lm.n_ctx} tokens"
        )
    return max(values, key=lambda k: (values[k], -k)), values
