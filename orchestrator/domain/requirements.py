"""What a device lacks to run a variant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from schemas.device import Hardware
from schemas.model import Requires

_ARCH_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}

_OF_ARCH = {"x86_64": frozenset({"sse2"}), "aarch64": frozenset({"neon"})}
"""Instruction sets that every processor of an architecture has, said or not."""

_IMPLIES = {"avx512_vnni": "vnni", "avx_vnni": "vnni"}
"""Names that stand for a more general one, which older agents do not report."""

_NUMBERS = re.compile(r"\d+(?:\.\d+){0,2}")
_PARTS = 3


def architecture(name: str) -> str:
    """The one name of an architecture that has several."""
    lower = name.strip().lower()
    return _ARCH_ALIASES.get(lower, lower)


def release(version: str) -> tuple[int, ...] | None:
    """The leading numbers of a version, as three; None where there are none.

    So 1.9 is older than 1.10, and 1.20 the same as 1.20.0 or 1.20.0+cu12.
    """
    found = _NUMBERS.match(version.strip())
    if found is None:
        return None
    numbers = [int(part) for part in found[0].split(".")]
    return tuple(numbers + [0] * (_PARTS - len(numbers)))


def lacking(needs: Requires, hardware: Hardware) -> Iterator[str]:
    """Each thing that the device lacks, in words."""
    arch = architecture(hardware.arch)
    if needs.arch and arch not in {architecture(one) for one in needs.arch}:
        yield f"needs {' or '.join(needs.arch)}, the device is {arch}"
    yield from _isa(needs.isa, arch, hardware.isa)
    if needs.ram_mb is not None and needs.ram_mb > hardware.ram_mb:
        yield f"needs {needs.ram_mb} MiB of memory, the device has {hardware.ram_mb}"
    missing = [one for one in needs.providers if one not in hardware.providers]
    if missing:
        yield f"needs {', '.join(missing)}, which its ONNX Runtime has not"
    if needs.ort is not None:
        yield from _runtime(needs.ort, hardware.ort)


def _isa(needed: Iterable[str], arch: str, reported: tuple[str, ...]) -> Iterator[str]:
    there = {one.lower() for one in reported} | _OF_ARCH.get(arch, frozenset())
    there |= {_IMPLIES[one] for one in there if one in _IMPLIES}
    missing = [one for one in needed if one.lower() not in there]
    if not missing:
        return
    text = f"needs the instruction set {', '.join(missing)}"
    # Nothing said is nothing had: a kernel that is not there ends the process.
    yield text if reported else f"{text}, and the device has not said which it has"


def _runtime(needed: str, reported: str) -> Iterator[str]:
    least, there = release(needed), release(reported)
    if least is None:
        return
    if there is None:
        yield f"needs ONNX Runtime {needed}, and {reported!r} is no version"
    elif there < least:
        yield f"needs ONNX Runtime {needed}, the device has {reported}"
