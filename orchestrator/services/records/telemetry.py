"""Records of telemetry windows and of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class WindowRecord(NamedTuple):
    """A telemetry window; a tuple, as thousands come in a second.

    boot: 16 bytes. Times are milliseconds since 1970. body: ``domain.rollup.Kept`` in
    MessagePack; the figures beside it are those that rollouts are judged by.
    """

    device_id: str
    boot: bytes
    seq: int
    model: str
    version: int
    variant: str
    role: str
    start_ms: int
    received_ms: int
    n: int
    errors: int
    lost: int
    labelled: int
    correct: int
    body: bytes

    @property
    def key(self) -> tuple[str, bytes, int]:
        """What it is stored once by."""
        return self.device_id, self.boot, self.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """An input that a device gave away; ``body`` is the whole message as it came."""

    device_id: str
    boot: bytes
    seq: int
    model: str
    version: int
    variant: str
    stream: str
    received_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Hours since 1970, from ``first`` to before ``end``."""

    first: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which roll-ups are wanted.

    role: None is both. device_class, devices: only of these.
    """

    model: str
    version: int
    role: str | None = "active"
    variant: str | None = None
    device_class: str | None = None
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePage:
    """Which samples are wanted, oldest first. after: (received_ms, device, boot, seq)."""

    model: str
    version: int | None = None
    stream: str | None = None
    after: tuple[int, str, bytes, int] | None = None
    limit: int = 100
