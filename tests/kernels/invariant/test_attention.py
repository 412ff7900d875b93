from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.kernels import reference
from fewshot.kernels.invariant.attention import GROUP, PageBatch, Units, attend_pages, new_pages, write_pages
from fewshot.patterns.pages import PAGE, page_list
from fewshot.patterns.pattern import Banded, Dense, Fixed, Pattern


def batch_of(pattern: Pattern, table: list[int], groups: list[tuple[int, int]]) -> PageBatch:
    """What queries read, in groups of (first position, number); pages lie where the table says."""
    lists = [page_list(pattern, first, n, GROUP) for first, n in groups]
    return PageBatch(
        np.cumsum([n for _, n in groups]),
        np.cumsum([len(pages) for pages, _ in lists]),
        np.array([table[number] for pages, _ in lists for number in pages], dtype=np.int32),
        np.concatenate([masks for _, masks in lists]),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pattern", [Dense(), Banded(9), Fixed(8, 2)], ids=str)
@pytest.mark.parametrize("width", [3, 16, 40, 64, 80])
def test_a_query_is_right_and_has_the_same_bits_in_any_group(pattern: Pattern, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    T, n_heads, units = 50, 5, Units(slice(1, None, 2), 3)  # heads 1 and 3 are units 3 and 4
    q, k, v = (torch.randn(T, n_heads, width) for _ in range(3))
    cache, table = new_pages(9, 6, width, dtype), [7, 2, 5, 0]
    write_pages(cache, units, k, v, torch.tensor([table[t // PAGE] * PAGE + t % PAGE for t in range(T)]))
    assert cache.count_nonzero() <= 2 * 2 * T * width

    def attend(groups: list[tuple[int, int]]) -> torch.Tensor:
        rows = [t for first, n in groups for t in range(first, first + n)]
        out = torch.full((len(rows), n_heads, width), -7.0)
        attend_pages(q[rows], cache, units, batch_of(pattern, table, groups), out)
        assert (out[:, ::2] == -7.0).all()
        return out[:, 1::2]

    alone = torch.cat([attend([(t, 1)]) for t in range(T)])
    stored = [x.to(dtype).float().transpose(0, 1)[None] for x in (k, v)]
    expected = reference.attend(q.transpose(0, 1)[None], *stored, pattern)[0].transpose(0, 1)[:, 1::2]
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    for size in (2, 3, 4):
        assert torch.equal(attend([(t, min(size, T - t)) for t in range(0, T, size)]), alone)
    order = [(31, 4), (2, 1), (44, 3), (0, 2)]
    assert torch.equal(attend(order), torch.cat([alone[first : first + n] for first, n in order]))


def test_rows_of_a_wider_matrix_are_read_where_they_lie() -> None:
    joint = torch.randn(20, 3 * 2 * 8)
    q, k, v = (part.view(20, 2, 8) for part in joint.split(16, dim=1))
    cache, units = new_pages(2, 2, 8, torch.float32), Units(slice(0, None, 1), 0)
    results = []
    for parts in ((q, k, v), (q.contiguous(), k.contiguous(), v.contiguous())):
        write_pages(cache, units, parts[1], parts[2], torch.arange(20))
        out = torch.empty(20, 2, 8)
        attend_pages(parts[0], cache, units, batch_of(Dense(), [0, 1], [(t, 4) for t in range(0, 20, 4)]), out)
        results.append(out)
    assert torch.equal(*results)


def test_what_other_texts_left_in_a_page_changes_nothing() -> None:
    q, k, v = (torch.randn(5, 1, 16) for _ in range(3))
    units, batch = Units(slice(0, None, 1), 0), batch_of(Dense(), [0], [(0, 4), (4, 1)])
    results = []
    for left in (0.0, 1e30, torch.nan, torch.inf):
        cache = new_pages(1, 1, 16, torch.float32) + left
        write_pages(cache, units, k, v, torch.arange(5))
        out = torch.empty(5, 1, 16)
        attend_pages(q, cache, units, batch, out)
        results.append(out)
    assert all(torch.equal(result, results[0]) for result in results)
    assert results[0].isfinite().all()


def test_a_cache_takes_memory_only_as_it_is_written() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident_bytes()
    cache = new_pages(1 << 16, 64, 16, torch.bfloat16)  # 4 GiB
    assert cache.nbytes == 1 << 32
    assert resident_bytes() - before < 1 << 26
