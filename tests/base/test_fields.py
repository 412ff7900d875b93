from __future__ import annotations

from dataclasses import dataclass, field

from fewshot.base.fields import field_comments


@dataclass(frozen=True)
class Config:
    """Fields with and without comments."""

    width: int = 3  # pixels # of a patch
    # of the paper,
    # in its table 2
    depth: int = 4  # layers
    names: tuple[str, ...] = field(
        default_factory=tuple  # not this one
    )  # of the files
    seed: int = 0


def test_a_comment_is_behind_its_field_or_above_it():
    assert field_comments(Config) == {
        "width": "pixels # of a patch",
        "depth": "of the paper, in its table 2 layers",
        "names": "of the files",
        "seed": "",
    }
