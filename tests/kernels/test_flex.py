from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import flex_attention

from fewshot.kernels import flex, reference
from fewshot.kernels.interface import Requirements
from fewshot.patterns.layout import mask
from fewshot.patterns.pattern import Banded, Columns, Dense, Fixed, Pattern, PerHead, Strided

REQUIREMENTS = Requirements(
    pattern=Banded(4),
    device="cpu",
    dtype=torch.float32,
    n_queries=7,
    n_keys=9,
    documents=False,
    dropout=0.0,
    training=False,
)
BOUNDARIES = [(1, 1, 0), (1, 300, 299), (2, 2, 0), (127, 127, 0), (128, 128, 0), (129, 140, 6), (300, 300, 0)]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def graphs(tracing: None, monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that flex has traced since, which run without being compiled."""
    found = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(flex, "_compiled", torch.compile(flex._attend, dynamic=True, fullgraph=True, backend=backend))
    return found


def tensors(T: int, S: int, B: int = 2, H: int = 3, K: int = 5, **kwargs: object) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(T + S)
    return [torch.randn(B, H, n, K, generator=generator).to(**kwargs) for n in (T, S, S)]


def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(**changes: object) -> str | None:
        return flex.supports(dataclasses.replace(REQUIREMENTS, **changes))

    assert why(device="mps") == "FlexAttention computes on cpu and cuda, not on mps"
    assert why(training=True) == "FlexAttention has no backward on a CPU"
    assert why(documents=True) == "torch's compiler fails on FlexAttention with documents on a CPU"
    assert why(dtype=torch.float64) == "FlexAttention computes float32, bfloat16 and float16, not float64"
    assert why(dropout=0.1) == "FlexAttention has no dropout on attention weights"
    assert why(second_order=True) == "FlexAttention has no second derivative"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert why(device="cuda", training=True) == "FlexAttention needs Triton, which is not installed"
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
    assert why() == "FlexAttention needs AVX2 on a CPU"


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in str(flex.supports(REQUIREMENTS))


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [Dense(), Banded(200), Fixed(128, 8), Strided(300), PerHead(Banded(3), Columns(6, 2) | Strided(4))],
    ids=str,
)
def test_blocks_hold_every_pair_once_and_whole_ones_hold_nothing_else(pattern: Pattern, documents: bool) -> None:
    H = 3
    for T, S, q_start in [*BOUNDARIES, (400, 500, 100)]:
        start, *tables = flex._blocks(pattern.text, H, T, S, q_start, documents, torch.device("cpu"))
        assert start == q_start
        for h in range(H if pattern.needs_heads else 1):
            allowed = torch.from_numpy(mask(pattern, T, S, q_start, h))
            padded = torch.nn.functional.pad(allowed, (0, -S % 128, 0, -T % 128))
            counts = padded.view(padded.shape[0] // 128, 128, -1, 128).sum((1, 3))
            (some, whole), turned = (
                [[set(at[h, i, : n[h, i]].tolist()) for i in range(n.shape[1])] for n, at in both]
                for both in [((tables[i][0], tables[i + 1][0]) for i in places) for places in ((0, 2), (4, 6))]
            )
            for i, row in enumerate(counts):
                full = set() if documents else {j for j, count in enumerate(row.tolist()) if count == 128 * 128}
                assert whole[i] == full
                assert some[i] == set(row.nonzero()[:, 0].tolist()) - full
            for lists, by_key in ((some, turned[0]), (whole, turned[1])):
                assert {(i, j) for i, js in enumerate(lists) for j in js} == {
                    (i, j) for j, rows in enumerate(by_key) for i in rows
                }


def test_one_graph_serves_all_lengths_and_one_more_single_queries(graphs: list[torch.fx.GraphModule]) -> None:
    for T, S, q_start in BOUNDARIES[1:]:
        qkv = tensors(T, S)
        expected = reference.attend(*qkv, Banded(100), q_start=q_start)
        torch.testing.assert_close(flex.attend(*qkv, Banded(100), q_start=q_start), expected)
    assert len(graphs) == 2


def test_numbers_of_a_pattern_are_constants_of_its_graph(graphs: list[torch.fx.GraphModule]) -> None:
    for pattern in (Strided(9), Strided(10)):
        for T in (30, 31):
            flex.attend(*tensors(T, T), pattern)
    assert len(graphs) == 2
    assert "% 9" in graphs[0].print_readable(print_output=False)


def test_a_decode_of_growing_length_traces_one_graph(graphs: list[torch.fx.GraphModule]) -> None:
    q, k, v = tensors(140, 140)
    expected = reference.attend(q, k, v, Fixed(16, 2))
    for t in range(124, 140):
        got = flex.attend(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], Fixed(16, 2), q_start=t)
        torch.testing.assert_close(got, expected[:, :, t : t + 1])
    assert len(graphs) == 1


def test_a_query_reads_keys_of_its_own_document_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # on a CPU it cannot be compiled
    monkeypatch.setattr(flex, "_compiled", flex._attend)
    qkv, documents = tensors(20, 25), torch.stack([torch.arange(25) // 4, torch.arange(25) // 9])
    how = {"q_start": 5, "documents": documents}
    torch.testing.assert_close(flex.attend(*qkv, Strided(2), **how), reference.attend(*qkv, Strided(2), **how))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_it_equals_the_reference_at_the_edges_of_blocks(dtype: torch.dtype) -> None:
    if problem := flex.supports(dataclasses.replace(REQUIREMENTS, dtype=dtype)):
        pytest.skip(problem)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    pattern = PerHead(Banded(150) | Strided(130), Fixed(64, 8))
    for T, S, q_start in BOUNDARIES[2:]:
        qkv = tensors(T, S, K=16, dtype=dtype)
        expected = reference.attend(*qkv, pattern, q_start=q_start)
        got = flex.attend(*qkv, pattern, q_start=q_start)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize("pattern", [Dense(), Banded(100), PerHead(Banded(150) | Strided(130), Fixed(64, 8))], ids=str)
def test_on_cuda_it_equals_the_reference_forward_and_backward(
    pattern: Pattern, with_documents: bool, tracing: None
) -> None:
    for T, S, q_start in BOUNDARIES:
        qkv = [each.requires_grad_() for each in tensors(T, S, K=64, device="cuda", dtype=torch.bfloat16)]
        documents = (torch.arange(S, device="cuda") // 50).expand(2, S) if with_documents else None
        results = []
        for attend in (flex.attend, reference.attend):
            out = attend(*qkv, pattern, q_start=q_start, documents=documents)
            results.append([out, *torch.autograd.grad(out.float().square().sum(), qkv)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=3e-2, atol=3e-2)
