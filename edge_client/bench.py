"""How the installed variants run on this device, for ``argosy-edge bench`` and after updates.

The variants are loaded by processes of their own (``edge_client.measure``) and timed in turn,
block by block, with the golden inputs that each was shipped with, at a lower priority than
the agent's. The agent may run meanwhile, and goes on serving: what is measured is what a
device that is at work gives.
"""

from __future__ import annotations

import datetime as dt
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnxruntime as ort

from edge_client.energy import estimated
from edge_client.errors import BenchError, NoModelError
from edge_client.hardware import board, cpu_name, free_mb
from edge_client.measure import Ask, Loading
from edge_client.settings import MIB, Home
from edge_client.slots import Slot, require_pointers
from edge_client.subject import Subjected, start, work_folder
from schemas.ids import Name
from schemas.measure import Benchmark, BenchReport, Energy

WARM_UP = 20
WARM_UP_SECONDS = 0.5
BLOCK = 25
BLOCK_SECONDS = 0.15
FEWEST_ROUNDS = 3
SPARE_MB = 32
MEMORY_FACTOR = 3
"""A model needs about this many times the size of its file while it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure.

    rounds: blocks of runs per variant and batch size. max_seconds: of them together, per
    variant and batch size. nice: added to the priority. rest: seconds of doing nothing per
    second of running, so that a device with one core is not kept busy.
    """

    batches: tuple[int, ...] = (1, 32)
    rounds: int = 16
    max_seconds: float = 20.0
    nice: int = 5
    rest: float = 0.0
    energy_seconds: float = 0.5


QUIET = Plan(batches=(1,), rounds=6, max_seconds=5.0, nice=19, rest=1.0, energy_seconds=0.2)
"""What the agent does by itself after an update."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a variant could not be measured, on one line."""

    reason: str


Measured: TypeAlias = tuple[Slot, tuple[Benchmark, ...] | Failure]


def installed(home: Home, model: Name | None = None) -> tuple[Slot, ...]:
    """What serves of each model and its fallback, without repeats.

    model: of that name only.

    Raises:
        NoModelError: there is none.
    """
    slots = require_pointers(home.pointer).slots
    found = {slot.sha256: slot for slot in reversed(slots) if model in {None, slot.model}}
    if found:
        return tuple(reversed(found.values()))
    if slots:
        names = ", ".join(sorted({slot.model for slot in slots}))
        msg = f"model {model} is not installed here; there is {names}"
        raise NoModelError(msg)
    msg = f"no model is installed in {home.root} yet"
    raise NoModelError(msg, hint="start a rollout to this device; see `argosy-edge status`")


@dataclass(slots=True)
class _Times:
    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    warm_up: int = 0
    block: int = BLOCK


def measure(
    home: Home,
    slots: Sequence[Slot],
    plan: Plan,
    *,
    device_class: Name,
    sleep: Callable[[float], None] = time.sleep,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Measured]:
    """Measure variants in turn; one that fails does not keep the others from it.

    Args:
        home: the device's.
        slots: from ``installed``.
        plan: how much.
        device_class: the device's, to stand in the figures.
        sleep: waits.
        go_on: asked before each block; measuring ends when it says no.

    Raises:
        BenchError: it was told not to go on.
    """
    results: dict[str, tuple[Benchmark, ...] | Failure] = {}
    with ExitStack() as stack:
        stack.enter_context(work_folder(home))
        subjects: dict[str, Subjected] = {}
        for slot in slots:
            try:
                _require_memory(home, slot)
                subjects[slot.sha256] = stack.enter_context(
                    start(home, slot, batches=plan.batches, nice=plan.nice)
                )
            except (BenchError, OSError) as error:
                results[slot.sha256] = Failure(str(error))
        timer = _Timer(subjects, results, plan, sleep, go_on)
        for sha256, subject in subjects.items():
            timed = timer.of(sha256, subject.loading)
            if timed is not None:
                results[sha256] = tuple(
                    _benchmark(i, batch, subject.loading, times, energy, device_class)
                    for i, (batch, times, energy) in enumerate(timed)
                )
    return [(slot, results[slot.sha256]) for slot in slots]


