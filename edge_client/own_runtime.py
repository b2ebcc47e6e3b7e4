"""A runtime for one command: a slot of the device, loaded here, and counted as served."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_client.errors import JournalError, NoModelError, UsageError
from edge_client.loading import load_slot
from edge_client.meter import Meter, NoMeter
from edge_client.recorder import Recorder
from edge_client.runtime import Runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import Home
from edge_client.slots import Slot, require_pointers
from edge_client.store import Store
from edge_client.telemetry import Windows

FALLBACK = "fallback"


def find_slot(home: Home, model: str | None, version: str | None = None) -> Slot:
    """The slot that is meant: the active version, the fallback, or a version by its number.

    model: None for the only one.

    Raises:
        NoModelError: it is not installed.
        PointerError: the pointer cannot be read, as by another user than the agent's.
        UsageError: there are several models, and none was named.
    """
    pointers = require_pointers(home.pointer)
    if not pointers.active and not home.root.is_dir():
        msg = f"the home {home.root} is not there"
        raise NoModelError(msg, hint="give the device's with --home, or $ARGOSY_EDGE_HOME")
    if not pointers.active:
        msg = f"no model is active in {home.root} yet"
        raise NoModelError(msg, hint="start a rollout to this device; see `argosy-edge status`")
    names = [slot.model for slot in pointers.active]
    if model is None:
        if len(names) > 1:
            msg = f"several models are active here ({', '.join(names)})"
            raise UsageError(msg, hint="name the one that is meant")
        model = names[0]
    pointer = pointers.of(model)
    installed = {"active": pointer.active, FALLBACK: pointer.fallback}
    installed |= {str(slot.version): slot for slot in pointer.slots}
    slot = installed.get(version or "active")
    if slot is None:
        if pointer.active is None:
            msg = f"model {model} is not active on this device"
            raise NoModelError(msg, hint=f"it has {', '.join(names)}")
        have = ", ".join(str(slot.version) for slot in pointer.slots)
        msg = f"version {version} of {model} is not installed here"
        if version == FALLBACK:
            msg = f"{model} has no fallback here"
        raise NoModelError(msg, hint=f"installed: {have}")
    return slot


@contextmanager
def own_runtime(
    home: Home,
    slot: Slot,
    session: SessionSettings,
    *,
    telemetry: bool,
    say: Callable[[str], None],
) -> Iterator[Runtime]:
    """Load a slot, and count what it infers into the device's telemetry.

    say: hears why it is not counted, where that is so.

    Raises:
        UpdateError: the slot cannot be loaded.
    """
    loaded = load_slot(Store(home, quota=0), slot, session)
    meter: Meter = NoMeter()
    recorder = None
    if telemetry:
        windows = Windows()
        try:
            recorder = Recorder(home, boot=secrets.token_hex(16), windows=windows)
        except (JournalError, OSError) as error:
            say(f"what is inferred is not counted: {error}")
        else:
            meter = windows
            recorder.start()
    try:
        runtime = Runtime(meter, session)
        runtime.swap(slot.model, loaded)
        yield runtime
    finally:
        if recorder is not None:
            recorder.close()
