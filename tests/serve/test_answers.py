"""The OpenAPI document is true: requests made from it, allowed and not, get the answers that it tells of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from serving import Server, routes, send

# What a JSON schema cannot say: which tokens and models there are, and which fields contradict each other.
CONFIG = '[checks]\npositive_data_acceptance.expected-statuses = ["2xx", 400, 404]\n'


def fuzzed(server: Server, folder: Path, *words: str) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'fewshot[test]'")
    (folder / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", "all"]
    done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    n_routes = len(routes(server))
    assert n_routes >= 7
    assert f"{n_routes} selected / {n_routes} total" in done.stdout


def test_requests_made_from_the_document_get_the_answers_it_tells_of(server: Server, tmp_path: Path) -> None:
    fuzzed(server, tmp_path, "--phases", "coverage")


@pytest.mark.slow
def test_many_requests_made_from_the_document_do(server: Server, tmp_path: Path) -> None:
    fuzzed(server, tmp_path, "--phases", "fuzzing,stateful", "--max-examples", "200")


def test_no_reference_of_the_document_leads_nowhere(server: Server) -> None:
    _, document = send(server, "GET", "/openapi.json")
    text = json.dumps(document)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    assert "$defs" not in text


def test_what_http_itself_does_not_allow_is_an_error_of_the_same_shape(server: Server) -> None:
    for method, path, expected in (("PUT", "/health", 405), ("GET", "/nowhere%0a", 404), ("GET", "/health/", 404)):
        status, answer = send(server, method, path)
        assert (status, answer["error"]["type"]) == (expected, "invalid_request_error"), path
        assert answer["error"]["message"].isprintable()