class _Timer:
    """Times all subjects in turn, batch size by batch size, at its making."""

    def __init__(
        self,
        subjects: dict[str, Subjected],
        results: dict[str, tuple[Benchmark, ...] | Failure],
        plan: Plan,
        sleep: Callable[[float], None],
        go_on: Callable[[], bool],
    ) -> None:
        self._subjects, self._results, self._plan = subjects, results, plan
        self._sleep, self._go_on = sleep, go_on
        self._times: dict[tuple[str, int], _Times] = {}
        self._energy: dict[tuple[str, int], Energy | None] = {}
        for turn in range(max((len(s.loading.batches) for s in subjects.values()), default=0)):
            self._batch(turn)

    def of(self, sha256: str, loading: Loading) -> list[tuple[int, _Times, Energy | None]] | None:
        """(batch size, times, energy) of a subject; None when it failed."""
        if sha256 in self._results:
            return None
        keys = [(sha256, batch) for batch in loading.batches]
        return [(key[1], self._times[key], self._energy[key]) for key in keys]

    def _batch(self, turn: int) -> None:
        began = time.monotonic()
        for position in range(-1, self._plan.rounds):
            late = time.monotonic() - began > self._plan.max_seconds * len(self._subjects)
            if late and position >= min(FEWEST_ROUNDS, self._plan.rounds):
                break
            order = list(self._subjects)[:: -1 if position % 2 else 1]
            for sha256 in order:
                self._visit(sha256, turn, warm=position < 0)
        for sha256 in self._subjects:
            self._meter(sha256, turn)

    def _visit(self, sha256: str, turn: int, *, warm: bool) -> None:
        subject = self._subjects[sha256]
        if sha256 in self._results or turn >= len(subject.loading.batches):
            return
        if not self._go_on():
            msg = "measuring was given up: an update began"
            raise BenchError(msg)
        batch = subject.loading.batches[turn]
        times = self._times.setdefault((sha256, batch), _Times())
        began = time.monotonic()
        try:
            if warm:
                _warm_up(subject, batch, times)
            else:
                found = subject.ask(Ask(batch=batch, runs=times.block + 1))
                times.warm_up += 1  # the first run of a block fills the caches again
                times.wall += found.wall_ns[1:]
                times.cpu += found.cpu_ns[1:]
        except BenchError as error:
            self._results[sha256] = Failure(str(error))
        if self._plan.rest:
            self._sleep(self._plan.rest * (time.monotonic() - began))

    def _meter(self, sha256: str, turn: int) -> None:
        subject = self._subjects[sha256]
        if sha256 in self._results or turn >= len(subject.loading.batches):
            return
        batch = subject.loading.batches[turn]
        try:
            asked = Ask(batch=batch, energy_seconds=self._plan.energy_seconds)
            self._energy[sha256, batch] = subject.ask(asked).energy
        except BenchError as error:
            self._results[sha256] = Failure(str(error))


def _warm_up(subject: Subjected, batch: int, times: _Times) -> None:
    spent = 0.0
    while times.warm_up < WARM_UP and (spent == 0 or spent < WARM_UP_SECONDS):
        found = subject.ask(Ask(batch=batch, runs=1))
        times.warm_up += 1
        spent += found.wall_ns[0] / 1e9
        each = found.wall_ns[0] / 1e9
        times.block = max(1, min(BLOCK, int(BLOCK_SECONDS / max(each, 1e-9))))


def percentiles(nanoseconds: Sequence[int]) -> tuple[float, float, float]:
    """The median, 95th and 99th percentile, in milliseconds, by linear interpolation."""
    p50, p95, p99 = (float(q) / 1e6 for q in np.percentile(nanoseconds, [50, 95, 99]))
    return p50, p95, p99


def _benchmark(
    turn: int,
    batch: int,
    loading: Loading,
    times: _Times,
    energy: Energy | None,
    device_class: Name,
) -> Benchmark:
    p50, p95, p99 = percentiles(times.wall)
    cpu_ms = float(np.median(times.cpu)) / 1e6
    return Benchmark(
        host=host_name(),
        arch=platform.machine()[:32],
        provider=loading.provider,
        batch=batch,
        runs=len(times.wall),
        warm_up=times.warm_up,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=cpu_ms,
        load_ms=loading.load_ms,
        first_ms=loading.first_ms if turn == 0 else None,
        rss_mb=loading.rss_mb[turn],
        rss_growth_mb=loading.growth_mb[turn],
        energy=energy or estimated(cpu_ms),
        nodes=loading.nodes,
        ort=ort.__version__[:32],
        device_class=device_class,
    )


def host_name() -> str:
    """This device's kind: its board or processor, architecture and system."""
    return f"{board() or cpu_name()}, {platform.machine()}, {platform.system()}"[:300]


def _require_memory(home: Home, slot: Slot) -> None:
    """Refuse what could push the agent out of memory.

    Raises:
        BenchError: there is not enough that is free.
    """
    size = (home.blobs / slot.sha256).stat().st_size
    needed = SPARE_MB + MEMORY_FACTOR * size // MIB
    free = free_mb()
    if free is not None and free < needed:
        msg = f"measuring needs about {needed} MiB of memory, {free} are free"
        raise BenchError(msg)


def report(slot: Slot, benchmarks: tuple[Benchmark, ...], at: dt.datetime) -> BenchReport:
    """What is sent of a variant. at: with a zone."""
    return BenchReport(
        model=slot.model,
        version=slot.version,
        variant=slot.variant,
        sha256=slot.sha256,
        benchmarks=benchmarks,
        at=at,
    )
