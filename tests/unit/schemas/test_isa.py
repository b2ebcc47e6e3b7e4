from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from schemas.device import Isa
from schemas.isa import isa_names

XEON = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n"
DESKTOP = "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n"
OLD = "processor\t: 0\nflags\t\t: fpu sse2\n"
PI5 = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 asimddp\n"
SERVER_ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\n"


@pytest.mark.parametrize(
    ("cpuinfo", "names"),
    [
        (XEON, ("amx_int8", "avx2", "avx512_vnni", "avx512f", "vnni")),
        (DESKTOP, ("avx2", "avx_vnni", "vnni")),
        (OLD, ()),
        (PI5, ("dotprod", "neon")),
        (SERVER_ARM, ("dotprod", "i8mm", "neon")),
        ("Features : half thumb neon vfpv4\n", ("neon",)),
        ("", ()),
        ("flags\n:::\nflags : avx2", ("avx2",)),
    ],
)
def test_names_follow_from_what_linux_says(cpuinfo, names):
    assert isa_names(cpuinfo) == names
    TypeAdapter(tuple[Isa, ...]).validate_python(isa_names(cpuinfo))


def test_only_what_every_core_has_counts():
    big, little = "Features : asimd asimddp i8mm\n", "Features : asimd asimddp\n"
    assert isa_names(big + little) == ("dotprod", "neon")
    assert isa_names(XEON + DESKTOP) == ("avx2",)
