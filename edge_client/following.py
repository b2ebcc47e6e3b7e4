"""A program's model follows what the agent has activated, by a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from edge_client.errors import EdgeError, NoModelError
from edge_client.loading import load_slot
from edge_client.runtime import Runtime
from edge_client.settings import GIB, Home
from edge_client.slots import Pointer, Slot, find_pointers
from edge_client.store import Store
from schemas.ids import Name

LOOK_SECONDS = 0.2
AGAIN_SECONDS = 5.0
"""Between two tries to load what could not be loaded."""

log = logging.getLogger(__name__)


class Follower:
    """Of one model in one runtime. It knows nothing of who uses them, so that these can go."""

    def __init__(self, home: Home, runtime: Runtime, model: Name) -> None:
        """Put together; ``first`` and ``start`` begin."""
        self._path, self._runtime, self._model = home.pointer, runtime, model
        self._store = Store(home, quota=2 * GIB)
        self._seen: tuple[int, int] | None = None
        self._again_at: float | None = None
        self._told: Slot | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {model}", daemon=True)

    def first(self) -> None:
        """Load what is active, or else its fallback.

        Raises:
            NoModelError: nothing is.
            UpdateError: what is active cannot be loaded, nor its fallback.
        """
        self._seen = _stamp(self._path)
        pointer = self._pointer()
        if pointer is None or pointer.active is None:
            msg = f"model {self._model} is not active on this device"
            raise NoModelError(msg)
        try:
            self._take(pointer.active)
        except (EdgeError, OSError) as error:
            if pointer.fallback is None:
                raise
            log.warning("%s: %s; its fallback serves", _words(pointer.active), error)
            self._told, self._again_at = pointer.active, time.monotonic() + AGAIN_SECONDS
            self._take(pointer.fallback)

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End; a load that is under way is waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Take over what has changed; what cannot be loaded leaves the old version in place."""
        stamp = _stamp(self._path)
        due = self._again_at is not None and time.monotonic() >= self._again_at
        if (stamp == self._seen and not due) or stamp is None:
            return  # gone, as with a disk that is: what serves goes on
        pointer = self._pointer()
        if pointer is None:
            return  # damaged: the agent mends it
        self._seen, self._again_at = stamp, None
        active = pointer.active
        if active == self._runtime.slot(self._model):
            return
        if active is None:
            log.warning("model %s is not active on this device any more", self._model)
            self._runtime.swap(self._model, None)
            return
        try:
            self._take(active)
        except (EdgeError, OSError) as error:
            self._again_at = time.monotonic() + AGAIN_SECONDS
            if active != self._told:
                log.warning("%s: %s; the version before serves on", _words(active), error)
            self._told = active

    def _take(self, slot: Slot) -> None:
        with self._runtime.busy.doing("a load", slot.sha256):
            loaded = load_slot(self._store, slot, self._runtime.session)
        self._runtime.swap(self._model, loaded)

    def _pointer(self) -> Pointer | None:
        pointers = find_pointers(self._path).pointers
        return None if pointers is None else pointers.of(self._model)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # a program must not stay behind for good by one fault
                log.exception("model %s could not be followed", self._model)
                self._again_at = time.monotonic() + AGAIN_SECONDS


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes with each swap of the pointer; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns)


def _words(slot: Slot) -> str:
    return f"{slot.model} v{slot.version} ({slot.variant})"
