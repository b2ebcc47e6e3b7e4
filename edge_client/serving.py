"""What serves: the pointer on the disk and the models in memory, changed together.

The pointer is written before a new model is swapped in, so that a restart serves what
was decided; each function may be done again to the same end. An update concerns one model: the
others serve on, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_client.device import Device
from edge_client.events import Broke, Restored, Stranded
from edge_client.inference import Loaded
from edge_client.loading import Unloadable, load_first, load_slot
from edge_client.settings import Home
from edge_client.slots import (
    Found,
    Pointer,
    Pointers,
    Slot,
    find_pointers,
    read_pointers,
    write_pointers,
)
from edge_client.states import Activating, OnProbation, Reverting, State
from schemas.errors import DeviceCause
from schemas.ids import Name


def on_trial(state: State) -> Name | None:
    """The model whose pointer an update is changing; None while none is."""
    return state.slot.model if isinstance(state, Activating | OnProbation | Reverting) else None


def serve_at_boot(device: Device, state: State) -> None:
    """Serve what the pointer names, else its fallback, of every model but one on trial.

    What is proven serves before anything is written.
    """
    found = find_pointers(device.home.pointer)
    if found.damage is not None:
        device.problems.note(found.damage)
    trial = on_trial(state)
    for model, pointer in (found.pointers or Pointers()).models.items():
        if model != trial:
            _serve_first(device, model, pointer.active, pointer.fallback)
    if trial is None:
        _mend(device, found)


def serve_trial(device: Device, state: Activating | OnProbation) -> Broke | None:
    """Serve the model on trial, or what the pointer still names instead.

    Returns:
        What that means for the update; None when it goes on as it was.
    """
    model = state.slot.model
    pointer = read_pointers(device.home.pointer).of(model)
    problems = _serve_first(device, model, pointer.active, pointer.fallback)
    if isinstance(state, OnProbation) and device.runtime.slot(model) != state.slot:
        detail = str(problems[0]) if problems else "the pointer names another model"
        short = bool(problems) and problems[0].cause is DeviceCause.OUT_OF_MEMORY
        cause = DeviceCause.OUT_OF_MEMORY if short else DeviceCause.LOAD_FAILED
        return Broke(key=state.offer.key, cause=cause, detail=detail)
    return None


def serve_proven(device: Device, state: State) -> None:
    """Serve what needs nothing to be written first, when nothing can be.

    A model on trial may bring the agent down, and a start that is not counted could
    then be repeated without end: its fallback serves instead.
    """
    trial = on_trial(state)
    for model, pointer in read_pointers(device.home.pointer).models.items():
        if model != trial and device.runtime.slot(model) is None:
            _serve_first(device, model, pointer.active, pointer.fallback)
    if isinstance(state, Activating | OnProbation | Reverting) and state.fallback is not None:
        _serve_first(device, state.fallback.model, state.fallback)


def _mend(device: Device, found: Found) -> None:
    """Let the pointer and its copy name what serves; not needed for serving."""
    mended = found.pointers
    if mended is None:
        return
    for model, pointer in mended.models.items():
        serving = device.runtime.slot(model)
        if serving is not None and serving == pointer.fallback:
            mended = mended.put(model, Pointer(active=serving))
    if mended == found.pointers and (found.damage is None or not device.runtime.slots()):
        return
    try:
        write_pointers(device.home.pointer, mended)
    except OSError as error:
        device.problems.note(f"the pointer could not be mended: {error}")


def activate(device: Device, state: Activating) -> None:
    """Load the new model and warm it up, swap the pointer, serve.

    Raises:
        UpdateError: it is damaged or not loadable; nothing has changed.
    """
    runtime, model = device.runtime, state.slot.model
    with runtime.busy.doing("a load", state.slot.sha256):
        loaded = load_slot(device.store, state.slot, runtime.session)
    pointer = Pointer(active=state.slot, fallback=state.fallback)
    point(device.home, model, pointer, serving=runtime.slots())
    runtime.swap(model, loaded)


def restore(device: Device, state: Reverting) -> Restored | Stranded:
    """Serve the fallback again, and put the pointer back.

    The model goes first: it must not serve on when the disk is full, and a restart in
    this state does not load what the pointer names.
    """
    key, back, older = state.offer.key, state.fallback, state.older
    model = state.slot.model
    problems = _fall_back(device, model, back)
    if problems and older is not None and not _fall_back(device, model, older):
        back, older = older, None  # proven too, once: better than what is being taken back
        problems = []
    if problems and _may_stay(device, state):
        point(device.home, model, Pointer(active=state.slot), serving=device.runtime.slots())
        return Stranded(key=key, detail=problems[0].why)
    pointer = Pointer(active=back, fallback=older)
    point_back(device.home, model, pointer, serving=device.runtime.slots())
    return Restored(key=key, serving=back)


def point_back(home: Home, model: Name, pointer: Pointer, *, serving: Iterable[Slot] = ()) -> None:
    """Let the pointer of a model name what served before it.

    That is of the same name, but in the journal of an agent that served one model at a time.

    Raises:
        OSError: it could not be written; do it again.
    """
    back = pointer.active
    pointers = _readable(home, serving)
    if back is not None and back.model != model:
        pointers = pointers.put(model, Pointer())
        model, pointer = back.model, Pointer(active=back)
    write_pointers(home.pointer, pointers.put(model, pointer))


def point(home: Home, model: Name, pointer: Pointer, *, serving: Iterable[Slot] = ()) -> None:
    """Swap the pointer of one model, leaving those of the others as they are.

    serving: what the others are known by, where the pointer and its copy cannot be read.

    Raises:
        OSError: it could not be written; do it again.
    """
    write_pointers(home.pointer, _readable(home, serving).put(model, pointer))


def _readable(home: Home, serving: Iterable[Slot]) -> Pointers:
    """What the pointer names; what serves, where it is damaged: that must not be lost, too."""
    found = find_pointers(home.pointer).pointers
    if found is not None:
        return found
    return Pointers(models={slot.model: Pointer(active=slot) for slot in serving})


def put_back(device: Device, fallback: Slot) -> None:
    """Serve the fallback and write the pointer, where no update is concerned.

    Raises:
        UpdateError: it cannot be loaded; what serves goes on.
        OSError: the pointer could not be written; do it again.
    """
    runtime, model = device.runtime, fallback.model
    if runtime.slot(model) != fallback:
        with runtime.busy.doing("a load", fallback.sha256):
            runtime.swap(model, load_slot(device.store, fallback, runtime.session))
    point(device.home, model, Pointer(active=fallback), serving=runtime.slots())


def _fall_back(device: Device, model: Name, fallback: Slot | None) -> list[Unloadable]:
    """Serve the fallback, beside what serves or, where memory is short, after it has gone."""
    runtime = device.runtime
    if fallback is not None and runtime.slot(fallback.model) == fallback:
        if fallback.model != model:
            runtime.swap(model, None)
        return []
    loaded, problems = _load_first(device, fallback)
    if problems and problems[0].cause is DeviceCause.OUT_OF_MEMORY:
        runtime.swap(model, None)
        loaded, problems = _load_first(device, fallback)
    for problem in problems:
        device.problems.note(str(problem))
    if problems:
        return problems
    if loaded is None or loaded.slot.model != model:
        runtime.swap(model, None)
    if loaded is not None:
        runtime.swap(loaded.slot.model, loaded)
    return []


def _may_stay(device: Device, state: Reverting) -> bool:
    """Serve the new model on, where the one before is lost and this one does not end the agent."""
    runtime, model = device.runtime, state.slot.model
    if state.cause in {DeviceCause.HUNG, DeviceCause.BOOT_LOOP}:
        runtime.swap(model, None)
        return False
    if runtime.slot(model) != state.slot:
        loaded, _ = _load_first(device, state.slot)
        runtime.swap(model, loaded)
    return runtime.slot(model) is not None


def _load_first(device: Device, *slots: Slot | None) -> tuple[Loaded | None, list[Unloadable]]:
    runtime = device.runtime
    return load_first(device.store, *slots, busy=runtime.busy, session=runtime.session)


def _serve_first(device: Device, model: Name, *slots: Slot | None) -> list[Unloadable]:
    """Serve the first slot that can be loaded. Returns what went wrong before it."""
    loaded, problems = _load_first(device, *slots)
    for problem in problems:
        device.problems.note(str(problem))
    device.runtime.swap(model, loaded)
    return problems
