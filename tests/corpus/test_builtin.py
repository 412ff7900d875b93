"""The built-in documents are prose, unique, repeatable and cut to size."""

from __future__ import annotations

import sys

import pytest

from fewshot.base.errors import BadValue
from fewshot.corpus.builtin import builtin_documents


def test_builtin_documents_are_long_unique_prose_within_the_limit() -> None:
    documents = builtin_documents(max_chars=600_000)
    found = [document.text for document in documents]
    assert 500_000 < sum(map(len, found)) <= 600_000
    assert len(set(found)) == len(found)
    assert len({document.id for document in documents}) == len(documents)
    for text in found:
        assert len(text) >= 200
        assert sum(c.isalpha() or c.isspace() for c in text) >= 0.7 * len(text)
    origins = {document.id.split("/")[0] for document in documents}
    assert origins == {"pydoc_data", "python", "numpy", "torch"}
    assert found != sorted(found)


def test_builtin_documents_are_the_same_every_time() -> None:
    assert builtin_documents(max_chars=200_000) == builtin_documents(max_chars=200_000)


def test_builtin_documents_do_without_the_help_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    documents = builtin_documents(max_chars=200_000)
    assert sum(len(document.text) for document in documents) > 100_000
    assert not any(document.id.startswith("pydoc_data") for document in documents)


def test_a_limit_below_one_document_is_refused() -> None:
    with pytest.raises(BadValue, match="max_chars=10 is too few"):
        builtin_documents(max_chars=10)
