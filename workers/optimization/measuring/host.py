"""The machine that measures: its kind, and the instruction sets it has."""

from __future__ import annotations

import platform
from pathlib import Path

from schemas.isa import isa_names

CPUINFO = Path("/proc/cpuinfo")


def host_name(cpuinfo: Path = CPUINFO) -> str:
    """This machine's kind: CPU model, architecture and system."""
    model = platform.processor() or "unknown CPU"
    for line in _read(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
            break
    return f"{model}, {platform.machine()}, {platform.system()}"[:300]


def host_isa(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The instruction sets that this machine has, named as devices name theirs."""
    return isa_names(_read(cpuinfo))


def _read(cpuinfo: Path) -> str:
    try:
        return cpuinfo.read_text(errors="replace")
    except OSError:
        return ""
