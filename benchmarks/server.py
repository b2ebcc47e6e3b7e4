"""The local server against a bare FastAPI app around onnxruntime (uvicorn, uvloop, httptools).

The same net, one sample a request, JSON both, over kept connections; the server has one core and
the client the other. Ours counts every inference in telemetry; the app counts nothing. The second
figure is per second of the server's CPU, which other programs on the machine change less.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import ROOT, Options, Report, alternate, main, note
from benchmarks._server_client import Where, ask_for, first_answer
from benchmarks._server_net import FEATURES, sample, write_net

WHAT = "server: the local server against a bare FastAPI + onnxruntime app"
CONCURRENCY = (1, 8, 32)
HEADLINE = 8
START_SECONDS = 60


def posted(path: str, body: bytes, more: str = "") -> bytes:
    """A request as most libraries send it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def json_request() -> bytes:
    """The sample in JSON, by the Open Inference Protocol."""
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": [sample()]}
    return posted("/v2/models/net/infer", json.dumps({"inputs": [tensor]}).encode())


def binary_request() -> bytes:
    """The sample as bytes after the JSON, the answer likewise."""
    data = np.array(sample(), np.float32).tobytes()
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32"}
    body = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(body).encode()
    size = f"Inference-Header-Content-Length: {len(head)}\r\n"
    return posted("/v2/models/net/infer", head + data, size)


@contextlib.contextmanager
def pinned() -> Iterator[tuple[set[int], set[int]]]:
    """A core for the client, which is this process, and one for servers, where there are two."""
    before = os.sched_getaffinity(0)
    mine, theirs = ({min(before)}, {max(before)}) if len(before) > 1 else (before, before)
    os.sched_setaffinity(0, mine)
    try:
        yield mine, theirs
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def process(cores: set[int], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server's process, on its cores, until the end of the block."""
    command = ["taskset", "-c", ",".join(map(str, sorted(cores))), sys.executable, *arguments]
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield server
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.terminate()
        server.wait(30)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far: proc(5), fields 14 and 15 of ``stat``."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answering(where: Where, request: bytes) -> None:
    """Wait for a server's first answer."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            first_answer(where, request)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def grpc_load(address: str, *, concurrency: int, seconds: float) -> dict[str, float]:
    """Tritonclient's gRPC client with so many calls under way; it costs more than the server."""
    import tritonclient.grpc as triton  # type: ignore[import-untyped] # noqa: PLC0415 - only here

    tensor = triton.InferInput("x", [1, FEATURES], "FP32")
    tensor.set_data_from_numpy(np.array([sample()], np.float32))
    took: list[float] = []
    answers: queue.SimpleQueue[tuple[float, Any, Any]] = queue.SimpleQueue()

    with triton.InferenceServerClient(address) as client:

        def ask() -> None:
            start = time.perf_counter()
            client.async_infer(
                "net", [tensor], callback=lambda result, error: answers.put((start, error, result))
            )

        for _ in range(concurrency):
            ask()
        begun = time.perf_counter()
        until = begun + seconds
        while time.perf_counter() < until:
            start, error, _ = answers.get()
            if error is not None:
                raise error
            took.append(time.perf_counter() - start)
            ask()
        spent = time.perf_counter() - begun
        for _ in range(concurrency):
            answers.get()
    p50, p99 = np.percentile(np.array(took) * 1e6, [50, 99])
    return {"per_second": len(took) / spent, "p50_us": float(p50), "p99_us": float(p99)}


def measure(asked: Options) -> Report:
    """Both servers stay up; the client asks one, then the other."""
    seconds = 0.5 if asked.quick else 1.0
    with tempfile.TemporaryDirectory(prefix="argosy-") as name, pinned() as (_, cores):
        folder = Path(name)
        write_net(folder / "net.onnx")
        port = free_port()
        with (
            process(cores, "-m", "benchmarks._server_ours", f"{folder}/net.onnx", name) as ours,
            process(
                cores, "-m", "benchmarks._server_fastapi", f"{folder}/net.onnx", str(port)
            ) as bare_app,
        ):
            assert ours.stdout is not None
            http, unix, grpc = ours.stdout.readline().split()
            mine: Where = ("127.0.0.1", int(http.rpartition(":")[2]))
            theirs: Where = ("127.0.0.1", port)
            bare = posted("/infer", json.dumps({"x": [sample()]}).encode())
            answering(mine, json_request())
            answering(theirs, bare)

            def loaded(pid: int, where: Where, request: bytes, n: int) -> dict[str, float]:
                before = cpu_seconds(pid)
                load = ask_for(where, request, concurrency=n, seconds=seconds)
                cpu = (cpu_seconds(pid) - before) / (load.per_second * seconds)
                return {**asdict(load), "server_cpu_us": cpu * 1e6}

            def rate(pid: int, where: Where, request: bytes) -> Mapping[str, float]:
                found = loaded(pid, where, request, HEADLINE)
                return {
                    "server_vs_fastapi": found["per_second"],
                    "server_cpu_vs_fastapi": 1e6 / found["server_cpu_us"],
                }

            figures = alternate(
                lambda: rate(ours.pid, mine, json_request()),
                lambda: rate(bare_app.pid, theirs, bare),
                rounds=asked.rounds,
                units={
                    "server_vs_fastapi": "requests/s",
                    "server_cpu_vs_fastapi": "requests/CPU s",
                },
            )
            ways: dict[str, tuple[int, Where, bytes]] = {
                "json": (ours.pid, mine, json_request()),
                "binary": (ours.pid, mine, binary_request()),
                "json_unix": (ours.pid, unix.removeprefix("unix:"), json_request()),
                "fastapi_json": (bare_app.pid, theirs, bare),
            }
            details: dict[str, Any] = {}
            for way, asking in ways.items():
                note(f"{way} at {', '.join(map(str, CONCURRENCY))} connections")
                details[way] = {str(n): loaded(*asking, n) for n in CONCURRENCY}
            details["grpc_tritonclient"] = {
                str(n): grpc_load(grpc, concurrency=n, seconds=seconds) for n in CONCURRENCY
            }
    return Report(figures, details)


if __name__ == "__main__":
    main(measure, what=WHAT, rounds=11)
