"""`fewshot serve` under attack: a real process on a small random model, honest clients that stream all the while.

    PYTHONPATH=src python benchmarks/attack.py --out benchmarks/results/attack.json

Each attack stands between two calm stretches; the ratio is of its 99th percentile of the time between two events of an
honest stream over theirs. Threads, file descriptors, requests and reserved bytes are counted before and after, and
memory once everything was done on half the scale. The attacks are those of tests/serve/attacks.py.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing as mp
import os
import random
import selectors
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))
import attacks

from fewshot.bench.hardware import hardware

SHAPE = {"n_layers": 4, "d_model": 128, "n_heads": 4, "n_ctx": 512}
N_HONEST, N_SLOW, N_SILENT, N_DROPS = 4, 100, 20, 50  # drops: of each kind
CALM_SECONDS = 6.0
LIMIT_SECONDS = 20 + 20 + 10  # in which a client that asks slowly or reads nothing is to be cut off
Row = dict[str, Any]


def serve(words: list[str]) -> None:
    """Run `fewshot serve`, and for each line on standard input write what the worker holds."""
    from fewshot.cli.main import main
    from fewshot.serve import worker

    class ToldWorker(worker.Worker):
        def start(self) -> None:
            super().start()
            threading.Thread(target=self.tell, daemon=True).start()

        def tell(self) -> None:
            for _ in sys.stdin:
                told = {"requests": self.n_open, "reserved_bytes": self.engine.n_reserved_bytes}
                print(json.dumps({**told, "room": self.room.n_open + self.room.n_values}), flush=True)

    worker.Worker = ToldWorker  # type: ignore[misc]
    sys.exit(main(["serve", *words]))


def be_honest(port: int, end: Event, sink: Any) -> None:
    """Stream one completion after another; send back the moment and the length of every gap between two events."""
    gaps: list[tuple[float, float]] = []
    for number in range(1 << 30):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = {"prompt": f"it was the {number}", "max_tokens": 200, "stream": True, "logit_bias": {"0": -100}}
        connection.request("POST", "/v1/completions", json.dumps(body))
        answer, last = connection.getresponse(), None
        for line in answer:
            if line.startswith(b"data: "):
                now = time.monotonic()
                if last is not None:
                    gaps.append((now, now - last))
                elif number == 0:
                    sink.put("begun")
                last = now
            if end.is_set():
                sink.put(gaps)
                return
        connection.close()


class Target:
    """A server as a process, and what can be seen of it."""

    def __init__(self, folder: Path) -> None:
        text, run = folder / "text.txt", folder / "run"
        text.write_text("it was the best of times, it was the worst of times. " * 400, encoding="utf-8")
        shape = [word for name, value in SHAPE.items() for word in (f"--model.{name}", str(value))]
        words = ["train", "--text", str(text), "--out", str(run), "--n_tokens", "2048", "--data.n_vocab", "300"]
        fewshot = [sys.executable, "-m", "fewshot"]
        subprocess.run([*fewshot, *words, *shape, "--schedule.batch_tokens", "1024"], check=True, capture_output=True)
        command = [sys.executable, __file__, "--serve", str(run), "--port", "0", "--cache_mb", "64"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        line = next(line.decode() for line in self.process.stderr if line.startswith(b"serving "))
        self.port = int(line.split(":")[2].split("/")[0])

    def held(self) -> dict[str, int]:
        """Return what the process and its worker hold."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return {**attacks.held(self.process.pid), **json.loads(self.process.stdout.readline())}

    def wait_until_quiet(self) -> dict[str, int]:
        """Return what is held once no request is left; raises after a minute."""
        deadline = time.monotonic() + 60
        while (held := self.held())["requests"] or held["room"]:
            assert time.monotonic() < deadline, held
            time.sleep(0.1)
        time.sleep(6)  # connections that are kept alive end
        return self.held()


