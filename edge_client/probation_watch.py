"""Measures a model on probation: the figures that ``edge_client.probation`` judges."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from edge_client.device import Device
from edge_client.errors import UpdateError
from edge_client.events import Event, Observed
from edge_client.gauges import rss_mb
from edge_client.inference import Loaded
from edge_client.live_counts import live_records
from edge_client.live_layout import NOTHING, Record, Totals
from edge_client.probation import Figures, GoldenRun, Times
from edge_client.probe import MAX_GOLDEN_BYTES, check_golden, read_golden
from edge_client.runtime import Runtime
from edge_client.slots import Slot
from edge_client.states import Key, OnProbation
from edge_client.store import Store
from edge_client.times import write_past
from schemas.errors import DeviceCause
from schemas.model import Manifest

LASTING = 3
"""Looks over which memory must have grown, so that a peak is no growth."""

LOOK_SECONDS = 0.5

log = logging.getLogger(__name__)


class ProbationWatch:
    """Of one device. Used from the thread that decides."""

    def __init__(
        self,
        device: Device,
        *,
        apply: Callable[[Event], None],
        memory: Callable[[], float | None] = rss_mb,
        others: Callable[[], Mapping[tuple[bytes, int], Record]] | None = None,
    ) -> None:
        """Put together.

        Args:
            device: its parts.
            apply: takes what was observed, at once.
            memory: of this process, in MiB.
            others: what other living processes count, by boot and serial.
        """
        self._device, self._apply, self._memory = device, apply, memory
        self._others_now = others or partial(live_records, device.home.live_counts)
        self._key: Key | None = None
        self._before: dict[tuple[bytes, int], Totals] = {}  # others' records as it began
        self._since: dict[tuple[bytes, int], Totals] = {}  # and since, also of those that ended
        self._base, self._began, self._looked = 0.0, 0.0, 0.0
        self._grown: deque[float] = deque(maxlen=LASTING)
        self._golden: GoldenTrial | None = None

    def look(self, state: OnProbation) -> None:
        """Tell what the model did so far; nothing while another one serves."""
        runtime, now = self._device.runtime, self._device.clock.steady()
        loaded = runtime.loaded(state.slot.model)
        if loaded is None or loaded.slot != state.slot:
            return
        if self._key != state.offer.key:
            self._begin(state, now)
        self._look_at_memory(state, now)
        n, errors = runtime.counts(state.slot)
        others_n, others_errors = self._others(state.slot)
        figures = Figures(
            n=n + others_n,
            errors=errors + others_errors,
            elapsed=self._base + max(0.0, now - self._began),
            times=self._times(state),
            grown_mb=min(self._grown) if len(self._grown) == LASTING else None,
            golden=self._golden_run(state, loaded),
        )
        self._apply(Observed(key=state.offer.key, figures=figures))

    def leave(self) -> None:
        """The probation is over."""
        self._key, self._golden = None, None

    def _begin(self, state: OnProbation, now: float) -> None:
        self._key, self._golden = state.offer.key, None
        self._base, self._began, self._looked = state.elapsed, now, now - LOOK_SECONDS
        self._grown.clear()
        self._before, self._since = {}, {}
        self._others(state.slot)
        self._before, self._since = self._since, {}
        keep_times(self._device)

    def _others(self, slot: Slot) -> tuple[int, int]:
        """What users' processes did with the model: one that only they use is judged by that."""
        try:
            for key, record in self._others_now().items():
                if record.subject.slot.sha256 == slot.sha256:
                    # One that served these bytes before this probation has counts of then.
                    before = self._before.get(key, NOTHING)
                    self._since[key] = record.totals.beyond(before)
        except OSError as error:
            log.warning("what other processes counted cannot be read: %s", error)
        since = self._since.values()
        return (sum(one.n for one in since), sum(one.errors for one in since))

    def _look_at_memory(self, state: OnProbation, now: float) -> None:
        if state.before_mb is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        memory = self._memory()
        if memory is not None:
            self._grown.append(memory - state.before_mb)

    def _times(self, state: OnProbation) -> Times | None:
        timer, new, old = self._device.runtime.times, state.slot, state.fallback
        n, median = timer.now(new.sha256)
        if n == 0 and old is None:
            return None
        same = old is None or old.sha256 == new.sha256
        before = None if same or old is None else timer.before(old.sha256)
        return Times(n=n, median=median, before=before)

    def _golden_run(self, state: OnProbation, loaded: Loaded) -> GoldenRun | None:
        """The end of the golden run, which begins when the state calls for it."""
        if state.golden_due and self._golden is None:
            self._golden = GoldenTrial(self._device.store, self._device.runtime, loaded)
        return None if self._golden is None else self._golden.result


def keep_times(device: Device) -> None:
    """Write down how long inferences take here; without it nothing but a comparison is lost."""
    try:
        device.runtime.fold()
        write_past(device.home.times, device.runtime.times.past())
    except OSError as error:
        log.warning("how long inferences take could not be kept: %s", error)


class GoldenTrial:
    """A run of the golden vectors in the runtime, on a thread of its own: it may take long."""

    def __init__(self, store: Store, runtime: Runtime, loaded: Loaded) -> None:
        """Begin. result: its end, once it is there."""
        self.result: GoldenRun | None = None
        self._store, self._runtime, self._loaded = store, runtime, loaded
        threading.Thread(target=self._run, name="golden", daemon=True).start()

    def _run(self) -> None:
        try:
            with self._runtime.busy.doing("the golden run", self._loaded.slot.sha256):
                self._check()
            self.result = GoldenRun()
        except UpdateError as error:
            self.result = GoldenRun(cause=error.cause, detail=str(error))
        except MemoryError:
            detail = "there is not enough memory to run the golden vectors"
            self.result = GoldenRun(cause=DeviceCause.OUT_OF_MEMORY, detail=detail)
        except Exception as error:  # whatever it was: without an end, probation has none
            log.exception("the golden run failed")
            detail = f"{type(error).__name__}: {error}"
            self.result = GoldenRun(cause=DeviceCause.INTERNAL, detail=detail)

    def _check(self) -> None:
        slot = self._loaded.slot
        manifest = Manifest.model_validate_json(self._store.manifest(slot.manifest_sha256))
        variant = manifest.variant(slot.variant)
        if variant is None:
            msg = f"the manifest has no variant {slot.variant}"
            raise ValueError(msg)
        arrays = read_golden(self._store.read(variant.golden.file.sha256, MAX_GOLDEN_BYTES))
        check_golden(self._loaded.model, variant.golden, arrays)
