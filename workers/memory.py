"""Memory of a worker: its limit, and how one can tell that it ran out."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

from schemas.job import JobCause
from workers.errors import JobFailed

GIB = 1024**3
LEAST_ROOM = 32 * 1024**2
"""What a limit must leave of itself when training begins, in bytes."""

_ON_HOST = (
    "can't allocate memory",
    "cannot allocate memory",
    "defaultcpuallocator",
    "std::bad_alloc",
    "unable to mmap",
    "unable to allocate",
)
_ON_DEVICE = ("cuda out of memory", "cublas_status_alloc_failed", "cudaerrormemoryallocation")
_LOADER = ("is killed by signal: killed", "is killed by signal: bus error")
_BY_RAY = ("node running low on memory", "outofmemoryerror", "memory pressure")


def ran_out(error: BaseException) -> str | None:
    """What to do about it, if an exception says that memory ran out; else None."""
    text = str(error).lower()
    name = type(error).__name__
    if name in {"OutOfMemoryError", "OutOfMemory"} or any(word in text for word in _ON_DEVICE):
        if "memory monitor" in text or any(word in text for word in _BY_RAY[:1]):
            return HOST_ADVICE
        return DEVICE_ADVICE
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return HOST_ADVICE
    if isinstance(error, RuntimeError) and any(word in text for word in _ON_HOST):
        return HOST_ADVICE
    if isinstance(error, RuntimeError) and any(word in text for word in _LOADER):
        return "a process that loads data was killed; lower training.loader_workers"
    return None


HOST_ADVICE = "lower the batch size, or raise resources.memory_gb"
DEVICE_ADVICE = "lower the batch size, or raise training.accumulate instead, or use precision bf16"


def killed_by_ray(text: str) -> bool:
    """Whether Ray says that its memory monitor ended a process."""
    lowered = text.lower()
    return any(word in lowered for word in _BY_RAY)


def kernel_kills(stat: Path = Path("/proc/vmstat")) -> int:
    """How often this machine's kernel has killed a process for lack of memory; 0 if untold."""
    try:
        for line in stat.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    except (OSError, ValueError):
        pass
    return 0


def data_limit(limit_bytes: int, *, resident: int, data: int) -> int:
    """The RLIMIT_DATA under which a process grows to about ``limit_bytes`` of memory.

    The kernel counts what is mapped (``data``), which is more than what is in use
    (``resident``) before any of the user's code runs: the difference is granted.

    Raises:
        JobFailed: the process alone takes that much.
    """
    room = limit_bytes - resident
    if room < LEAST_ROOM:
        detail = (
            f"resources.memory_gb is {limit_bytes / GIB:.2g}, and a worker takes "
            f"{resident / GIB:.2g} before any of the task's code runs; raise it"
        )
        raise JobFailed(JobCause.OUT_OF_MEMORY, detail)
    return data + room


def limit_memory(limit_gb: float) -> None:
    """Bound what this process may allocate from now on; see ``data_limit``."""
    page = resource.getpagesize()
    fields = [int(one) for one in Path("/proc/self/statm").read_text().split()]
    resident, data = fields[1] * page, fields[5] * page
    soft = data_limit(int(limit_gb * GIB), resident=resident, data=data)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, resource.RLIM_INFINITY))