def bodies(port: int, n: int, seed: int) -> Row:
    """Send bad bodies over two connections at once."""
    counts: Counter[str] = Counter()
    in_threads(2, lambda i: counts.update(attacks.statuses(port, attacks.bad_bodies(n // 2, seed=seed + i))))
    n_5xx = sum(count for status, count in counts.items() if status.startswith("5"))
    return {"answers": dict(sorted(counts.items())), "5xx": n_5xx, "hangs": counts["hang"]}


def slow_connections(port: int, n: int) -> Row:
    """Send a byte of headers every half second over many connections, until the server ends them."""
    began, connections = time.monotonic(), [attacks.connect(port) for _ in range(n)]
    n_left = attacks.dribble(connections, b"GET / HTTP/1.1\r\n" + b"X" * 2 * LIMIT_SECONDS, pause_seconds=0.5)
    for connection in connections:
        connection.close()
    return {"connections": n, "not_ended": n_left, "ended_after_seconds": round(time.monotonic() - began, 1)}


def drops(port: int, n: int, eot: int) -> Row:
    """Go away in the queue, in prefill, in decode and in a stream, ten at a time."""
    for _ in range(n // 10):
        for when in attacks.WHENS:
            attacks.drop(port, when, 10, n_ctx=SHAPE["n_ctx"], eot=eot)
            time.sleep(0.2)
    return {"of_each_kind": n, "kinds": list(attacks.WHENS)}


def long_stream(eot: int) -> Row:
    """Return a request for a stream of some megabytes."""
    return {"prompt": "it", "max_tokens": 500, "logprobs": 20, "stream": True, "logit_bias": {str(eot): -100}}


def silent_clients(target: Target, n: int, eot: int) -> Row:
    """Ask for long streams and read nothing, until the server has cut all off."""
    before = target.held()["file_descriptors"]
    began, connections = time.monotonic(), []
    for _ in range(n):
        connections.append(attacks.ask(attacks.connect(target.port, received_bytes=1 << 12), long_stream(eot)))
        time.sleep(0.05)
    while target.held()["file_descriptors"] > before and time.monotonic() - began < LIMIT_SECONDS:
        time.sleep(0.5)
    left = max(0, target.held()["file_descriptors"] - before)
    for connection in connections:
        connection.close()
    return {"clients": n, "not_ended": left, "ended_after_seconds": round(time.monotonic() - began, 1)}


def reading_clients(port: int, n: int, eot: int) -> Row:
    """Ask for the same as the silent clients, and read it: what as many ordinary clients cost the others."""
    began, selector = time.monotonic(), selectors.DefaultSelector()
    for _ in range(n):
        selector.register(attacks.ask(attacks.connect(port), long_stream(eot)), selectors.EVENT_READ)
        time.sleep(0.05)
    while selector.get_map():
        for key, _ in selector.select():
            if not key.fileobj.recv(1 << 16):  # type: ignore[union-attr]
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    return {"clients": n, "ended_after_seconds": round(time.monotonic() - began, 1)}


def fill_the_cache(port: int) -> None:
    """Complete long prompts, several at once, so that what keeps them, and the pool of threads, grow no more."""

    def body() -> bytes:
        prompt = [random.randrange(256) for _ in range(SHAPE["n_ctx"] - 9)]
        return json.dumps({"prompt": prompt, "max_tokens": 1}).encode()

    in_threads(8, lambda _: attacks.statuses(port, (body() for _ in range(8))))


def in_threads(n: int, work: Callable[[int], object]) -> None:
    """Do something in several threads at once."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def endless_body(port: int, n_bytes: int) -> Row:
    """Send a chunked body of a gigabyte, again and again for some seconds: each is refused at once."""
    tries, began = [], time.monotonic()
    while time.monotonic() - began < CALM_SECONDS:
        tries.append(attacks.send_without_end(port, n_bytes))
        time.sleep(0.2)
    answers = dict(Counter(status for _, status in tries))
    return {"bytes": n_bytes, "most_bytes_taken": max(n_sent for n_sent, _ in tries), "answers": answers}


def p99(gaps: list[tuple[float, float]], start: float, end: float) -> float:
    """Return the 99th percentile of the gaps that ended between two moments."""
    own = sorted(gap for moment, gap in gaps if start <= moment <= end)
    assert own, "the honest clients were given nothing"
    return own[int(0.99 * (len(own) - 1))]


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1, help="turns of all attacks")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        try:
            result = measure(target, n_bodies=given.bodies, rounds=given.rounds)
        finally:
            target.process.terminate()
            target.process.wait(60)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measure(target: Target, *, n_bodies: int, rounds: int) -> Row:
    """Do each attack between two calm stretches; return all that was counted."""
    port, eot = target.port, 0
    tries: dict[str, Callable[[float], Row]] = {
        "bad_bodies": lambda scale: bodies(port, int(n_bodies * scale), seed=int(scale * 10)),
        "slow_connections": lambda scale: slow_connections(port, int(N_SLOW * scale)),
        "drops": lambda scale: drops(port, int(N_DROPS * max(scale, 0.2)), eot),
        "silent_clients": lambda scale: silent_clients(target, int(N_SILENT * scale), eot),
        "reading_clients": lambda scale: reading_clients(port, int(N_SILENT * scale), eot),
        "endless_body": lambda scale: endless_body(port, int(2**30 * scale)),
    }
    fill_the_cache(port)
    for attack in tries.values():  # threads, caches and arenas that stay are there before anything is counted
        attack(0.5)
    before = target.wait_until_quiet()
    context = mp.get_context("spawn")
    end, sink = context.Event(), context.Queue()
    honest = [context.Process(target=be_honest, args=(port, end, sink)) for _ in range(N_HONEST)]
    for process in honest:
        process.start()
    for _ in honest:
        assert sink.get(timeout=120) == "begun"
    windows: list[tuple[str, float, float]] = []
    rows: dict[str, Row] = {}

    def stretch(name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        answer = work()
        windows.append((name, start, time.monotonic()))
        return answer

    os.nice(4)  # the attackers' own work is not to hold up what is measured: all share the cores
    stretch("calm", lambda: time.sleep(CALM_SECONDS))
    for _ in range(rounds):
        for name, attack in tries.items():
            rows[name] = stretch(name, lambda attack=attack: attack(1.0))
            rows[name]["load_average"] = round(os.getloadavg()[0], 1)
            stretch("calm", lambda: time.sleep(CALM_SECONDS))
            print(name, rows[name], flush=True)
    end.set()
    gaps = [gap for _ in honest for gap in sink.get(timeout=60)]
    for process in honest:
        process.join()
    for name, row in rows.items():
        own = [i for i, window in enumerate(windows) if window[0] == name]
        with_attack = [p99(gaps, *windows[i][1:]) for i in own]
        calm = [statistics.mean(p99(gaps, *windows[j][1:]) for j in (i - 1, i + 1)) for i in own]
        row["honest_p99_gap_ms"] = [round(1000 * value, 2) for value in with_attack]
        row["calm_p99_gap_ms"] = [round(1000 * value, 2) for value in calm]
        row["ratio"] = round(statistics.median(a / b for a, b in zip(with_attack, calm, strict=True)), 2)
    after = target.wait_until_quiet()
    return {
        "bench": "attack",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**hardware(), **{name: version(name) for name in ("uvicorn", "httptools", "uvloop", "fastapi")}},
        "load": "the machine was shared: load averages stand beside each attack, the clients run on the same cores",
        "model": SHAPE,
        "honest_clients": N_HONEST,
        "honest_gaps": len(gaps),
        "attacks": rows,
        "before": before,
        "after": after,
        "memory_ratio": round(after["memory_bytes"] / before["memory_bytes"], 4),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    else:
        main()
