"""Quantiles of the distributions that 95% intervals are made with."""

from __future__ import annotations

from fewshot.base.errors import check

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
# Two-sided 95% quantiles of Student's t for 1 to 9 degrees of freedom; above, a series is exact to 0.001
STUDENT95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def student95(degrees: int) -> float:
    """Return the two-sided 95% quantile of Student's t. Source: Abramowitz and Stegun 1964, 26.7.5."""
    check(degrees >= 1, f"{degrees} degrees of freedom, must be at least 1")
    if degrees <= len(STUDENT95):
        return STUDENT95[degrees - 1]
    z = Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
