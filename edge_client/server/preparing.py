"""The manifest's steps before and after the graph, where a request asks for them.

BYTES are encoded images, one an element. The request's parameter ``preprocess`` has the steps
done to an array (pixels, a series); ``postprocess`` adds an output ``records``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import msgspec

from edge_client.errors import InputError, LoadError
from edge_client.inference import Array, Loaded, Prediction
from edge_client.ops import Postprocessor, Preprocessor
from edge_client.server.failures import Kind, RequestError
from edge_client.server.limits import MAX_TEXTS
from edge_client.server.request import Ask

MAX_KEPT = 32
_ENCODER = msgspec.json.Encoder()


def needs_preparing(ask: Ask) -> bool:
    """Whether anything is to be done before the graph."""
    if ask.prepare:
        return True
    for value in ask.inputs.values():  # noqa: SIM110 - on the way of each request: any() costs more
        if isinstance(value, list):
            return True
    return False


class Steps:
    """The steps of each manifest, made once. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Preprocessor | LoadError, Postprocessor]] = {}

    def prepare(self, ask: Ask, loaded: Loaded) -> Mapping[str, Array]:
        """The arrays to check and run.

        Raises:
            InputError: a step cannot be done.
            RequestError: they cannot be done on this device.
        """
        before = self._of(loaded)[0]
        if isinstance(before, LoadError):
            why = f"{before} ({before.hint})" if before.hint else str(before)
            raise RequestError(Kind.UNSUPPORTED, why)
        wanted = [spec.name for spec in loaded.model.signature.inputs]
        if list(ask.inputs) != wanted[:1]:
            msg = f"what is to be prepared goes to the input {wanted[0]!r} alone"
            raise InputError(msg)
        return before.prepare(ask.inputs[wanted[0]])

    def finish(self, loaded: Loaded, answer: Prediction) -> tuple[bytes, ...]:
        """A JSON text per sample.

        Raises:
            InferenceError: the model gives no scores over classes.
            InputError: there would be too many.
        """
        after = self._of(loaded)[1]
        if answer.n * after.k > MAX_TEXTS:
            msg = f"records of {answer.n} samples are too many for one answer"
            raise InputError(msg, hint="ask for fewer samples at a time")
        found = after.finish(answer)
        return tuple(_ENCODER.encode(one.record()) for one in found)

    def _of(self, loaded: Loaded) -> tuple[Preprocessor | LoadError, Postprocessor]:
        key = loaded.slot.manifest_sha256
        with self._lock:
            made = self._made.get(key)
            if made is None:
                while len(self._made) >= MAX_KEPT:
                    del self._made[next(iter(self._made))]
                made = self._made[key] = (_before(loaded), Postprocessor(loaded.manifest))
            return made


def _before(loaded: Loaded) -> Preprocessor | LoadError:
    try:
        return Preprocessor(loaded.manifest)
    except LoadError as error:
        return error
