"""How `edgenn serve` stands under load: throughput beside a plain loop, overload, and malformed bodies.

    python tools/bench_serve.py MODEL PHOTOS [--labels FILE] [--seconds 10] [--rounds 3] [--malformed 10000]

Rounds alternate between the loop (one process per core, each decoding and invoking with one thread: what `edgenn tag`
does, without its reading and writing) and wrk with 32 connections, so that a machine that is not quiet slows both. wrk
shares the cores with the server; its processor time is told. Then wrk with 2 and 4 times the connections that find a
place, and the malformed bodies. Needs wrk (Debian: apt-get install wrk). Prints one JSON document on stdout.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
from malformed_bodies import malformed

CONNECTIONS = 32
_TICK = os.sysconf("SC_CLK_TCK")

# Requests are made once: the load generator is to cost little.
_WRK = """
local requests, next = {}, 0
for path in io.open("%(list)s"):lines() do
  local file = io.open(path, "rb")
  requests[#requests + 1] = file:read("*a")
  file:close()
end
init = function()
  for i, body in ipairs(requests) do
    requests[i] = wrk.format("POST", "/classify", {["Content-Type"] = "image/jpeg"}, body)
  end
end
request = function()
  next = next %% #requests + 1
  return requests[next]
end
done = function(summary, latency)
  io.write(string.format('\\nRESULT {"requests": %%d, "refused": %%d, "socket_errors": %%d, "seconds": %%f, ' ..
    '"p50_ms": %%f, "p99_ms": %%f}\\n', summary.requests, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("photos", type=Path, help="a folder of JPEGs, or one")
    parser.add_argument("--labels")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--size", default="400x533", help="use only photos of WIDTHxHEIGHT; empty: all")
    options = parser.parse_args()
    photos = chosen(options.photos, options.size)
    say(f"{len(photos)} photos, {statistics.mean(p.stat().st_size for p in photos) / 1000:.0f} kB each")
    with tempfile.TemporaryDirectory() as folder, served(options.model, options.labels) as (server, url):
        script = Path(folder) / "post.lua"
        (Path(folder) / "list").write_text("".join(f"{photo}\n" for photo in photos))
        script.write_text(_WRK % {"list": Path(folder) / "list"})
        wrk(url, script, CONNECTIONS, 2, server)  # warm
        report: dict[str, Any] = {"photos": len(photos), "cores": len(os.sched_getaffinity(0))}
        report["throughput"] = throughput(options, photos, server, url, script)
        report["overload"] = [overload(url, script, server, n, options.seconds) for n in (2, 4)]
        report["malformed"] = refusals(url, server, photos[0].read_bytes(), options.malformed)
    print(json.dumps(report, indent=1))


def throughput(options: Any, photos: list[Path], server: int, url: str, script: Path) -> dict[str, Any]:
    loops, services = [], []
    for number in range(options.rounds):
        loops.append(loop(options.model, options.labels, photos, options.seconds))
        services.append(wrk(url, script, CONNECTIONS, options.seconds, server))
        say(f"round {number + 1}: loop {loops[-1]['per_second']:.0f}/s, serve {services[-1]['per_second']:.0f}/s")
    ratios = [service["per_second"] / loop["per_second"] for loop, service in zip(loops, services, strict=True)]
    # Less in doubt than the rates where other programs run: processor time is only counted while it is ours.
    cpu = [loop["cpu_ms"] / service["server_cpu_ms"] for loop, service in zip(loops, services, strict=True)]
    return {
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "cpu_ratio": statistics.median(cpu),
        "loop": loops,
        "serve": services,
    }


def loop(model: str, labels: str | None, photos: list[Path], seconds: float) -> dict[str, float]:
    """Pictures a second of one process per core, each with one interpreter thread."""
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    begin, results = context.Barrier(cores), context.Queue()
    arguments = (model, labels, photos, seconds, begin, results)
    processes = [context.Process(target=_loop, args=arguments) for _ in range(cores)]
    for process in processes:
        process.start()
    done = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return {
        "per_second": sum(n / wall for n, wall, _ in done),
        "cpu_ms": 1000 * sum(c for *_, c in done) / sum(n for n, *_ in done),
    }


def _loop(model: str, labels: str | None, photos: list[Path], seconds: float, begin: Any, results: Any) -> None:
    from edgenn_device.classifier import Classifier

    cv2.setNumThreads(1)
    classifier = Classifier(model, labels=labels, threads=1)
    pictures = [photo.read_bytes() for photo in photos]
    classifier.classify(pictures[0])
    begin.wait()
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        classifier.classify(pictures[count % len(pictures)])
        count += 1
    results.put((count, time.perf_counter() - began, time.process_time() - cpu))


def wrk(url: str, script: Path, connections: int, seconds: float, server: int) -> dict[str, Any]:
    """Answers a second (200 only), latency over all answers, and who used the processor."""
    before = cpu_seconds(server)
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script), url]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, _, used = os.wait4(process.pid, 0)
    found = re.search(r"RESULT (\{.*\})", output)
    if not found:
        raise SystemExit(f"wrk failed:\n{output}")
    result = json.loads(found[1])
    answered = result["requests"] - result["refused"]
    spent = cpu_seconds(server) - before
    return {
        "connections": connections,
        "per_second": answered / result["seconds"],
        "refused_per_second": result["refused"] / result["seconds"],
        "socket_errors": result["socket_errors"],
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "server_cpu_ms": 1000 * spent / max(1, answered),
        "wrk_cores": (used.ru_utime + used.ru_stime) / result["seconds"],
    }


def overload(url: str, script: Path, server: int, times: int, seconds: float) -> dict[str, Any]:
    """wrk with `times` the connections of the throughput, and the server's memory around it."""
    settle(url)
    before, accepted = rss(server), histogram(url)
    result = wrk(url, script, times * CONNECTIONS, seconds, server)
    after = histogram(url)
    within = {edge: after[edge] - accepted.get(edge, 0) for edge in after}
    total = within["+Inf"]
    p99 = next(edge for edge, count in within.items() if count >= 0.99 * total)
    say(
        f"{times * CONNECTIONS} connections: {result['per_second']:.0f} answered and "
        f"{result['refused_per_second']:.0f} refused a second, {rss(server) - before:+.1f} MB"
    )
    return {**result, "accepted_p99_below_seconds": p99, "rss_mb": [before, rss(server)]}


def refusals(url: str, server: int, jpeg: bytes, count: int) -> dict[str, Any]:
    """`count` malformed bodies over 4 connections: how many of each status, and is it still serving?"""
    settle(url)
    name = json.loads(ask(url, "POST", "/classify", jpeg)[1])["model"]
    bodies = list(islice(malformed(jpeg, f"/v2/models/{name}/infer"), count))
    before, statuses = rss(server), Counter[int]()
    began = time.perf_counter()

    def send(share: list[Any]) -> None:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        for request in share:
            connection.request("POST", request.path, request.body, request.headers)
            response = connection.getresponse()
            error = json.loads(response.read())
            statuses[response.status] += 1
            if not 400 <= response.status < 500 or set(error) != {"error"}:
                say(f"{request.kind}: {response.status} {error}")

    threads = [threading.Thread(target=send, args=(bodies[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status, _ = ask(url, "POST", "/classify", jpeg)
    return {
        "statuses": dict(statuses),
        "all_4xx": sum(n for s, n in statuses.items() if 400 <= s < 500) == count,
        "per_second": count / (time.perf_counter() - began),
        "still_serving": status == 200,
        "rss_mb": [before, rss(server)],
    }


@contextmanager
def served(model: str, labels: str | None) -> Iterator[tuple[int, str]]:
    """A server on a free port: its process id and URL."""
    command = [sys.executable, "-c", "from edgenn.cli import main; main()", "serve", model, "--port", "0", "--json"]
    process = subprocess.Popen([*command, *(["--labels", labels] if labels else [])], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(process.wait())
    try:
        yield process.pid, json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        say(f"the server ended with status {process.wait()}")


def chosen(photos: Path, size: str) -> list[Path]:
    found = sorted(photos.rglob("*.jpg")) if photos.is_dir() else [photos]
    if size and photos.is_dir():
        width, height = map(int, size.split("x"))
        found = [path for path in found[:400] if cv2.imread(str(path)).shape[:2] == (height, width)]
    if not found:
        raise SystemExit(f"no JPEG of {size} in {photos}")
    return [path.resolve() for path in found[:100]]


def ask(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


def settle(url: str) -> None:
    """Wait until nothing is left in the server of what was measured before."""
    while b"edgenn_in_flight 0.0" not in ask(url, "GET", "/metrics")[1]:
        time.sleep(0.1)


def histogram(url: str) -> dict[str, float]:
    """Cumulative counts of /classify's latencies by upper bound in seconds."""
    text = ask(url, "GET", "/metrics")[1].decode()
    lines = re.findall(r'edgenn_request_seconds_bucket\{endpoint="classify",le="(.+?)"\} (\S+)', text)
    return {edge: float(count) for edge, count in lines}


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss(process: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
