"""The noun of this floor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text with its origin."""

    id: str  # the path, or path#number for the records of one file
    text: str
    source: str  # the dataset that it belongs to
