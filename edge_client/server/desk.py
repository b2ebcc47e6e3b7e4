"""What the local server answers, whatever the protocol: which models are here, and inferences.

An inference is run at once, in the thread that read it, where the model's runs are short and
nothing waits; else it goes to the batcher. Either way it ends with the version with which it
began, and the answer names that one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from edge_client.batching import Answer, Batcher, Runs
from edge_client.errors import EdgeError, FullError, InputError, LateError
from edge_client.inference import Array, Loaded, Prediction
from edge_client.queueing import MAX_PRIORITY
from edge_client.server.datatypes import datatype_of
from edge_client.server.failures import Kind, RequestError
from edge_client.server.limits import Limits
from edge_client.server.messages import (
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    TensorMetadata,
)
from edge_client.server.pace import Pace
from edge_client.server.preparing import Steps, needs_preparing
from edge_client.server.request import Ask
from edge_client.server.served import Outcome, Served
from edge_client.server.statistics import Statistics, Times
from edge_client.slots import Slot

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_repository",
    "parameters",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"
_MANY = 64
"""Samples that no answer gets too large by."""

_LATE = "the request's timeout passed before it ran"
_HELD, _HELD_TEXT = 4096, 48
"""Bytes of a waiting request, and of each of its texts, beside what they carry."""

log = logging.getLogger(__name__)


class Inferrer(Runs, Protocol):
    """What is needed of ``edge_client.runtime.Runtime``."""

    def slots(self) -> tuple[Slot, ...]:
        """What serves now."""


class Desk:
    """Answers for one runtime. ``infer`` is called from one thread; the rest from any."""

    def __init__(
        self, runtime: Inferrer, batcher: Batcher, *, version: str, limits: Limits
    ) -> None:
        self._runtime, self._batcher, self._version = runtime, batcher, version
        self._limits, self._pace = limits, Pace(limits.inline_seconds)
        self._steps = Steps()
        self._helper = ThreadPoolExecutor(1, "local-server-images")
        self._elsewhere = self._held = 0
        self.statistics = Statistics()

    def close(self) -> None:
        """Prepare no more inputs."""
        self._helper.shutdown(wait=False, cancel_futures=True)

    def server(self) -> ServerMetadata:
        """What this server is."""
        return ServerMetadata("argosy", self._version, list(EXTENSIONS))

    def ready(self) -> bool:
        """Whether a model serves."""
        return bool(self._runtime.slots())

    def model_ready(self, model: str, version: str) -> bool:
        """Whether that model serves, in that version where one is named."""
        try:
            self.find(model, version)
        except RequestError:
            return False
        return True

    def metadata(self, model: str, version: str) -> ModelMetadata:
        """What a model takes and gives.

        Raises:
            RequestError: it is not here.
        """
        loaded = self.find(model, version)
        signature = loaded.model.signature
        sides = [
            [TensorMetadata(s.name, datatype_of(np.dtype(s.dtype)), list(s.shape)) for s in specs]
            for specs in (signature.inputs, signature.outputs)
        ]
        return ModelMetadata(model, [str(loaded.slot.version)], PLATFORM, *sides)

    def index(self) -> list[IndexEntry]:
        """The models that serve."""
        return [IndexEntry(s.model, str(s.version), "READY") for s in self._runtime.slots()]

    def figures(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Statistics of one model, or of all.

        Raises:
            RequestError: it is not here.
        """
        slots = [self.find(model, version).slot] if model else self._runtime.slots()
        return [self.statistics.of((s.model, s.version)) for s in slots]

    def find(self, model: str, version: str) -> Loaded:
        """The model that serves.

        Raises:
            RequestError: there is none of that name, or it serves in another version.
        """
        loaded = self._runtime.loaded(model)
        if loaded is None:
            here = ", ".join(slot.model for slot in self._runtime.slots()) or "none"
            msg = f"model {model[:100]!r} is not on this device (here: {here})"
            raise RequestError(Kind.NOT_FOUND, msg)
        _same_version(loaded.slot, version)
        return loaded

    def infer(self, ask: Ask, done: Callable[[Outcome], None]) -> Outcome | None:
        """Infer: an outcome at once, or None and ``done`` hears of it later, in any thread.

        Once per request ``heard`` must be called with what ``done`` got, in the thread of
        ``infer``.
        """
        try:
            loaded = self.find(ask.model, ask.version)
        except RequestError as error:
            return error
        key = (loaded.slot.model, loaded.slot.version)
        try:
            return self._infer(ask, loaded, done)
        except EdgeError as error:
            self.statistics.failed(key, time.perf_counter() - ask.began)
            return error

    def heard(self, ask: Ask, outcome: Outcome) -> None:
        """What a request that ran elsewhere came to."""
        self._elsewhere -= 1
        self._held -= held_by(ask)
        seconds = time.perf_counter() - ask.began
        if isinstance(outcome, Served):
            if not needs_preparing(ask):
                self._pace.answered(outcome.slot.sha256, _values(plain(ask)), seconds)
            return
        loaded = self._runtime.loaded(ask.model)
        if loaded is not None:
            self.statistics.failed((loaded.slot.model, loaded.slot.version), seconds)

    def _infer(self, ask: Ask, loaded: Loaded, done: Callable[[Outcome], None]) -> Outcome | None:
        if needs_preparing(ask):
            self._require_room(ask, loaded)
            # Pictures take milliseconds: others are not to wait for them.
            self._helper.submit(self._prepare, ask, loaded, done)
        else:
            inputs = plain(ask)
            if _samples(inputs) > _MANY:
                self._require_few(loaded, inputs)
            if not self._elsewhere and self._pace.short(loaded.slot.sha256, _values(inputs)):
                return self._here(ask, loaded, inputs)
            self._require_room(ask, loaded)
            self._submit(ask, loaded, inputs, done)
        self._elsewhere += 1
        self._held += held_by(ask)
        return None

    def _require_room(self, ask: Ask, loaded: Loaded) -> None:
        """Bodies are counted as they came; what was compressed, or is text, is more here."""
        size, most = held_by(ask), self._limits.held
        if size > most:
            self._runtime.rejected(loaded)
            msg = f"the inputs take {size} bytes here, and {most} may be: send fewer at a time"
            raise RequestError(Kind.TOO_LARGE, msg)
        if self._held + size > most:
            self._runtime.shed(loaded)
            msg = f"requests of {self._held} bytes wait already"
            raise FullError(msg, hint="ask again later, or less often")

    def _require_few(self, loaded: Loaded, inputs: Mapping[str, Array]) -> None:
        """A small request of very many samples must not become an answer that fills the memory."""
        signature, n = loaded.model.signature, _samples(inputs)
        if signature.inputs[0].shape[:1] != (-1,):
            return
        each = sum(
            np.dtype(spec.dtype).itemsize * math.prod(max(1, side) for side in spec.shape[1:])
            for spec in signature.outputs
        )
        most = max(1, min(self._limits.samples, self._limits.held // each))
        if n > most:
            self._runtime.rejected(loaded)
            msg = f"the request has {n} samples; {most} may be at once"
            raise InputError(msg, hint="ask for fewer at a time")

    def _prepare(self, ask: Ask, loaded: Loaded, done: Callable[[Outcome], None]) -> None:
        """Do the manifest's steps, then submit. In another thread."""
        try:
            if ask.deadline is not None and time.perf_counter() > ask.deadline:
                self._runtime.shed(loaded)
                raise LateError(_LATE)  # noqa: TRY301 - told as all else
            try:
                inputs = self._steps.prepare(ask, loaded)
            except InputError:
                self._runtime.rejected(loaded)
                raise
            self._require_few(loaded, inputs)
            self._submit(ask, loaded, inputs, done)
        except EdgeError as error:
            done(error)
        except Exception:
            log.exception("inputs could not be prepared")
            done(RequestError(Kind.INTERNAL, "the server failed; its log says why"))

    def _submit(
        self,
        ask: Ask,
        loaded: Loaded,
        inputs: Mapping[str, Array],
        done: Callable[[Outcome], None],
    ) -> None:
        submitted = time.perf_counter()

        def finish(answer: Answer) -> None:
            done(self._outcome(ask, loaded, answer, submitted))

        self._batcher.submit(
            inputs,
            loaded=loaded,  # the one whose steps were done
            priority=urgency(ask.priority),
            deadline=ask.deadline,
            done=finish,
        )

    def _here(self, ask: Ask, loaded: Loaded, inputs: Mapping[str, Array]) -> Served:
        model = loaded.model
        try:
            feed = model.check(inputs)
        except InputError:
            self._runtime.rejected(loaded)
            raise
        n = model.size(feed)
        start = time.perf_counter()
        if ask.deadline is not None and start > ask.deadline:
            self._runtime.shed(loaded, n)
            raise LateError(_LATE)
        raw = self._runtime.infer(loaded, feed, n=n)
        took = time.perf_counter() - start
        self._pace.ran(loaded.slot.sha256, _values(inputs), took)
        answer = model.answer(raw, n, loaded.slot)
        return self._served(ask, loaded, answer, Times(read=start - ask.began, infer=took))

    def _outcome(self, ask: Ask, loaded: Loaded, answer: Answer, submitted: float) -> Outcome:
        """What the batcher answered, as an outcome."""
        if isinstance(answer, EdgeError):
            return answer
        times = Times(read=submitted - ask.began, infer=time.perf_counter() - submitted)
        try:
            return self._served(ask, loaded, answer, times)
        except EdgeError as error:
            return error

    def _served(self, ask: Ask, loaded: Loaded, answer: Prediction, times: Times) -> Served:
        return Served(
            slot=answer.slot or loaded.slot,
            n=answer.n,
            outputs=answer.outputs,
            labels=answer.labels,
            times=times,
            records=self._steps.finish(loaded, answer) if ask.finish else None,
        )


def urgency(priority: int) -> int:
    """The batcher's priority, of which the highest goes first.

    The protocol's 1 is the most urgent, then 2; 0 means the default, which comes after all.
    """
    return max(0, MAX_PRIORITY + 1 - priority) if priority else 0


def _same_version(slot: Slot, version: str) -> None:
    if version and version != str(slot.version):
        msg = f"model {slot.model!r} serves in version {slot.version}, not {version[:20]!r}"
        raise RequestError(Kind.NOT_FOUND, msg)


def plain(ask: Ask) -> Mapping[str, Array]:
    """The inputs of a request that needs no preparing."""
    return {name: value for name, value in ask.inputs.items() if not isinstance(value, list)}


def held_by(ask: Ask) -> int:
    """Bytes of what a request holds while it waits, about."""
    size = _HELD
    for value in ask.inputs.values():
        if isinstance(value, list):
            size += sum(map(len, value)) + _HELD_TEXT * len(value)
        else:
            size += value.nbytes
    return size


def _values(inputs: Mapping[str, Array]) -> int:
    return sum(value.size for value in inputs.values())


def _samples(inputs: Mapping[str, Array]) -> int:
    first = next(iter(inputs.values()), None)
    return len(first) if first is not None and first.ndim else 1
