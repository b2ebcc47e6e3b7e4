"""A client that asks the same thing again and again over kept connections.

It knows how long the answer is from the first one, and compares every answer with that: so it
costs little beside the server, which it must, on the other core.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Where = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second, and the latency of a request in microseconds."""

    per_second: float
    p50_us: float
    p99_us: float


def ask_for(where: Where, request: bytes, *, concurrency: int, seconds: float) -> Load:
    """Ask over ``concurrency`` connections, each with one request at a time.

    Raises:
        RuntimeError: an answer is not 200, or not what the first one was.
    """
    expected = first_answer(where, request)
    body = expected.partition(b"\r\n\r\n")[2]
    lines = [_connect(where) for _ in range(concurrency)]
    selector = selectors.DefaultSelector()
    state: dict[socket.socket, list[float]] = {}
    took: list[float] = []
    try:
        for line in lines:
            selector.register(line, selectors.EVENT_READ, line)
            state[line] = [time.perf_counter(), 0]
            line.sendall(request)
        begun = time.perf_counter()
        until = begun + seconds
        while (now := time.perf_counter()) < until:
            for key, _ in selector.select(1):
                line = key.data
                part = line.recv(65536)
                at = state[line]
                if not at[1] and len(part) == len(expected):
                    if not part.endswith(body):  # the head may tell the time
                        _differs(part)
                    now = time.perf_counter()
                    took.append(now - at[0])
                    at[0] = now
                    line.sendall(request)
                    continue
                at[1] += len(part)
                if not part or at[1] > len(expected):
                    _differs(part)
                if at[1] == len(expected):
                    now = time.perf_counter()
                    took.append(now - at[0])
                    at[:] = [now, 0]
                    line.sendall(request)
        spent = time.perf_counter() - begun
    finally:
        selector.close()
        for line in lines:
            line.close()
    p50, p99 = _percentiles(took)
    return Load(len(took) / spent, p50, p99)


def first_answer(where: Where, request: bytes) -> bytes:
    """The answer to one request, whole.

    Raises:
        RuntimeError: it is not 200.
    """
    with _connect(where) as line:
        line.sendall(request)
        found = b""
        while b"\r\n\r\n" not in found:
            found += line.recv(65536)
        head, _, body = found.partition(b"\r\n\r\n")
        fields = dict(f.lower().split(b": ", 1) for f in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            part = line.recv(65536)
            body, found = body + part, found + part
    if b" 200 " not in head:
        _differs(found)
    return found


def _connect(where: Where) -> socket.socket:
    if isinstance(where, str):
        line = socket.socket(socket.AF_UNIX)
        line.connect(where)
        return line
    line = socket.create_connection(where)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _percentiles(took: Sequence[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(np.array(took) * 1e6, [50, 99])
    return float(p50), float(p99)


def _differs(answer: bytes) -> None:
    msg = f"another answer than expected: {answer[:200]!r}"
    raise RuntimeError(msg)
