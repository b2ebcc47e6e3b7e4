"""Inference for programs on the device: ``Edge(home).model().predict(x)``.

Serves what the agent has activated, and follows it. Inferences made here are not
counted in telemetry or in a probation, which are the agent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from edge_client.errors import NoModelError
from edge_client.inference import Array, Loaded, Prediction
from edge_client.runtime import load_slot
from edge_client.settings import GIB, Home
from edge_client.slots import Slot, read_pointer
from edge_client.store import Store

DEFAULT_HOME = "~/.argosy-edge"


def home_of(path: str | Path | None = None) -> Home:
    """The home: what is given, else ``$ARGOSY_EDGE_HOME``, else ``~/.argosy-edge``."""
    return Home(Path(path or os.environ.get("ARGOSY_EDGE_HOME") or DEFAULT_HOME).expanduser())


class Edge:
    """A device, by its home folder."""

    def __init__(self, home: str | Path | None = None) -> None:
        self._home = home_of(home)

    def model(self) -> ServedModel:
        """The active model.

        Raises:
            NoModelError: there is none yet.
            UpdateError: its files are damaged.
        """
        return ServedModel(self._home)


class ServedModel:
    """The device's active model, whichever it is at each call. Thread-safe."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._store = Store(home, quota=2 * GIB)
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._loaded = self._current()

    @property
    def slot(self) -> Slot:
        """Which model, version and variant serves."""
        return self._current().slot

    def predict(self, inputs: Array | Mapping[str, Array]) -> Prediction:
        """Infer.

        Args:
            inputs: arrays by input name, or the one array of a model with one input;
                dtype and shape as in the signature, the batch first.

        Raises:
            InputError: an input does not fit; says which, what was wanted and given.
            InferenceError: the model failed, or gave NaN or an infinity.
        """
        return self._current().model.predict(inputs)

    def _current(self) -> Loaded:
        try:
            found = self._home.pointer.stat()
        except FileNotFoundError:
            raise _no_model(self._home) from None
        seen = (found.st_ino, found.st_mtime_ns)
        with self._lock:
            if seen != self._seen:
                slot = read_pointer(self._home.pointer).active
                if slot is None:
                    raise _no_model(self._home)
                self._loaded = load_slot(self._store, slot)
                self._seen = seen
            return self._loaded


def _no_model(home: Home) -> NoModelError:
    msg = f"no model is active in {home.root} yet"
    return NoModelError(msg, hint="start a rollout to this device; see `argosy-edge status`")
