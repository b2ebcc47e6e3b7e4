"""Names of instruction sets, as ``Hardware.isa`` and ``Requires.isa`` write them.

Who makes a variant and who runs it must mean the same by a name, so the names are given here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

VNNI = "vnni"
"""Any instruction that multiplies 8-bit numbers into 32-bit sums on x86."""

_X86 = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_ARM = {"asimd": "neon", "neon": "neon", "asimddp": "dotprod", "i8mm": "i8mm"}


def isa_names(cpuinfo: str) -> tuple[str, ...]:
    """The instruction sets that every processor of a machine has, sorted.

    Args:
        cpuinfo: the text of Linux's ``/proc/cpuinfo`` (``flags`` on x86, ``Features`` on ARM).
    """
    common: set[str] | None = None
    for flags in _flags(cpuinfo):
        common = flags if common is None else common & flags
    flags = common or set()
    names = {name for name in _X86 if name in flags}
    names |= {name for flag, name in _ARM.items() if flag in flags}
    if names & {"avx512_vnni", "avx_vnni"}:
        names.add(VNNI)
    return tuple(sorted(names))


def _flags(cpuinfo: str) -> Iterator[set[str]]:
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in {"flags", "Features"}:
            yield set(value.split())
