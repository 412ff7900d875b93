from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import N_CTX, Server, begin, running, send, tiny_model, wait_until


@pytest.fixture
def fresh() -> Iterator[Server]:
    """A server that nobody has asked anything."""
    yield from running(*tiny_model())


def scraped(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(server.url + "/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        text = answer.read().decode()
    return {
        sample.name + "".join(f".{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_tokens_and_times_are_counted_exactly(fresh: Server) -> None:
    prompt = "the cat sat on the mat."
    usages = [
        send(fresh, "POST", "/v1/completions", {"prompt": prompt, "max_tokens": n, "n": 2})[1]["usage"] for n in (4, 9)
    ]
    seen = scraped(fresh)
    written = sum(usage["completion_tokens"] for usage in usages)
    assert seen["fewshot_generation_tokens_total"] == written
    assert seen["fewshot_prompt_tokens_total"] == 2 * sum(usage["prompt_tokens"] for usage in usages)
    assert 0 < seen["fewshot_prompt_tokens_cached_total"] < seen["fewshot_prompt_tokens_total"]
    ended = [seen.get(f"fewshot_requests_total.{reason}", 0) for reason in ("stop", "length")]
    assert sum(ended) == 4
    assert seen["fewshot_time_to_first_token_seconds_count"] == 4
    assert seen["fewshot_inter_token_latency_seconds_count"] == written - 4
    assert seen["fewshot_e2e_request_latency_seconds_count"] == 4
    assert seen["fewshot_e2e_request_latency_seconds_sum"] >= seen["fewshot_time_to_first_token_seconds_sum"] > 0


def test_what_runs_and_waits_is_told_and_is_nothing_in_the_end(fresh: Server) -> None:
    bias = {str(fresh.tokenizer.eot): -100}
    body = {"prompt": "the", "max_tokens": N_CTX - 10, "n": 128, "stream": True, "logit_bias": bias}
    connection = begin(fresh, body)
    wait_until(lambda: scraped(fresh).get("fewshot_num_requests_running", 0) > 0)
    seen = scraped(fresh)
    assert seen["fewshot_num_requests_running"] + seen["fewshot_num_requests_waiting"] <= 128
    assert seen["fewshot_kv_cache_reserved_bytes"] > 0
    connection.close()

    def is_over(seen: dict[str, float]) -> bool:
        ended = sum(value for name, value in seen.items() if name.startswith("fewshot_requests_total."))
        gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_reserved_bytes")
        return ended == 128 and not any(seen[f"fewshot_{name}"] for name in gauges)

    wait_until(lambda: is_over(scraped(fresh)))
    assert scraped(fresh)["fewshot_requests_total.abort"] > 0
