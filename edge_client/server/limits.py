"""What the local server takes from its clients, at most."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024

MAX_TEXTS = 100_000
"""Classes that one answer tells as text, or in records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds.

    head: the request line and all header fields. headers: how many of them. body: one request,
    after decompression. held: bodies and unread answers of all connections together; what comes
    beyond is refused until others are done. connections: open at once. pipelined: requests of one
    connection that wait for their turn. samples: in one request, where the model takes any number.
    head_seconds: from the first byte of a request to the end of its head. body_seconds: from there
    to the end of its body. idle_seconds: between requests. write_seconds: for a client to read on.
    drain_seconds: for what is under way at a stop. inline_seconds: a model whose runs are shorter
    is run where the request was read.
    """

    head: int = 32 * 1024
    headers: int = 100
    body: int = 16 * MIB
    held: int = 64 * MIB
    connections: int = 256
    pipelined: int = 16
    samples: int = 262_144
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 120.0
    write_seconds: float = 30.0
    drain_seconds: float = 5.0
    inline_seconds: float = 200e-6
