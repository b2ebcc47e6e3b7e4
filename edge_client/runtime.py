"""What serves: a loaded model of each name, swapped between two requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from edge_client.busy import Busy
from edge_client.errors import InferenceError, InputError, NoModelError, UsageError
from edge_client.inference import Array, Inputs, Loaded, Prediction
from edge_client.meter import Meter
from edge_client.sessions import SessionSettings
from edge_client.shadow import Shadow
from edge_client.slots import Slot
from edge_client.times import Timer
from schemas.ids import Name

INFERENCE = "an inference"
FOLD = 4096
"""Inferences after which counts are added up even if nobody asks for them."""


class _Serving:
    """One model from its swap on, with what it did.

    tape: (samples, failed ones, seconds per sample), one for each inference: appending is atomic,
    so that no request waits for a lock; they are added up when somebody asks.
    """

    __slots__ = ("_lock", "_times", "errors", "loaded", "n", "tape")

    def __init__(self, loaded: Loaded, times: Timer) -> None:
        self.loaded, self._times = loaded, times
        self.tape: deque[tuple[int, int, float | None]] = deque()
        self.n = self.errors = 0
        self._lock = threading.Lock()

    def fold(self) -> None:
        """Add up."""
        with self._lock:
            tape, seconds = self.tape, []
            for _ in range(len(tape)):
                n, errors, took = tape.popleft()
                self.n += n
                self.errors += errors
                if took is not None:
                    seconds.append(took)
        self._times.add(self.loaded.slot.sha256, *seconds)


class Runtime:
    """Holds the active model of each name. A request keeps the model that it began with.

    busy: the inferences that are under way. times: how long they take, once ``fold`` was called.
    session: how what is loaded for it shall run.
    """

    def __init__(self, meter: Meter, session: SessionSettings | None = None) -> None:
        self.busy, self.times = Busy(), Timer()
        self.session = session or SessionSettings()
        self._meter = meter
        self._changed = threading.Condition()
        # Both are replaced as a whole and read without a lock.
        self._serving: dict[Name, _Serving] = {}
        self._only: _Serving | None = None
        self._shadow: Shadow | None = None

    # --- what serves ------------------------------------------------------------------

    def slots(self) -> tuple[Slot, ...]:
        """What serves now, sorted by model."""
        return tuple(one.loaded.slot for one in self._serving.values())

    def loaded(self, model: Name | None = None) -> Loaded | None:
        """What serves a model now; None while nothing does. model: None means the only one.

        Raises:
            UsageError: there are several, and none was named.
        """
        serving = self._find(model)
        return None if serving is None else serving.loaded

    def slot(self, model: Name | None = None) -> Slot | None:
        """The slot that serves a model now; likewise."""
        serving = self._find(model)
        return None if serving is None else serving.loaded.slot

    def swap(self, model: Name, loaded: Loaded | None) -> None:
        """Serve another version of a model from the next request on, counting from zero."""
        with self._changed:
            new = dict(self._serving)
            old = new.pop(model, None)
            if old is not None:
                old.fold()
                self.times.end(old.loaded.slot.sha256)
            if loaded is not None:
                self.times.begin(loaded.slot.sha256)
                new[model] = _Serving(loaded, self.times)
            self._serving = dict(sorted(new.items()))
            self._only = next(iter(new.values())) if len(new) == 1 else None
            self._changed.notify_all()
        if loaded is not None:
            self._meter.cold(loaded)

    def wait(self, timeout: float) -> tuple[Slot, ...]:
        """Wait until a model serves, at most ``timeout`` seconds. Returns what does."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._serving), timeout)
            return self.slots()

    def forked(self) -> None:
        """In a child of the process: nothing serves there. Takes no lock, which may be held."""
        self._serving, self._only, self._shadow = {}, None, None

    # --- inference --------------------------------------------------------------------

    def predict(
        self, inputs: Inputs, *, model: Name | None = None, truth: int | None = None
    ) -> Prediction:
        """Infer.

        Args:
            inputs: as for ``ServedModel.predict``.
            model: which one; may be left out where there is one.
            truth: the true class of a batch of one, where it is known.

        Raises:
            NoModelError: none is active.
            UsageError: several are, and none was named.
            InputError: an input does not fit; nothing is counted against the model.
            InferenceError: the model failed; counted.
        """
        serving = self._only if model is None else self._serving.get(model)
        if serving is None:
            serving = self._require(model)
        loaded = serving.loaded
        try:
            feed = loaded.model.check(inputs)
        except InputError:
            self._meter.rejected(loaded)
            raise
        n = loaded.model.size(feed)
        raw = self.infer(loaded, feed, n=n, truth=truth)
        return loaded.model.answer(raw, n, loaded.slot)

    def infer(
        self,
        loaded: Loaded,
        feed: dict[str, Array],
        *,
        n: int,
        queue_seconds: float | Sequence[float] = 0.0,
        runs: int = 1,
        truth: int | None = None,
        tried: bool = True,
    ) -> list[Array]:
        """Run a checked feed, timed and counted.

        Args:
            loaded: what to run it with, which need not serve any more.
            feed: what ``Model.check`` gave.
            n: samples in it.
            queue_seconds: that they waited before, all or each.
            runs: calls of the session that this stands for.
            truth: as for ``predict``.
            tried: count a failure; else whoever calls tries the samples again.

        Returns:
            The outputs in the signature's order, all finite.

        Raises:
            InferenceError: the model failed.
        """
        slot, busy = loaded.slot, self.busy
        start = time.perf_counter()
        busy.begin(INFERENCE, slot.sha256)
        try:
            raw = loaded.model.run(feed)
            loaded.model.finite(raw)
        except InferenceError:
            if tried:
                self.count_failure(loaded, n)
            raise
        finally:
            busy.end()
        seconds = time.perf_counter() - start
        serving = self._serving.get(slot.model)
        if serving is not None and serving.loaded is loaded:
            serving.tape.append((n, 0, seconds / (n or 1)))
            if len(serving.tape) > FOLD:
                serving.fold()
        self._meter.served(
            loaded,
            feed=feed,
            raw=raw,
            n=n,
            seconds=seconds,
            queue_seconds=queue_seconds,
            truth=truth,
            runs=runs,
        )
        shadow = self._shadow
        if shadow is not None and shadow.model == slot.model:
            shadow.offer(loaded, feed, raw, n, seconds)
        return raw

    # --- counts -----------------------------------------------------------------------

    def counts(self, slot: Slot) -> tuple[int, int]:
        """(samples, failed ones) of ``slot`` since it was swapped in."""
        serving = self._serving.get(slot.model)
        if serving is None or serving.loaded.slot != slot:
            return (0, 0)
        serving.fold()
        return (serving.n, serving.errors)

    def fold(self) -> None:
        """Let ``times`` know of all inferences so far."""
        for serving in self._serving.values():
            serving.fold()

    def count_failure(self, loaded: Loaded, n: int = 1) -> None:
        """Count failed inferences against a model."""
        serving = self._serving.get(loaded.slot.model)
        if serving is not None and serving.loaded is loaded:
            serving.tape.append((n, n, None))
        self._meter.failed(loaded, n)

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that do not fit a model; not against it."""
        self._meter.rejected(loaded, n)

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that were turned away unanswered."""
        self._meter.shed(loaded, n)

    # --- shadow -----------------------------------------------------------------------

    @property
    def shadowing(self) -> Shadow | None:
        """What runs beside a model of its name."""
        return self._shadow

    def shadow(self, loaded: Loaded | None, cpu_share: float = 0.25) -> None:
        """Run a candidate beside the active version of its model; None ends that.

        cpu_share: of one core that it may use.
        """
        old, self._shadow = self._shadow, None
        if old is not None:
            old.close()
        if loaded is not None:
            self._shadow = Shadow(loaded, self._meter, busy=self.busy, cpu_share=cpu_share)

    # ----------------------------------------------------------------------------------

    def _find(self, model: Name | None) -> _Serving | None:
        serving = self._serving
        if model is not None:
            return serving.get(model)
        if len(serving) > 1:
            names = ", ".join(serving)
            msg = f"several models are active here ({names})"
            raise UsageError(msg, hint="name the one that is meant")
        return next(iter(serving.values()), None)

    def _require(self, model: Name | None) -> _Serving:
        found = self._find(model)
        if found is not None:
            return found
        names = ", ".join(self._serving)
        if model is not None and names:
            msg = f"model {model} is not active on this device; there is {names}"
            raise NoModelError(msg)
        msg = "no model is active on this device yet"
        raise NoModelError(msg)
