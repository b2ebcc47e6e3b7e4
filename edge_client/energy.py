"""Energy of an inference on this device: from a meter if there is one, else estimated.

Two kinds are read. RAPL, the counter of an x86 processor's packages (Linux,
``Documentation/power/powercap``), and power sensors on the board that hwmon shows (INA2xx on
many single-board computers; ``Documentation/hwmon/sysfs-interface``), which are sampled
between the inferences. Both see the whole package or board, not the one process.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from schemas.measure import Energy

POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")

SENSORS = ("ina219", "ina220", "ina226", "ina228", "ina230", "ina238", "ina260", "ina3221")
"""hwmon drivers of power monitors: what other drivers call power may be of one chip."""

SAMPLE_SECONDS = 0.02

CORE_WATTS = {"x86_64": 5.0, "aarch64": 1.5}
"""Assumed of one busy core, where nothing measures."""

OTHER_WATTS = 5.0


def spent(before: int, after: int, limit: int) -> int:
    """Units counted between two readings of a counter that begins anew beyond ``limit``."""
    return after - before if after >= before else after + limit - before


class Meter(Protocol):
    """Adds up the energy from ``begin`` on."""

    method: Literal["rapl", "meter"]

    def begin(self) -> None:
        """Start from zero; errors as in ``sample``."""

    def sample(self) -> None:
        """Take a reading, from time to time.

        Raises:
            OSError: it cannot be read.
            ValueError: what is read is no number.
        """

    def joules(self) -> float:
        """What was spent until now; errors as in ``sample``."""


@dataclass(slots=True)
class Rapl:
    """zones: (folder, the highest reading, after which zero follows) of each package."""

    zones: tuple[tuple[Path, int], ...]
    method: Literal["rapl", "meter"] = "rapl"
    _last: list[int] = field(default_factory=list)
    _total: int = 0

    def begin(self) -> None:
        """Start from zero."""
        self._last, self._total = self._read(), 0

    def sample(self) -> None:
        """Count on, so that a counter never begins anew twice unseen."""
        now = self._read()
        each = zip(self._last, now, self.zones, strict=True)
        self._total += sum(spent(a, b, limit) for a, b, (_, limit) in each)
        self._last = now

    def joules(self) -> float:
        """What all packages spent."""
        self.sample()
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [int((folder / "energy_uj").read_text()) for folder, _ in self.zones]


@dataclass(slots=True)
class PowerSensor:
    """A sensor of the board's power, in microwatts; the time between samples gets their mean."""

    path: Path
    clock: Callable[[], float] = time.monotonic
    method: Literal["rapl", "meter"] = "meter"
    _last: tuple[float, float] = (0.0, 0.0)
    _total: float = 0.0

    def begin(self) -> None:
        """Start from zero."""
        self._last, self._total = self._read(), 0.0

    def sample(self) -> None:
        """Add the time since the last sample."""
        before, now = self._last, self._read()
        self._total += (now[0] - before[0]) * (now[1] + before[1]) / 2
        self._last = now

    def joules(self) -> float:
        """What the board spent."""
        self.sample()
        return self._total

    def _read(self) -> tuple[float, float]:
        watts = int(self.path.read_text()) / 1e6
        return self.clock(), watts


def find_meter(powercap: Path = POWERCAP, hwmon: Path = HWMON) -> Meter | None:
    """A meter that this process may read: the processor's own, else the board's."""
    zones = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            if (folder / "name").read_text().startswith("package"):
                int((folder / "energy_uj").read_text())
                zones.append((folder, int((folder / "max_energy_range_uj").read_text())))
        except (OSError, ValueError):
            continue
    if zones:
        return Rapl(tuple(zones))
    for folder in sorted(hwmon.glob("hwmon*")):
        try:
            if (folder / "name").read_text().strip() in SENSORS:
                int((folder / "power1_input").read_text())
                return PowerSensor(folder / "power1_input")
        except (OSError, ValueError):
            continue
    return None


def metered(
    meter: Meter,
    run: Callable[[], object],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Energy | None:
    """Repeat a run for about ``seconds``; None where the meter can no longer be read."""
    try:
        meter.begin()
        began = sampled = clock()
        runs = 0
        while runs == 0 or clock() - began < seconds:
            run()
            runs += 1
            if clock() - sampled >= SAMPLE_SECONDS:
                meter.sample()
                sampled = clock()
        joules = meter.joules()
    except (OSError, ValueError):
        return None
    return Energy(millijoules=max(0.0, joules) / runs * 1e3, method=meter.method)


def estimated(cpu_ms: float) -> Energy:
    """CPU time by the power assumed of one busy core, marked as an estimate."""
    watts = CORE_WATTS.get(platform.machine(), OTHER_WATTS)
    return Energy(millijoules=cpu_ms * watts, method="cpu_time", watts=watts)
