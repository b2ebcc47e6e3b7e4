"""What this device is, as it tells the server."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import onnxruntime as ort

from schemas.device import Hardware
from schemas.isa import isa_names

CPUINFO = Path("/proc/cpuinfo")
DEVICE_TREE = Path("/proc/device-tree/model")
DMI = Path("/sys/class/dmi/id")

_UNNAMED = ("to be filled", "default string", "system product", "not specified", "none", "o.e.m.")
"""What makers leave in the fields that should name a board."""


def ram_mb(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory of the machine in MiB, from Linux's procfs; 1 where that is not there."""
    return max(1, _meminfo(meminfo, "MemTotal:") or 1)


def free_mb(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory in MiB that a new process can have without swapping; None if nobody knows."""
    return _meminfo(meminfo, "MemAvailable:")


def _meminfo(meminfo: Path, key: str) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) // 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def isa(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The instruction sets that all processors have, as ``schemas.isa`` names them."""
    return isa_names(_text(cpuinfo))


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or else its architecture."""
    for line in _text(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()[:200]
    return platform.machine()


def board(device_tree: Path = DEVICE_TREE, dmi: Path = DMI) -> str | None:
    """The maker's name of the board: from the device tree on ARM, from DMI on PCs.

    None where neither names it, as in most virtual machines and containers.
    """
    named = _text(device_tree).strip("\0 \n")
    if named:
        return named[:100]
    parts = [_text(dmi / name).strip() for name in ("sys_vendor", "product_name")]
    known = [p for p in parts if p and not any(bad in p.lower() for bad in _UNNAMED)]
    return " ".join(known)[:100] or None


def agent_version() -> str:
    """The installed version of this package."""
    try:
        return importlib.metadata.version("argosy")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def hardware() -> Hardware:
    """Ask the machine."""
    return Hardware(
        arch=platform.machine()[:32],
        isa=isa(),
        board=board(),
        cpus=os.cpu_count() or 1,
        ram_mb=ram_mb(),
        providers=tuple(ort.get_available_providers())[:32],
        ort=ort.__version__[:32],
        agent=agent_version()[:32],
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
