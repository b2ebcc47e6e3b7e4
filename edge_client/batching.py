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
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edge_client.batching_desk import (
    Answer,
    Desk,
    Job,
    Runs,
    bytes_of,
    handing_over,
    kind_of,
)
from edge_client.batching_run import run_jobs
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
from edge_client.pieces import in_pieces
from edge_client.queueing import ALONE, MAX_PRIORITY, BatchSettings, Queue, Request, refusal

__all__ = ["Answer", "BatchSettings", "Batcher", "Runs"]

_log = logging.getLogger(__name__)


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
        self._desks: dict[str, Desk] = {}
        self._tickets = 0
        self._closed = False

    def submit(
        self,
        inputs: Array | Mapping[str, Array],
        *,
        done: Callable[[Answer], None],
        model: str | None = None,
        loaded: Loaded | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> None:
        """Let a request wait for its turn. Returns at once.

        Args:
            inputs: as for ``ServedModel.predict``; not to be changed before the answer is there.
            done: is called once with the answer, in another thread; it must not block.
            model: None for the only one.
            loaded: what is to run it, which need not serve any more; None: what serves now.
            priority: 0 to ``MAX_PRIORITY``; the highest goes first.
            deadline: the time by ``clock`` from which on an answer is of no use.

        Raises:
            NoModelError: there is no such model.
            InputError: the inputs do not fit it; counted as rejected.
            FullError, LateError, ClosedError: it may not wait; counted as shed.
        """
        loaded, feed = self._checked(inputs, model, priority, loaded)
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
                    done = handing_over(answers, answered)
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
        self,
        inputs: Array | Mapping[str, Array],
        model: str | None,
        priority: int,
        loaded: Loaded | None = None,
    ) -> tuple[Loaded, dict[str, Array]]:
        loaded = loaded or self._runtime.loaded(model)
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
        desk: Desk,
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
        desk.jobs[request.ticket] = Job(request, loaded, feed, done)
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
        self, desk: Desk, loaded: Loaded, feed: dict[str, Array], *, short: bool
    ) -> Prediction:
        """Run in the caller's thread. short: beside whatever else runs."""
        n, start = loaded.model.size(feed), self.clock()
        try:
            raw = in_pieces(
                self._runtime, loaded, feed, n, self.settings.max_batch, clock=self.clock
            )
            desk.seconds = _KEEP * desk.seconds + (1 - _KEEP) * (self.clock() - start)
        finally:
            if not short:
                self._ran(desk)
        return loaded.model.answer(raw, n, loaded.slot)

    def _ran(self, desk: Desk) -> None:
        with self._lock:
            desk.running -= 1
            if len(desk.queue):
                desk.changed.notify()

    def _desk(self, model: str) -> Desk:
        desk = self._desks.get(model)
        if desk is None:
            desk = Desk(Queue(self.settings), threading.Condition(self._lock))
            self._desks[model] = desk
        return desk

    def _start(self, desk: Desk) -> None:
        while len(desk.threads) < self.settings.workers:
            thread = threading.Thread(target=self._work, args=(desk,), name="batch", daemon=True)
            thread.start()
            desk.threads.append(thread)

    def _work(self, desk: Desk) -> None:
        while (taken := self._take(desk)) is not None:
            late, batch = taken
            for job in late:
                self._turn_away(job, LateError(_LATE))
            if batch:
                self._run(desk, batch)

    def _take(self, desk: Desk) -> tuple[list[Job], list[Job]] | None:
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

    def _run(self, desk: Desk, jobs: list[Job]) -> None:
        answers: Sequence[Answer]
        try:
            run = partial(
                run_jobs,
                self._runtime,
                alone=desk.alone,
                most=self.settings.max_batch,
                clock=self.clock,
            )
            answers = isolate(jobs, run)
        except Exception as error:  # noqa: BLE001 - whatever it was, each must be answered
            _log.exception("a batch was not answered")
            answers = [InferenceError(f"the run failed: {type(error).__name__}")] * len(jobs)
        finally:
            self._ran(desk)
        for job, answer in zip(jobs, answers, strict=True):
            job.answer(answer)

    def _turn_away(self, job: Job, why: LateError | ClosedError) -> None:
        self._runtime.shed(job.loaded, job.request.rows)
        job.answer(why)


_KEEP = 0.5
"""Of what was measured before, in ``Desk.seconds``."""

_CLOSED = "the device is stopping, and takes no more requests"
_LATE = "the deadline passed before the request's turn came"
