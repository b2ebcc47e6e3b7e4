"""What a trial of the search tries: one point of pruning, precision and layers in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schemas.isa import VNNI
from schemas.model import Requires

Precision = Literal["fp32", "fp16", "int8"]
SchemeName = Literal["none", "u8s8", "u8s8-7bit", "s8s8", "dynamic", "fp16", "qat"]

_X86 = ("x86_64", "amd64")
_ARM = ("aarch64", "arm64")
_SUFFIX = {
    "none": "",
    "fp16": "",
    "u8s8": "-vnni",
    "u8s8-7bit": "",
    "s8s8": "",
    "dynamic": "-dynamic",
    "qat": "-qat",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A form of the net.

    pruned: the share of channels that was taken out, 0..1. scheme: of quantization:
    ``u8s8`` with weights of 8 bits, for VNNI; ``u8s8-7bit`` with 7, for any x86_64;
    ``s8s8`` for ARM64; ``dynamic`` quantizes weights ahead and activations as they come;
    ``qat`` is trained with quantization in the loop. float_nodes: operators that stay in
    float though their kind is quantized, the most damaging first.
    """

    pruned: float = 0.0
    precision: Precision = "fp32"
    scheme: SchemeName = "none"
    float_nodes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """A readable name, unique within one search: ``fp32``, ``p50-int8-float3``.

        The search leaves ever more operators of a net in float, so that their number tells
        its points apart.
        """
        parts = [] if self.pruned == 0 else [f"p{share_text(self.pruned)}"]
        parts.append(f"{self.precision}{_SUFFIX[self.scheme]}")
        if self.float_nodes:
            parts.append(f"float{len(self.float_nodes)}")
        return "-".join(parts)

    @property
    def quantized(self) -> bool:
        """Whether its weights are whole numbers."""
        return self.precision == "int8"

    @property
    def plain(self) -> Point:
        """The same net, unquantized."""
        return Point(pruned=self.pruned)

    def keeping(self, nodes: tuple[str, ...]) -> Point:
        """The same with these nodes in float."""
        return replace(self, float_nodes=nodes)


def share_text(share: float) -> str:
    """A share in percent, for an id: 0.5 is ``50``, 0.125 is ``12-5``."""
    return f"{share * 100:.4g}".replace(".", "-")


def requires_of(point: Point, arch: str) -> Requires:
    """What a device must have to run a point's file.

    Args:
        point: the point.
        arch: of the machine that made it, as ``platform.machine()`` says.
    """
    match point.scheme:
        case "u8s8":
            return Requires(arch=("x86_64",), isa=(VNNI,))
        case "u8s8-7bit":
            return Requires(arch=("x86_64",))
        case "s8s8":
            return Requires(arch=("aarch64",))
        case "dynamic" | "qat":
            return Requires(arch=(normal_arch(arch),))
        case _:
            return Requires()


def normal_arch(arch: str) -> str:
    """One name per architecture: ``x86_64``, ``aarch64``, else as it is."""
    low = arch.lower()
    return "x86_64" if low in _X86 else "aarch64" if low in _ARM else arch


def static_schemes(arch: str, isa: Sequence[str]) -> tuple[tuple[SchemeName, ...], SchemeName]:
    """The static schemes to try on this machine, and the one that all of its kind run.

    On x86 weights of 7 bits come first: every processor runs them rightly, and where they
    are as accurate (they mostly are, and no slower) a second file for VNNI alone is not worth
    its keeping. Without VNNI here, weights of 8 bits would not be judged fairly.

    Args:
        arch: as ``platform.machine()`` says.
        isa: instruction sets, as ``schemas.isa`` names them.
    """
    if normal_arch(arch) == "aarch64":
        return ("s8s8",), "s8s8"
    portable: SchemeName = "u8s8-7bit"
    return ((portable, "u8s8") if VNNI in isa else (portable,)), portable
