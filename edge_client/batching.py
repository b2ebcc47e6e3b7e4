"""Micro-batching: requests that wait at the same time run together.

A thread per model takes what has queued while its last run was busy, up to a size, and runs it
as one; with little load that is one request at once, and nobody waits for a timer. What runs
next is decided in ``edge_client.queueing``. A request ends with the model with which it came:
a batch is of one loaded model, and after a swap what waits for the old one is still run by it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np

from edge_client.errors import (
    ClosedError,
    EdgeError,
    FullError,
    InferenceError,
    InputError,
    LateError,
    NoModelError,
)
from edge_client.inference import Array, Loaded, Prediction
from edge_client.isolate import isolate
from edge_client.queueing import ALONE, MAX_PRIORITY, BatchSettings, Queue, Request, refusal
from schemas.signature import Signature

Answer: TypeAlias = Prediction | EdgeError

_log = logging.getLogger(__name__)


class Runs(Protocol):
    """What a batcher needs of ``edge_client.runtime.Runtime``."""

    def loaded(self, model: str | None = None) -> Loaded | None:
        """What serves a model now."""

    def infer(
        self,
        loaded: Loaded,
        feed: dict[str, Array],
        *,
        n: int,
        queue_seconds: float = 0.0,
        runs: int = 1,
        tried: bool = True,
    ) -> list[Array]:
        """Run a checked feed of n samples, timed and counted.

        queue_seconds: how long they waited. tried: False where a failure is not to be counted,
        as the samples are going to be run again one by one.
        """

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """Count a request that does not fit the model."""

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that were turned away unanswered."""


@dataclass(slots=True)
class _Job:
    """A request with what it carries. Its answer is given once."""

    request: Request
    loaded: Loaded
    feed: dict[str, Array]
    done: Callable[[Answer], None]

    def answer(self, answer: Answer) -> None:
        try:
            self.done(answer)
        except Exception:  # noqa: BLE001 - a caller's function; the others' answers are due
            _log.exception("an answer could not be handed over")


@dataclass(slots=True)
class _Desk:
    """One model's queue and its threads. running: runs under way.

    alone: SHA-256 of models whose batches turned out not to come apart again. seconds: that a
    request alone takes in the model, lately.
    """

    queue: Queue
    changed: threading.Condition
    jobs: dict[int, _Job] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    alone: set[str] = field(default_factory=set)
    running: int = 0
    seconds: float = 1.0


