"""The machine's clocks: a start of the machine, and a clock that only runs forward in it."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def machine_boot(path: Path = BOOT_ID) -> bytes:
    """16 bytes that differ from each start of the machine to the next.

    Linux says them; elsewhere they are drawn, so that each process is as a machine of its own.
    """
    try:
        return uuid.UUID(path.read_text().strip()).bytes
    except (OSError, ValueError):
        return uuid.uuid4().bytes


def steady_seconds() -> float:
    """Seconds since the machine started, its suspensions included (clock_gettime(2)).

    The same clock in all of its processes.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from.

    date: seconds since 1970 by the device's clock, which may jump. steady: a clock that does not,
    good within ``machine``. cpu: seconds of processor time of this process.
    """

    date: Callable[[], float] = time.time
    steady: Callable[[], float] = steady_seconds
    cpu: Callable[[], float] = time.process_time
    machine: bytes = field(default_factory=machine_boot)
