"""What this device is, as it tells the server."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import onnxruntime as ort

from schemas.device import Hardware


def ram_mb(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory of the machine in MiB, from Linux's procfs; 1 where that is not there."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemTotal:"):
                return max(1, int(line.split()[1]) // 1024)
    except (OSError, ValueError, IndexError):
        pass
    return 1


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
        cpus=os.cpu_count() or 1,
        ram_mb=ram_mb(),
        providers=tuple(ort.get_available_providers())[:32],
        ort=ort.__version__[:32],
        agent=agent_version()[:32],
    )
