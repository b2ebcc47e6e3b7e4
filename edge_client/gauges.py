"""What a device feels while it infers: memory, temperature, energy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from edge_client.energy import CORE_WATTS, OTHER_WATTS, Meter, find_meter
from schemas.window import Method

THERMAL = Path("/sys/class/thermal")
HWMON = Path("/sys/class/hwmon")
STAT = Path("/proc/stat")

PROCESSOR_ZONES = ("x86_pkg_temp", "cpu", "soc", "acpitz")
"""Thermal zones of the processor begin with one of these; the best known first."""

PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


def rss_mb(statm: Path = Path("/proc/self/statm")) -> float | None:
    """Resident memory of this process in MiB, from Linux's procfs."""
    try:
        pages = int(statm.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def find_thermometer(thermal: Path = THERMAL, hwmon: Path = HWMON) -> Path | None:
    """The file with the processor's temperature in thousandths of a degree, if one can be read.

    Linux, ``Documentation/driver-api/thermal/sysfs-api`` and ``Documentation/hwmon``.
    """
    ranked: list[tuple[int, Path]] = []
    for zone in sorted(thermal.glob("thermal_zone*")):
        kind = _line(zone / "type").lower()
        rank = next((i for i, name in enumerate(PROCESSOR_ZONES) if kind.startswith(name)), None)
        if rank is not None and celsius(zone / "temp") is not None:
            ranked.append((rank, zone / "temp"))
    if ranked:
        return min(ranked, key=lambda one: one[0])[1]
    for chip in sorted(hwmon.glob("hwmon*")):
        reading = chip / "temp1_input"
        if _line(chip / "name") in PROCESSOR_SENSORS and celsius(reading) is not None:
            return reading
    return None


def celsius(path: Path | None) -> int | None:
    """A temperature in whole degrees; None where it cannot be read or is none."""
    if path is None:
        return None
    try:
        degrees = round(int(path.read_text()) / 1000)
    except (OSError, ValueError):
        return None
    return degrees if -100 <= degrees <= 300 else None  # noqa: PLR2004 - as the wire type says


def machine_cpu_seconds(path: Path = STAT) -> float | None:
    """Processor time that the machine has spent on anything, in seconds (proc_stat(5))."""
    try:
        user, nice, system, _idle, _wait, irq, soft, *_ = (
            int(value) for value in path.read_text().split("\n", 1)[0].split()[1:]
        )
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


class Power:
    """Energy of a process's inferences, from one look to the next.

    A meter sees the whole machine; of that an inference gets its share of the processor time that
    the machine spent. Without a meter it is that time by the power assumed of one busy core.
    """

    def __init__(
        self,
        find: Callable[[], Meter | None] = find_meter,
        machine: Callable[[], float | None] = machine_cpu_seconds,
    ) -> None:
        """Begin to count. machine: processor seconds of the whole machine."""
        self._machine = machine
        self._spent: float | None = None
        self._meter = find()
        if self._meter is not None:
            self._begin(self._meter)

    @property
    def method(self) -> Method:
        """Where the figures come from."""
        return "cpu_time" if self._meter is None else self._meter.method

    def sample(self) -> None:
        """Take a reading of a meter that shows the present power; about once a second."""
        if self._meter is not None and self._meter.method == "meter":
            try:
                self._meter.sample()
            except (OSError, ValueError):
                self._meter = None

    def joules(self, inferring: float) -> float:
        """Since the last look. inferring: processor seconds of the inferences since then."""
        if self._meter is not None:
            try:
                joules = self._meter.joules()
                share = self._share(inferring)
                self._begin(self._meter)
            except (OSError, ValueError):
                self._meter = None
            else:
                return max(0.0, joules) * share
        return inferring * CORE_WATTS.get(platform.machine(), OTHER_WATTS)

    def _begin(self, meter: Meter) -> None:
        try:
            meter.begin()
        except (OSError, ValueError):
            self._meter = None
        self._spent = self._machine()

    def _share(self, inferring: float) -> float:
        now = self._machine()
        if now is None or self._spent is None or now <= self._spent:
            return 1.0 if inferring > 0 else 0.0
        return min(1.0, inferring / (now - self._spent))


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
