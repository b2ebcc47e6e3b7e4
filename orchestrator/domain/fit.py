"""Which variant of a version a device gets."""

from __future__ import annotations

from schemas.device import ActiveModel, Hardware
from schemas.model import Manifest, Variant

_ARCH_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def fits(variant: Variant, hardware: Hardware) -> bool:
    """Whether the device has what the variant requires."""
    needs = variant.requires
    arch = _ARCH_ALIASES.get(hardware.arch.lower(), hardware.arch.lower())
    return (
        (not needs.arch or arch in needs.arch)
        and (needs.ram_mb is None or needs.ram_mb <= hardware.ram_mb)
        and set(needs.providers) <= set(hardware.providers)
    )


def choose(manifest: Manifest, hardware: Hardware, wanted: str | None) -> Variant | None:
    """The wanted variant, or else the first in the manifest's order, that fits.

    The order is the training job's: best measured first.
    """
    variants = (v for v in manifest.variants if wanted in (None, v.id))
    return next((v for v in variants if fits(v, hardware)), None)


def installed(
    active: ActiveModel | None, manifest: Manifest, version: int, variant: Variant
) -> bool:
    """Whether the device serves exactly that variant of that version already."""
    return active is not None and (active.model, active.version, active.sha256) == (
        manifest.model,
        version,
        variant.file.sha256,
    )
