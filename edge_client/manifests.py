"""The manifest of an offer: checked when it comes, kept, and read again by its hash."""

from __future__ import annotations

import platform

from edge_client.device import Device
from edge_client.errors import TrustError, UpdateError
from edge_client.events import ManifestAccepted
from edge_client.hardware import isa, ram_mb
from edge_client.slots import Slot
from edge_client.states import Idle, Offer, State
from edge_client.trust import Genuine, read_genuine, read_manifest, require_current
from schemas.errors import DeviceCause
from schemas.measure import ModelFile
from schemas.model import Variant


def keep_manifest(device: Device, offer: Offer, text: bytes) -> ManifestAccepted:
    """Check a manifest that came, and keep it.

    Args:
        device: where it is kept.
        offer: the verified desired document that names it.
        text: the manifest's JSON, exactly as it was hashed.

    Raises:
        TrustError: it is not genuine, or its variant does not fit this device.
        DiskFullError: there is no room for it.
    """
    wanted = offer.assignment.manifest_sha256
    require_current(offer, device.clock.date())
    genuine = read_genuine(text, offer)
    _require_fit(genuine.variant)
    device.store.save_manifest(wanted, text)
    slot = Slot(
        model=genuine.manifest.model,
        version=offer.assignment.version,
        variant=genuine.variant.id,
        sha256=genuine.variant.file.sha256,
        manifest_sha256=wanted,
    )
    total = sum({file.sha256: file.size for file in files_of(genuine)}.values())
    return ManifestAccepted(key=offer.key, slot=slot, total=total)


def kept_manifest(device: Device, offer: Offer) -> Genuine:
    """The manifest that was checked when it came.

    Raises:
        UpdateError: it is missing or damaged.
    """
    assignment = offer.assignment
    return read_manifest(device.store.manifest(assignment.manifest_sha256), assignment)


def files_of(genuine: Genuine) -> tuple[ModelFile, ModelFile]:
    """The files to fetch: the model and its golden vectors."""
    return genuine.variant.file, genuine.variant.golden.file


def offered_files(device: Device, state: State) -> set[str]:
    """Hashes of the manifest and the files of a state's offer, as far as they are known."""
    if isinstance(state, Idle):
        return set()
    try:
        files = files_of(kept_manifest(device, state.offer))
    except UpdateError:
        return set()
    return {state.offer.assignment.manifest_sha256, *(file.sha256 for file in files)}


def _require_fit(variant: Variant) -> None:
    needs = variant.requires
    here, memory = platform.machine(), ram_mb()
    detail = None
    if needs.arch and here not in needs.arch:
        detail = f"variant {variant.id} is for {', '.join(needs.arch)}, this device is {here}"
    elif missing := sorted(set(needs.isa) - set(isa() if needs.isa else ())):
        detail = f"variant {variant.id} needs {', '.join(missing)}, which this processor lacks"
    elif needs.ram_mb is not None and memory < needs.ram_mb:
        detail = f"variant {variant.id} needs {needs.ram_mb} MB, this device has {memory}"
    if detail is not None:
        raise TrustError(DeviceCause.LOAD_FAILED, detail)
