"""Records of telemetry windows, and what is added up over them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRecord:
    """A telemetry window; ``payload`` is the whole message."""

    device_id: str
    boot: str
    seq: int
    model: str
    version: int
    variant: str
    role: str
    start: datetime
    received_at: datetime
    n: int
    errors: int
    labelled: int
    correct: int
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeviceTotals:
    """A device's windows of one version, added up; ``last`` is when the last one came."""

    device_id: str
    n: int
    errors: int
    labelled: int
    correct: int
    last: datetime


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """What a summary needs of a window. latency_us: counts by bucket, as JSON has it."""

    variant: str
    device_id: str
    n: int
    errors: int
    labelled: int
    correct: int
    latency_us: dict[str, int]
