"""Room on the disk for a new model: what must stay, and which fallbacks may go for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_client.device import Device
from edge_client.errors import DigestError, DiskFullError, PointerError
from edge_client.serving import point
from edge_client.slots import Pointer, Slot, find_pointers, read_pointers
from edge_client.states import Idle, State
from schemas.ids import Name
from schemas.measure import ModelFile
from schemas.model import Manifest


def make_room(device: Device, state: State, files: Iterable[ModelFile]) -> None:
    """See to it that files fit; fallbacks go last, and what serves never.

    Of the fallbacks that of the model that is updated goes first, then those of the others,
    one by one in the order of their names.

    Raises:
        DiskFullError: they do not fit, even so.
    """
    wanted = tuple(files)
    spare = _spare(device, None if isinstance(state, Idle) else state.offer.assignment.model)
    while True:
        try:
            device.store.make_room(wanted, _needed(device, state))
        except DiskFullError:
            model = next(spare, None)
            if model is None:
                raise
            device.problems.note(f"the fallback of {model} is removed: its room is needed")
            active = read_pointers(device.home.pointer).of(model).active
            point(device.home, model, Pointer(active=active))
        else:
            return


def _spare(device: Device, first: Name | None) -> Iterator[Name]:
    """Models whose fallback may go: what serves may be the fallback itself, or nothing for now."""
    models = read_pointers(device.home.pointer).models
    for model in sorted(models, key=lambda name: (name != first, name)):
        pointer = models[model]
        if pointer.fallback is not None and device.runtime.slot(model) == pointer.active:
            yield model


def _needed(device: Device, state: State) -> set[str]:
    """What must stay: all that is there, while nobody knows what is in use.

    An update must go on then as far as there is room, for it writes the pointer anew.
    """
    try:
        return in_use(device, state)
    except PointerError as error:
        device.problems.note(str(error))
        home = device.home
        return {path.stem for folder in (home.blobs, home.manifests) for path in folder.iterdir()}


def in_use(device: Device, state: State) -> set[str]:
    """Hashes of the files that slots and the present execution refer to.

    Raises:
        PointerError: the pointer cannot be read, so that nobody knows.
    """
    found = find_pointers(device.home.pointer)
    if found.pointers is None:
        msg = f"nothing is removed, as nobody knows what is in use: {found.damage}"
        raise PointerError(msg)
    slots: list[Slot | None] = [*found.pointers.slots, *device.runtime.slots()]
    slots += [getattr(state, name, None) for name in ("slot", "fallback", "older")]
    known = {slot for slot in slots if slot is not None}
    named = {sha for slot in known for sha in (slot.sha256, slot.manifest_sha256)}
    return named | {sha for slot in known for sha in _golden_of(device, slot)}


def _golden_of(device: Device, slot: Slot) -> set[str]:
    """The golden vectors of a slot, which it is measured with; none if nobody knows them."""
    try:
        manifest = Manifest.model_validate_json(device.store.manifest(slot.manifest_sha256))
    except (DigestError, ValueError):
        return set()
    variant = manifest.variant(slot.variant)
    return set() if variant is None else {variant.golden.file.sha256}
