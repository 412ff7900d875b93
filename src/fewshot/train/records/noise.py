"""The gradient noise scale: how many tokens a batch may have before more of them say little that is new.

In: the norm of the gradient of a whole batch and of its first part, which training has anyway. Out: two numbers a step
whose means give the scale. Source: McCandlish et al. 2018, appendix A.1; Brown et al. 2020, section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def noise_and_signal(
    norm: float, small_norm: float | None, *, n_tokens: int, small_tokens: int
) -> tuple[float, float] | tuple[None, None]:
    """Return unbiased estimates of the trace of a token's gradient covariance, and of the true gradient's square.

    `norm` is that of the mean gradient over `n_tokens`, `small_norm` that of a part of `small_tokens` of them. One
    estimate says little and may be negative; the ratio of their means is the scale. None where nothing can be said.
    """
    if small_norm is None or not math.isfinite(norm + small_norm) or not 0 < small_tokens < n_tokens:
        return None, None
    noise = (small_norm**2 - norm**2) / (1 / small_tokens - 1 / n_tokens)
    signal = (n_tokens * norm**2 - small_tokens * small_norm**2) / (n_tokens - small_tokens)
    return noise, signal


def noise_scale(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the gradient noise scale in tokens over these rows of metrics; None if they do not tell it."""
    known = [row for row in rows if row.get("grad_noise") is not None]
    noise, signal = (sum(row[name] for row in known) for name in ("grad_noise", "grad_signal"))
    return noise / signal if known and signal > 0 and noise > 0 else None
