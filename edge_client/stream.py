"""The sensor: real samples from a file, at a fixed rate, through each model that they fit."""

from __future__ import annotations

import logging
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_client.errors import InferenceError, InputError, NoModelError, UsageError
from edge_client.inference import Array, Loaded
from edge_client.runtime import Runtime
from edge_client.settings import GIB
from schemas.ids import Name
from schemas.signature import TensorSpec

MAX_SOURCE_BYTES = 2 * GIB
_BEHIND_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Samples. x: [n, ...]; y: [n] integers, or None when the classes are not known.

    named: arrays [n, ...] by input, for models of several; x is then one of them.
    """

    x: Array
    y: Array | None
    named: Mapping[str, Array] = field(default_factory=dict)


def read_source(path: Path) -> Source:
    """Read an npz with ``x``, or an array for each input by its name, and perhaps ``y``.

    Raises:
        UsageError: it is not such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_SOURCE_BYTES:
            msg = f"{path} holds more than {MAX_SOURCE_BYTES} bytes"
            raise UsageError(msg)
        with np.load(path, allow_pickle=False) as arrays:
            y = arrays["y"] if "y" in arrays.files else None
            named = {name: arrays[name] for name in arrays.files if name != "y"}
            x = named["x"] if "x" in named or not named else next(iter(named.values()))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        msg = f"{path} is not a usable source: {error}"
        raise UsageError(msg, hint="give an npz with an array x and, if known, y") from error
    for name, one in named.items():
        if one.ndim == 0 or len(one) == 0 or one.dtype.kind not in "fiub":
            msg = f"{path}: {name} must be a numeric array with at least one sample"
            raise UsageError(msg)
        if len(one) != len(x):
            msg = f"{path}: {name} has {len(one)} samples, other inputs have {len(x)}"
            raise UsageError(msg)
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "iu"):
        msg = f"{path}: y must hold one integer per sample"
        raise UsageError(msg)
    return Source(x, y, named)


def fit(sample: Array, spec: TensorSpec) -> Array:
    """One sample as a batch of one, in the signature's type and shape.

    Numbers are converted only where no value changes in kind (integers to integers or
    floats, floats to floats); the shape only where the count of elements stays.

    Raises:
        InputError: it does not fit.
    """
    wanted = np.dtype(spec.dtype)
    if wanted != sample.dtype and not np.can_cast(sample.dtype, wanted, "same_kind"):
        msg = f"input {spec.name!r} must be {spec.dtype}, the source gives {sample.dtype.name}"
        raise InputError(msg)
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if sample.size != np.prod(shape):
        msg = f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(sample.shape)}"
        raise InputError(msg)
    return sample.astype(wanted).reshape(shape)


def _inputs(loaded: Loaded, source: Source, index: int) -> Array | dict[str, Array]:
    """What a model is fed with: the one array of one input, else an array for each by name."""
    specs = loaded.model.signature.inputs
    if len(specs) == 1:
        (spec,) = specs
        return fit(source.named.get(spec.name, source.x)[index], spec)
    missing = [spec.name for spec in specs if spec.name not in source.named]
    if missing:
        msg = f"the model has {len(specs)} inputs, the source has no array {missing[0]!r}"
        raise InputError(msg)
    return {spec.name: fit(source.named[spec.name][index], spec) for spec in specs}


class Stream:
    """Feeds the samples, in order and over and over, from the first one on."""

    def __init__(
        self,
        source: Source,
        *,
        rate: float,
        runtime: Runtime,
        stop: threading.Event,
        model: Name | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._rate, self._runtime, self._stop = source, rate, runtime, stop
        self._model, self._clock = model, clock
        self._told: set[tuple[str, int]] = set()
        self._fed: set[Name] = set()

    def run(self) -> None:
        """Go on until stopped. Waits while no model is active."""
        due = self._clock()
        index = 0
        while not self._stop.is_set():
            if not self._runtime.wait(0.2):
                due = self._clock()
                continue
            if self._stop.wait(max(0.0, due - self._clock())):
                return
            self.feed(index)
            index = (index + 1) % len(self._source.x)
            due += 1 / self._rate
            if self._clock() - due > _BEHIND_SECONDS:
                due = self._clock()  # too slow for the rate: do not run after it

    def feed(self, index: int) -> None:
        """Infer one sample, by each model that it fits. A failure is counted and ends nothing."""
        serving = [slot.model for slot in self._runtime.slots()]
        wanted = serving if self._model is None else [self._model]
        for name in wanted:
            loaded = self._runtime.loaded(name)
            if loaded is not None:
                self._infer(loaded, index, alone=len(wanted) == 1)

    def _infer(self, loaded: Loaded, index: int, *, alone: bool) -> None:
        """alone: the samples are of this model or of none, not of another one perhaps."""
        truth = None if self._source.y is None else int(self._source.y[index])
        model = loaded.slot.model
        try:
            inputs = _inputs(loaded, self._source, index)
            self._runtime.predict(inputs, model=model, truth=truth)
        except InputError as error:
            self._tell(loaded, error)
            if alone or model in self._fed:
                # The sensor gives what it gives: a model that cannot take it does not work here.
                self._runtime.count_failure(loaded)
            return
        except InferenceError as error:
            self._tell(loaded, error)
        except NoModelError:
            return
        self._fed.add(model)

    def _tell(self, loaded: Loaded, error: Exception) -> None:
        key = (loaded.slot.model, loaded.slot.version)
        if key not in self._told:
            self._told.add(key)
            log.warning("%s v%s: %s", *key, error)
