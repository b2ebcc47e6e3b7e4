"""What serves: the pointer on the disk and the model in memory, changed together.

The pointer is written before a new model is swapped in, so that a restart serves what
was decided; each function may be done again to the same end.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_client.device import Device
from edge_client.errors import DigestError, DiskFullError, PointerError
from edge_client.events import Broke, Restored, Stranded
from edge_client.runtime import Unloadable, load_first, load_slot
from edge_client.slots import Found, Pointer, Slot, find_pointer, read_pointer, write_pointer
from edge_client.states import Activating, OnProbation, Reverting, State
from schemas.errors import DeviceCause
from schemas.measure import ModelFile
from schemas.model import Manifest


def serve_at_boot(device: Device, state: State) -> Broke | None:
    """Serve what the pointer names, else its fallback.

    Returns:
        What that means for the update; None when it goes on as it was.
    """
    found = find_pointer(device.home.pointer)
    if found.damage is not None:
        device.problems.note(found.damage)
    pointer = found.pointer or Pointer()
    problems = _serve_first(device, pointer.active, pointer.fallback)
    serving = device.runtime.slot
    if isinstance(state, OnProbation) and serving != state.slot:
        detail = str(problems[0]) if problems else "the pointer names another model"
        short = bool(problems) and problems[0].cause is DeviceCause.OUT_OF_MEMORY
        cause = DeviceCause.OUT_OF_MEMORY if short else DeviceCause.LOAD_FAILED
        return Broke(key=state.offer.key, cause=cause, detail=detail)
    if not isinstance(state, Activating | OnProbation):
        _mend(device, found)
    return None


def serve_proven(device: Device, state: State) -> None:
    """Serve what needs nothing to be written first, when nothing can be.

    A model on trial may bring the agent down, and a start that is not counted could
    then be repeated without end: its fallback serves instead.
    """
    if isinstance(state, Activating | OnProbation | Reverting):
        _serve_first(device, state.fallback)
    else:
        pointer = read_pointer(device.home.pointer)
        _serve_first(device, pointer.active, pointer.fallback)


def _mend(device: Device, found: Found) -> None:
    """Let the pointer and its copy name what serves; not needed for serving."""
    serving = device.runtime.slot
    if found.pointer is None or serving is None:
        return
    gave_way = serving == found.pointer.fallback
    if found.damage is None and not gave_way:
        return
    try:
        mended = Pointer(active=serving) if gave_way else found.pointer
        write_pointer(device.home.pointer, mended)
    except OSError as error:
        device.problems.note(f"the pointer could not be mended: {error}")


def activate(device: Device, state: Activating) -> None:
    """Load the new model, swap the pointer, serve.

    Raises:
        UpdateError: it is damaged or not loadable; nothing has changed.
    """
    with device.runtime.busy.doing("a load", state.slot.sha256):
        loaded = load_slot(device.store, state.slot)
    write_pointer(device.home.pointer, Pointer(active=state.slot, fallback=state.fallback))
    device.runtime.swap(loaded)


def restore(device: Device, state: Reverting) -> Restored | Stranded:
    """Serve the fallback again, and put the pointer back.

    The model goes first: it must not serve on when the disk is full, and a restart in
    this state does not load what the pointer names.
    """
    key, back, older = state.offer.key, state.fallback, state.older
    problems = _fall_back(device, back)
    if problems and older is not None and not _fall_back(device, older):
        back, older = older, None  # proven too, once: better than what is being taken back
        problems = []
    if problems and _may_stay(device, state):
        write_pointer(device.home.pointer, Pointer(active=state.slot))
        return Stranded(key=key, detail=problems[0].why)
    write_pointer(device.home.pointer, Pointer(active=back, fallback=older))
    return Restored(key=key, serving=back)


def put_back(device: Device, fallback: Slot) -> None:
    """Serve the fallback and write the pointer, where no update is concerned.

    Raises:
        UpdateError: it cannot be loaded; what serves goes on.
        OSError: the pointer could not be written; do it again.
    """
    if device.runtime.slot != fallback:
        with device.runtime.busy.doing("a load", fallback.sha256):
            device.runtime.swap(load_slot(device.store, fallback))
    write_pointer(device.home.pointer, Pointer(active=fallback))


def _fall_back(device: Device, fallback: Slot | None) -> list[Unloadable]:
    """Serve the fallback, beside what serves or, where memory is short, after it has gone."""
    runtime = device.runtime
    if fallback is not None and runtime.slot == fallback:
        return []
    loaded, problems = load_first(device.store, fallback, busy=runtime.busy)
    if problems and problems[0].cause is DeviceCause.OUT_OF_MEMORY:
        runtime.swap(None)
        loaded, problems = load_first(device.store, fallback, busy=runtime.busy)
    for problem in problems:
        device.problems.note(str(problem))
    if not problems:
        runtime.swap(loaded)
    return problems


def _may_stay(device: Device, state: Reverting) -> bool:
    """Serve the new model on, where the one before is lost and this one does not end the agent."""
    if state.cause in {DeviceCause.HUNG, DeviceCause.BOOT_LOOP}:
        device.runtime.swap(None)
        return False
    if device.runtime.slot != state.slot:
        loaded, _ = load_first(device.store, state.slot, busy=device.runtime.busy)
        device.runtime.swap(loaded)
    return device.runtime.slot is not None


def make_room(device: Device, state: State, files: Iterable[ModelFile]) -> None:
    """See to it that files fit; the fallback goes last, and what serves never.

    Raises:
        DiskFullError: they do not fit, even so.
        PointerError: nobody knows what is in use.
    """
    wanted = tuple(files)
    try:
        device.store.make_room(wanted, in_use(device, state))
    except DiskFullError:
        pointer = read_pointer(device.home.pointer)
        if pointer.fallback is None or device.runtime.slot != pointer.active:
            raise  # what serves may be the fallback itself, or nothing for now
        device.problems.note("the fallback is removed: its room is needed for the update")
        write_pointer(device.home.pointer, Pointer(active=pointer.active))
        device.store.make_room(wanted, in_use(device, state))


def in_use(device: Device, state: State) -> set[str]:
    """Hashes of the files that slots and the present execution refer to.

    Raises:
        PointerError: the pointer cannot be read, so that nobody knows.
    """
    found = find_pointer(device.home.pointer)
    if found.pointer is None:
        msg = f"nothing is removed, as nobody knows what is in use: {found.damage}"
        raise PointerError(msg)
    pointer = found.pointer
    slots: list[Slot | None] = [pointer.active, pointer.fallback, device.runtime.slot]
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


def _serve_first(device: Device, *slots: Slot | None) -> list[Unloadable]:
    """Serve the first slot that can be loaded. Returns what went wrong before it."""
    loaded, problems = load_first(device.store, *slots, busy=device.runtime.busy)
    for problem in problems:
        device.problems.note(str(problem))
    device.runtime.swap(loaded)
    return problems
