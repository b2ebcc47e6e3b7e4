"""Energy of an inference: from the processor's own counter, else estimated.

RAPL counts the energy of a processor package in microjoules and begins anew at a limit
(Linux, ``Documentation/power/powercap``; Intel SDM vol. 3, 15.10). It counts whatever the
package does, idle cores included, so it says what an inference costs on this machine and not
what a model needs.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.measure import Energy

POWERCAP = Path("/sys/class/powercap")

CORE_WATTS = {"x86_64": 5.0, "aarch64": 1.5}
"""Assumed of one busy core, where nothing measures: a server's share of its package's rated
power, and a single-board computer's at full clock."""

OTHER_WATTS = 5.0


def spent(before: int, after: int, limit: int) -> int:
    """Units counted between two readings of a counter that begins anew beyond ``limit``.

    Right as long as it began anew at most once.
    """
    return after - before if after >= before else after + limit - before


@dataclass(frozen=True, slots=True)
class Zone:
    """One processor package. limit_uj: the highest reading, after which zero follows."""

    folder: Path
    limit_uj: int

    def read(self) -> int:
        """Its counter, in microjoules.

        Raises:
            OSError: it may not be read.
            ValueError: it does not hold a number.
        """
        return int((self.folder / "energy_uj").read_text())


@dataclass(frozen=True, slots=True)
class Rapl:
    """The packages of this machine."""

    zones: tuple[Zone, ...]

    def read(self) -> tuple[int, ...]:
        """The counters; errors as in ``Zone.read``."""
        return tuple(zone.read() for zone in self.zones)

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """What all packages spent between two readings."""
        each = zip(before, after, self.zones, strict=True)
        return sum(spent(b, a, zone.limit_uj) for b, a, zone in each) / 1e6


def find_rapl(root: Path = POWERCAP) -> Rapl | None:
    """The packages whose counters this process may read; None where there are none.

    Only packages count: their cores and their memory are parts of them.
    """
    zones = []
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            if not (folder / "name").read_text().startswith("package"):
                continue
            zone = Zone(folder, int((folder / "max_energy_range_uj").read_text()))
            zone.read()
        except (OSError, ValueError):
            continue
        zones.append(zone)
    return Rapl(tuple(zones)) if zones else None


def metered(
    rapl: Rapl,
    run: Callable[[int], object],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy | None:
    """Repeat a run for about ``seconds``; None where a counter can no longer be read.

    The counter moves about once in a millisecond, so a single run is too short for it.
    """
    try:
        before, end, runs = rapl.read(), clock() + seconds, 0
        while runs == 0 or clock() < end:
            run(runs)
            runs += 1
        joules = rapl.joules(before, rapl.read())
    except (OSError, ValueError):
        return None
    return Energy(millijoules=max(0.0, joules) / runs * 1e3, method="rapl")


def estimated(cpu_ms: float, watts: float | None = None) -> Energy:
    """CPU time by the power assumed of one busy core, marked as an estimate.

    watts: of this kind of machine, where it is known.
    """
    if watts is None:
        watts = CORE_WATTS.get(platform.machine(), OTHER_WATTS)
    return Energy(millijoules=cpu_ms * watts, method="cpu_time", watts=watts)
