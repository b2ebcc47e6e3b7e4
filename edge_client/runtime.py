"""What serves: one loaded model at a time, swapped between two requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_client.busy import Busy
from edge_client.errors import (
    EdgeError,
    InferenceError,
    LoadError,
    NoModelError,
    OutOfMemoryError,
    UpdateError,
)
from edge_client.inference import Array, Loaded, Prediction, load_model
from edge_client.slots import Slot
from edge_client.store import Store
from edge_client.times import Timer
from schemas.errors import DeviceCause
from schemas.model import Manifest


class Meter(Protocol):
    """Hears of every inference."""

    def served(
        self, loaded: Loaded, seconds: float, prediction: Prediction, truth: int | None
    ) -> None:
        """A batch was answered. truth: the class of its one sample, where known."""

    def failed(self, loaded: Loaded) -> None:
        """An inference failed."""


class Runtime:
    """Holds the active model. A request keeps the model that it began with.

    busy: the inferences that are under way. times: how long they take.
    """

    def __init__(self, meter: Meter) -> None:
        self.busy, self.times = Busy(), Timer()
        self._meter = meter
        self._loaded: Loaded | None = None
        self._changed = threading.Condition()
        self._counts: tuple[int, int] = (0, 0)

    @property
    def loaded(self) -> Loaded | None:
        """What serves now."""
        return self._loaded

    @property
    def slot(self) -> Slot | None:
        """The slot that serves now."""
        loaded = self._loaded
        return None if loaded is None else loaded.slot

    def swap(self, loaded: Loaded | None) -> None:
        """Serve another model from the next request on, counting from zero."""
        with self._changed:
            self._loaded = loaded
            self._counts = (0, 0)
            self.times.begin(None if loaded is None else loaded.slot.sha256)
            self._changed.notify_all()

    def counts(self, slot: Slot) -> tuple[int, int]:
        """(inferences, failed ones) of ``slot`` since it was swapped in."""
        with self._changed:
            serving = self._loaded is not None and self._loaded.slot == slot
            return self._counts if serving else (0, 0)

    def wait(self, timeout: float) -> Loaded | None:
        """Wait until a model serves, at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._loaded is not None, timeout)
            return self._loaded

    def predict(
        self, inputs: Array | Mapping[str, Array], *, truth: int | None = None
    ) -> Prediction:
        """Infer with the active model.

        Args:
            inputs: as for ``ServedModel.predict``.
            truth: the true class of a batch of one, where it is known.

        Raises:
            NoModelError: none is active.
            InputError: an input does not fit; nothing is counted against the model.
            InferenceError: the model failed; counted.
        """
        loaded = self._loaded
        if loaded is None:
            msg = "no model is active on this device yet"
            raise NoModelError(msg)
        start = time.perf_counter()
        try:
            with self.busy.doing("an inference", loaded.slot.sha256):
                prediction = loaded.model.predict(inputs)
        except InferenceError:
            self.count_failure(loaded)
            raise
        seconds = time.perf_counter() - start
        self._count(loaded, prediction.n, 0)
        self.times.add(loaded.slot.sha256, seconds / max(1, prediction.n))
        self._meter.served(loaded, seconds, prediction, truth)
        return prediction

    def count_failure(self, loaded: Loaded) -> None:
        """Count a failed inference against a model."""
        self._count(loaded, 1, 1)
        self._meter.failed(loaded)

    def _count(self, loaded: Loaded, n: int, errors: int) -> None:
        with self._changed:
            if self._loaded is loaded:
                self._counts = (self._counts[0] + n, self._counts[1] + errors)


def load_slot(store: Store, slot: Slot) -> Loaded:
    """Load a slot from the store, hashing everything again first.

    Raises:
        UpdateError: it is missing, damaged or not loadable, or memory is short.
    """
    try:
        manifest = Manifest.model_validate_json(store.manifest(slot.manifest_sha256))
        return Loaded(slot, load_model(store.read(slot.sha256), manifest, slot.variant))
    except MemoryError as error:
        msg = "there is not enough memory to load the model"
        raise OutOfMemoryError(msg) from error
    except ValueError as error:
        msg = f"the manifest cannot be read: {error}"
        raise LoadError(msg) from error


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Why a slot could not be loaded."""

    slot: Slot
    cause: DeviceCause
    why: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.slot.model} v{self.slot.version}: {self.why}"


def load_first(
    store: Store, *slots: Slot | None, busy: Busy | None = None
) -> tuple[Loaded | None, list[Unloadable]]:
    """Load the first slot that can be loaded, with what went wrong before it."""
    busy = busy or Busy()
    problems: list[Unloadable] = []
    for slot in slots:
        if slot is None:
            continue
        try:
            with busy.doing("a load", slot.sha256):
                return load_slot(store, slot), problems
        except (EdgeError, OSError) as error:
            cause = error.cause if isinstance(error, UpdateError) else DeviceCause.LOAD_FAILED
            problems.append(Unloadable(slot, cause, str(error)))
    return None, problems
