"""What test_unlisted.py runs in a process of its own: Triton's kernels on patterns that no file knows."""

from __future__ import annotations

import torch
from unlisted import UNLISTED, Beginning, EveryThird, HeadSteps

from fewshot.kernels import reference, triton_strips
from fewshot.patterns.pattern import PATTERNS, Strided

if __name__ == "__main__":
    PATTERNS.update(UNLISTED)
    generator = torch.Generator().manual_seed(0)
    for pattern in (EveryThird() | Strided(4), HeadSteps(2), Beginning(2, 3)):
        qkv = [torch.randn(1, 3, n, 5, generator=generator).requires_grad_() for n in (11, 13, 13)]
        results = [attend(*qkv, pattern, q_start=2) for attend in (triton_strips.attend, reference.attend)]
        weights = torch.randn(results[0].shape, generator=generator)
        gradients = [torch.autograd.grad((result * weights).sum(), qkv) for result in results]
        for one, other in zip([results[0], *gradients[0]], [results[1], *gradients[1]], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
