"""A kind of pattern that no file knows works everywhere, from its `allows` alone: slowly, and exactly.

Such kinds are put into the table of patterns, and the tests of kernels, caches, intervals and layouts are run on them.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.kernels import reference
from fewshot.kernels.choose import choose_for
from fewshot.model.gpt import GPT
from fewshot.patterns.layout import density, mask
from fewshot.patterns.pattern import PATTERNS, Dense, Pattern
from fewshot.patterns.schedule import alternate, parse


def loaded(path: str) -> ModuleType:
    """Another file of the tests."""
    name = f"for_unlisted_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


unlisted = loaded("patterns/unlisted.py")
grid, caches = loaded("kernels/test_kernel_agreement.py"), loaded("model/test_paged_cache.py")
intervals, pages = loaded("patterns/test_intervals.py"), loaded("patterns/test_pages.py")
quick_flex = grid._quick_flex
all_patterns = pytest.mark.parametrize("number", range(unlisted.N_PATTERNS))


@pytest.fixture(autouse=True)
def patterns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pattern]]:
    """The kinds, in the table that the parser and the printed names share."""
    for name, kind in unlisted.UNLISTED.items():
        monkeypatch.setitem(PATTERNS, name, kind)
    patterns = unlisted.all_patterns()
    assert len(patterns) == unlisted.N_PATTERNS
    return patterns


@all_patterns
def test_they_are_causal_and_read_themselves_as_every_pattern_must(patterns: list[Pattern], number: int) -> None:
    for head in range(6):
        rows = mask(patterns[number], 41, 41, head=head)
        assert rows.diagonal().all()
        assert not np.triu(rows, 1).any()


@pytest.mark.parametrize(
    ("number", "kernel", "dtype"),
    [
        (number, *case)
        for number, case in itertools.product(range(unlisted.N_PATTERNS), grid.covered())
        if number < len(unlisted.ODD) or case[1] == torch.float32
    ],
    ids=str,
)
def test_every_kernel_agrees_with_the_reference_at_all_lengths(
    patterns: list[Pattern], number: int, kernel: str, dtype: torch.dtype
) -> None:
    grid.compare_over_all_lengths(kernel, patterns[number], dtype)


@all_patterns
def test_the_reference_reads_exactly_what_is_allowed_in_each_head(patterns: list[Pattern], number: int) -> None:
    n, n_heads = 13, 5
    q = torch.zeros(1, n_heads, n, n)
    weights = reference.attend(q, q, torch.eye(n).expand(1, n_heads, n, n), patterns[number])[0]
    for h, q_, k_ in itertools.product(range(n_heads), range(n), range(n)):
        assert bool(weights[h, q_, k_] > 0) == bool(patterns[number].allows(q_, k_, h))


@all_patterns
def test_a_cache_reads_what_the_whole_text_reads(patterns: list[Pattern], number: int) -> None:
    text = patterns[number].text
    for pieces in ([41], [1] * 41, [1, 16, 7, 17], [40, 1]):
        caches.test_reading_in_pieces_with_a_cache_equals_reading_at_once(text, pieces)
    caches.test_a_token_has_the_same_bits_whatever_is_read_beside_it(text, "float32")
    caches.test_the_bytes_of_a_text_are_those_of_the_plan_and_those_that_are_held(text)


@all_patterns
def test_intervals_and_pages_hold_of_every_head(
    patterns: list[Pattern], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "LENGTHS", intervals.LENGTHS[:-1])
    for pattern in patterns[number].for_heads(3):
        assert not pattern.needs_heads
        intervals.test_intervals_hold_every_allowed_pair_exactly_once(pattern)
        intervals.test_intervals_of_a_phase_share_no_query_and_no_key(pattern)
        intervals.test_intervals_lie_within_the_keys_and_never_step_back(pattern)
        intervals.test_pairs_in_blocks_are_those_of_the_mask(pattern)
        for n_ctx in (1, 7, 41):
            pages.test_what_a_query_reads_and_what_is_held_are_as_the_mask_says(pattern, n_ctx)
        pages.test_masks_of_pages_hold_every_key_of_every_query(pattern, 3)


@all_patterns
def test_a_printed_schedule_parses_back(patterns: list[Pattern], number: int) -> None:
    schedule = alternate(patterns[number], Dense(), patterns[0] | patterns[number])
    assert parse(schedule.text) == schedule
    assert parse(schedule.text.upper().replace(" ", "")) == schedule


@all_patterns
def test_a_union_does_not_depend_on_order_and_reads_what_either_does(patterns: list[Pattern], number: int) -> None:
    for other in patterns:
        merged = patterns[number] | other
        assert merged == other | patterns[number]
        for head in range(7):
            either = mask(patterns[number], 23, 23, head=head) | mask(other, 23, 23, head=head)
            assert np.array_equal(mask(merged, 23, 23, head=head), either)


@all_patterns
def test_patterns_show_draws_and_counts_them(
    patterns: list[Pattern], number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = patterns[number].text
    assert main(["patterns", "show", text, "--n", "9"]) == 0
    shown = capsys.readouterr().out
    for head in range(4):
        rows = mask(patterns[number], 9, 9, head=head)
        drawn = "\n".join("".join("#" if rows[q, k] else "." for k in range(q + 1)) for q in range(9))
        assert drawn in shown
    assert main(["patterns", "show", text, "--n", "9", "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer == {
        "pattern": text,
        "density": density(patterns[number], 9),
        "mean_keys_per_query": pytest.approx(5 * density(patterns[number], 9)),
    }


def test_heads_that_differ_are_drawn_by_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["patterns", "show", "perhead(headsteps(2), dense)", "--n", "5"]) == 0
    shown = capsys.readouterr().out
    assert "every layer, head 2 of the first 4: headsteps(2) at head 2" in shown
    assert "every layer, heads 1, 3 of the first 4: dense" in shown


def test_a_model_of_them_learns_by_the_kernels_that_auto_takes(
    patterns: list[Pattern], set_in_module: Callable[[object, str, object], None]
) -> None:
    set_in_module(choose_for, "time_kernels", lambda requirements, kernels: dict.fromkeys(kernels, 1.0))
    model = caches.make(alternate(*patterns[:2]).text)
    requirements = grid.requirements(patterns[0], 13, 13)
    chosen = choose_for(patterns[:2], "auto", requirements)
    assert choose_for(patterns[:2], chosen.names, requirements).names == chosen.names
    other = GPT(model.config, attend=chosen.attend)
    other.load_state_dict(model.state_dict())
    tokens = torch.arange(13)[None] % 11
    losses = [gpt.loss(tokens, tokens) for gpt in (model, other)]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, list(gpt.parameters())) for loss, gpt in zip(losses, (model, other), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


WRONG = {  # what is allowed, and what is said of it
    "all": (lambda q, k, h: k >= 0, "position 0 reads position 1, which comes later"),
    "one ahead": (lambda q, k, h: k <= q + 1, "position 0 reads position 1, which comes later"),
    "blocks that look ahead": (lambda q, k, h: q // 8 == k // 8, "position 0 reads position 1, which comes later"),
    "late": (lambda q, k, h: (k <= q) | (q == 40) & (k == 50), "position 40 reads position 50, which comes later"),
    "one head": (lambda q, k, h: (k <= q) | (h == 2), r"position 0 reads position 1, which comes later \(head 2\)"),
    "only what came before": (lambda q, k, h: k < q, "position 0 does not read itself"),
    "a gap": (lambda q, k, h: (k <= q) & ((q - k) % 3 == 1), "position 0 does not read itself"),
    "columns alone": (lambda q, k, h: (k <= q) & (k % 4 == 0), "position 1 does not read itself"),
    "itself in one head": (lambda q, k, h: (k < q) | (k == q) & (h != 1), r"position 0 does not .* \(head 1\)"),
    "not itself at the end": (lambda q, k, h: (k <= q) & ((k != q) | (q < 63)), "position 63 does not read itself"),
}


@pytest.mark.parametrize(("allows", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_kind_that_is_not_causal_or_does_not_read_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, allows: Callable[..., object], message: str
) -> None:
    name = f"wrong{list(WRONG.values()).index((allows, message))}"  # a text is parsed once
    kind = dataclass(frozen=True)(type(name, (Pattern,), {"allows": lambda self, q, k, h=0: allows(q, k, h)}))
    monkeypatch.setitem(PATTERNS, name, kind)
    for text in (name, f"alternate(dense, {name})", f"{name} | {name}"):
        with pytest.raises(BadValue, match=message):
            parse(text)