class Batcher:
    """Takes requests from any thread, and answers each one once."""

    def __init__(
        self,
        runtime: Runs,
        settings: BatchSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = settings or BatchSettings()
        self.clock = clock
        self._runtime = runtime
        self._lock = threading.Lock()
        self._desks: dict[str, _Desk] = {}
        self._tickets = 0
        self._closed = False

    def submit(
        self,
        inputs: Array | Mapping[str, Array],
        *,
        done: Callable[[Answer], None],
        model: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> None:
        """Let a request wait for its turn. Returns at once.

        Args:
            inputs: as for ``ServedModel.predict``; not to be changed before the answer is there.
            done: is called once with the answer, in another thread; it must not block.
            model: None for the only one.
            priority: 0 to ``MAX_PRIORITY``; the highest goes first.
            deadline: the time by ``clock`` from which on an answer is of no use.

        Raises:
            NoModelError: there is no such model.
            InputError: the inputs do not fit it; counted as rejected.
            FullError, LateError, ClosedError: it may not wait; counted as shed.
        """
        loaded, feed = self._checked(inputs, model, priority)
        try:
            with self._lock:
                desk = self._desk(loaded.slot.model)
                self._push(desk, loaded, feed, priority, deadline, done)
                self._start(desk)
                desk.changed.notify()
        except (FullError, LateError, ClosedError):
            self._runtime.shed(loaded, loaded.model.size(feed))
            raise

    def predict(
        self,
        inputs: Array | Mapping[str, Array],
        *,
        model: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Prediction:
        """Wait for the answer. Where nothing else runs, it is made in the caller's thread.

        Raises:
            EdgeError: as ``submit``, and what comes as an answer there.
        """
        loaded, feed = self._checked(inputs, model, priority)
        answers: list[Answer] = []
        answered = threading.Lock()
        desk, short, here = None, False, False
        try:
            with self._lock:
                desk = self._desk(loaded.slot.model)
                short = desk.seconds < self.settings.short
                here = short or (desk.running == 0 and len(desk.queue) == 0)
                if here:
                    self._require_open(deadline)
                    desk.running += not short
                else:
                    answered.acquire()
                    done = _handing_over(answers, answered)
                    self._push(desk, loaded, feed, priority, deadline, done)
                    self._start(desk)
                    desk.changed.notify()
        except (FullError, LateError, ClosedError):
            self._runtime.shed(loaded, loaded.model.size(feed))
            raise
        if here:
            return self._here(desk, loaded, feed, short=short)
        answered.acquire()
        answer = answers[0]
        if isinstance(answer, EdgeError):
            raise answer
        return answer

    def waiting(self, model: str) -> int:
        """How many requests wait for a model."""
        with self._lock:
            desk = self._desks.get(model)
            return 0 if desk is None else len(desk.queue)

    def close(self) -> None:
        """Take no more, turn away what waits, and wait for what runs. May be called again."""
        with self._lock:
            self._closed = True
            left = [job for desk in self._desks.values() for job in desk.jobs.values()]
            for desk in self._desks.values():
                desk.queue.drain()
                desk.jobs.clear()
                desk.changed.notify_all()
            threads = [thread for desk in self._desks.values() for thread in desk.threads]
        for job in left:
            self._turn_away(job, ClosedError(_CLOSED))
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _checked(
        self, inputs: Array | Mapping[str, Array], model: str | None, priority: int
    ) -> tuple[Loaded, dict[str, Array]]:
        loaded = self._runtime.loaded(model)
        if loaded is None:
            msg = "no model is active on this device yet"
            raise NoModelError(msg, hint="start a rollout to it; see `argosy-edge status`")
        try:
            feed = loaded.model.check(inputs)
            self._require_fit(priority, bytes_of(feed))
        except InputError:
            self._runtime.rejected(loaded)
            raise
        return loaded, feed

    def _require_fit(self, priority: int, size: int) -> None:
        if not 0 <= priority <= MAX_PRIORITY:
            msg = f"a priority is 0 to {MAX_PRIORITY}, not {priority}"
            raise InputError(msg)
        if size > self.settings.max_bytes:
            msg = f"the inputs have {size} bytes; {self.settings.max_bytes} may wait at most"
            raise InputError(msg, hint="ask for fewer samples at once")

    def _push(
        self,
        desk: _Desk,
        loaded: Loaded,
        feed: dict[str, Array],
        priority: int,
        deadline: float | None,
        done: Callable[[Answer], None],
    ) -> Request:
        now, size = self._require_open(deadline), bytes_of(feed)
        waiting = sum(one.queue.size for one in self._desks.values())
        no = refusal(self.settings, requests=len(desk.queue), size=size, waiting_bytes=waiting)
        if no is not None:
            raise FullError(no, hint="ask again later, or less often")
        self._tickets += 1
        kind = ALONE if loaded.slot.sha256 in desk.alone else kind_of(loaded, feed)
        request = Request(
            self._tickets, kind, loaded.model.size(feed), size, now, priority, deadline
        )
        desk.queue.push(request)
        desk.jobs[request.ticket] = _Job(request, loaded, feed, done)
        return request

    def _require_open(self, deadline: float | None) -> float:
        """The time, where a request may still be taken."""
        now = self.clock()
        if self._closed:
            raise ClosedError(_CLOSED)
        if deadline is not None and deadline <= now:
            raise LateError(_LATE)
        return now

    def _here(
        self, desk: _Desk, loaded: Loaded, feed: dict[str, Array], *, short: bool
    ) -> Prediction:
        """Run in the caller's thread. short: beside whatever else runs."""
        n, start = loaded.model.size(feed), self.clock()
        try:
            raw = self._runtime.infer(loaded, feed, n=n)
            desk.seconds = _KEEP * desk.seconds + (1 - _KEEP) * (self.clock() - start)
        finally:
            if not short:
                self._ran(desk)
        return loaded.model.answer(raw, n, loaded.slot)

    def _ran(self, desk: _Desk) -> None:
        with self._lock:
            desk.running -= 1
            if len(desk.queue):
                desk.changed.notify()

    def _desk(self, model: str) -> _Desk:
        desk = self._desks.get(model)
        if desk is None:
            desk = _Desk(Queue(self.settings), threading.Condition(self._lock))
            self._desks[model] = desk
        return desk

    def _start(self, desk: _Desk) -> None:
        while len(desk.threads) < self.settings.workers:
            thread = threading.Thread(target=self._work, args=(desk,), name="batch", daemon=True)
            desk.threads.append(thread)
            thread.start()

    def _work(self, desk: _Desk) -> None:
        while (taken := self._take(desk)) is not None:
            late, batch = taken
            for job in late:
                self._turn_away(job, LateError(_LATE))
            if batch:
                self._run(desk, batch)

    def _take(self, desk: _Desk) -> tuple[list[_Job], list[_Job]] | None:
        """What is late and what runs now; waits for it. None when all is over."""
        with self._lock:
            while not self._closed:
                look_at = None
                if desk.running < self.settings.workers:
                    turn = desk.queue.next(self.clock())
                    if turn.late or turn.batch:
                        desk.running += bool(turn.batch)
                        late = [desk.jobs.pop(request.ticket) for request in turn.late]
                        return late, [desk.jobs.pop(request.ticket) for request in turn.batch]
                    look_at = turn.look_at
                wait = None if look_at is None else max(0.0, look_at - self.clock())
                desk.changed.wait(wait)
            return None

    def _run(self, desk: _Desk, jobs: list[_Job]) -> None:
        answers: Sequence[Answer]
        try:
            answers = isolate(jobs, partial(self._infer, desk))
        except Exception as error:  # noqa: BLE001 - whatever it was, each must be answered
            _log.exception("a batch was not answered")
            answers = [InferenceError(f"the run failed: {type(error).__name__}")] * len(jobs)
        finally:
            self._ran(desk)
        for job, answer in zip(jobs, answers, strict=True):
            job.answer(answer)

    def _infer(self, desk: _Desk, jobs: Sequence[_Job]) -> list[Prediction]:
        loaded, now = jobs[0].loaded, self.clock()
        rows = [job.request.rows for job in jobs]
        feed = jobs[0].feed
        if len(jobs) > 1:
            feed = {name: np.concatenate([job.feed[name] for job in jobs]) for name in feed}
        waited = sum((now - job.request.since) * job.request.rows for job in jobs) / sum(rows)
        raw = self._runtime.infer(
            loaded,
            feed,
            n=sum(rows),
            queue_seconds=max(0.0, waited),
            tried=len(jobs) == 1,
        )
        if len(jobs) == 1:
            return [loaded.model.answer(raw, rows[0], loaded.slot)]
        if any(output.shape[:1] != (sum(rows),) for output in raw):
            desk.alone.add(loaded.slot.sha256)
            msg = "an output has not a row for each sample"
            raise InferenceError(msg)
        return [
            loaded.model.answer([output[end - n : end] for output in raw], n, loaded.slot)
            for n, end in zip(rows, np.cumsum(rows).tolist(), strict=True)
        ]

    def _turn_away(self, job: _Job, why: LateError | ClosedError) -> None:
        self._runtime.shed(job.loaded, job.request.rows)
        job.answer(why)


_KEEP = 0.5
"""Of what was measured before, in ``_Desk.seconds``."""

_CLOSED = "the device is stopping, and takes no more requests"
_LATE = "the deadline passed before the request's turn came"


def _handing_over(answers: list[Answer], answered: threading.Lock) -> Callable[[Answer], None]:
    def done(answer: Answer) -> None:
        answers.append(answer)
        answered.release()

    return done


def can_merge(signature: Signature) -> bool:
    """Whether samples of several requests may go into one run: a batch in front, everywhere."""
    return all(spec.shape[:1] == (-1,) for spec in (*signature.inputs, *signature.outputs))


def kind_of(loaded: Loaded, feed: Mapping[str, Array]) -> Hashable:
    """What runs together: the same loaded model, and shapes that differ in the batch alone."""
    if not can_merge(loaded.model.signature):
        return ALONE
    return (id(loaded), *(value.shape[1:] for value in feed.values()))


def bytes_of(feed: Mapping[str, Array]) -> int:
    """Bytes of a feed's arrays."""
    return sum(value.nbytes for value in feed.values())
