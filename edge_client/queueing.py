"""Which requests run next, and together: a queue's decisions, without a clock or a lock.

A request's **turn** is the time it came, less ``age`` seconds for each level of its priority;
the earliest turn runs first. Among equal priorities that is the order in which they came. A
request of priority p is overtaken only by those of a higher priority q that came at most
``age * (q - p)`` seconds after it: nothing waits for ever, however many come.

Requests of one **kind** (the same loaded model, and inputs of equal shapes but for the batch)
run together. A request takes others of its kind along, in their order, past requests of other
kinds, up to ``max_batch`` samples. One that has more samples than that goes alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

MAX_PRIORITY = 9

ALONE = None
"""The kind of what never runs together with others."""

_SLACK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How requests wait, and run together.

    max_batch: samples in one run. max_delay: seconds to wait for more to join; 0 for none: what
    queued while the last run was busy goes together anyway. max_requests: that may wait, per
    model. max_bytes: of inputs that may wait, of all models together. age: seconds of waiting
    that are worth one level of priority. workers: runs of one model at the same time. short: a
    run of fewer seconds is not worth handing over: who waits for its answer runs it itself.
    """

    max_batch: int = 32
    max_delay: float = 0.0
    max_requests: int = 256
    max_bytes: int = 64 * 1024**2
    age: float = 0.1
    workers: int = 1
    short: float = 30e-6


@dataclass(frozen=True, slots=True)
class Request:
    """What the queue knows of a request.

    ticket: its number, rising. rows: samples. size: bytes of its inputs. since: when it came.
    priority: 0 to ``MAX_PRIORITY``, the highest goes first. deadline: the time from which on an
    answer is of no use. Times are of one clock, in seconds.
    """

    ticket: int
    kind: Hashable
    rows: int
    size: int
    since: float
    priority: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now.

    late: requests to turn away. batch: requests to run together. look_at: when to ask again,
    though nothing new has come; None: no need to.
    """

    late: tuple[Request, ...] = ()
    batch: tuple[Request, ...] = ()
    look_at: float | None = None


@dataclass(slots=True)
class _Lane:
    """Waiting requests of one kind. opened: since when the next batch gathers.

    soonest: the earliest deadline of those that joined since then. heap: by turn; those that
    were turned away meanwhile are still in it.
    """

    opened: float
    soonest: float = inf
    rows: int = 0
    heap: list[tuple[float, int, Request]] = field(default_factory=list)


def refusal(settings: BatchSettings, *, requests: int, size: int, waiting_bytes: int) -> str | None:
    """Why one more request of ``size`` bytes may not wait; None when it may.

    requests: waiting for the same model. waiting_bytes: for any model.
    """
    if requests >= settings.max_requests:
        return f"{requests} requests wait already, and no more may"
    if waiting_bytes + size > settings.max_bytes:
        return (
            f"inputs of {waiting_bytes} bytes wait already; with {size} more they would be over"
            f" the {settings.max_bytes} that may"
        )
    return None


class Queue:
    """The waiting requests of one model. Not thread-safe: the caller holds a lock."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._lanes: dict[Hashable, _Lane] = {}
        self._waiting: dict[int, Request] = {}
        self._deadlines: list[tuple[float, int]] = []
        self.size = 0  # bytes of the inputs that wait

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, request: Request) -> None:
        """Let a request wait. Its ticket must be a new one."""
        lane = self._lanes.get(request.kind)
        if lane is None:
            lane = self._lanes[request.kind] = _Lane(request.since)
        turn = request.since - self._settings.age * request.priority
        heapq.heappush(lane.heap, (turn, request.ticket, request))
        lane.rows += request.rows
        self._waiting[request.ticket] = request
        self.size += request.size
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.ticket))
            lane.soonest = min(lane.soonest, request.deadline)
        self._forget_gone(lane)

    def next(self, now: float) -> Turn:
        """Take what has its turn at ``now``, and what has become late, out of the queue."""
        late = self._shed(now)
        best: _Lane | None = None
        best_turn, kind, look_at = inf, ALONE, inf
        for name, lane in self._lanes.items():
            ready_at = self._ready_at(name, lane)
            if ready_at > now:
                look_at = min(look_at, ready_at)
            elif lane.heap[0][0] < best_turn:
                best, best_turn, kind = lane, lane.heap[0][0], name
        if best is not None:
            return Turn(late, self._batch(kind, best))
        if self._deadlines:
            look_at = min(look_at, self._deadlines[0][0])
        return Turn(late, (), None if look_at == inf else look_at)

    def drain(self) -> tuple[Request, ...]:
        """Take out all that waits, in the order in which it came."""
        left = tuple(self._waiting.values())
        for everything in (self._lanes, self._waiting, self._deadlines):
            everything.clear()
        self.size = 0
        return left

    def _ready_at(self, kind: Hashable, lane: _Lane) -> float:
        """From when on a lane may run. Nobody becomes late by waiting for others to join."""
        full_at = lane.opened + self._settings.max_delay
        if kind is ALONE or lane.rows >= self._settings.max_batch or lane.soonest <= full_at:
            return -inf
        return full_at

    def _batch(self, kind: Hashable, lane: _Lane) -> tuple[Request, ...]:
        batch: list[Request] = []
        room = self._settings.max_batch
        while lane.heap:
            request = lane.heap[0][2]
            if batch and (kind is ALONE or request.rows > room):
                break
            heapq.heappop(lane.heap)
            self._leave(request, lane)
            batch.append(request)
            room -= request.rows
            self._skip_gone(lane)
        lane.opened, lane.soonest = -inf, inf  # those left have waited long enough
        if not lane.heap:
            del self._lanes[kind]
        return tuple(batch)

    def _shed(self, now: float) -> tuple[Request, ...]:
        late = []
        while self._deadlines:
            deadline, ticket = self._deadlines[0]
            request = self._waiting.get(ticket)
            if request is not None and deadline > now:
                break
            heapq.heappop(self._deadlines)
            if request is not None:
                late.append(request)
                lane = self._lanes[request.kind]
                self._leave(request, lane)
                self._skip_gone(lane)
                if not lane.heap:
                    del self._lanes[request.kind]
        return tuple(late)

    def _leave(self, request: Request, lane: _Lane) -> None:
        del self._waiting[request.ticket]
        self.size -= request.size
        lane.rows -= request.rows

    def _skip_gone(self, lane: _Lane) -> None:
        while lane.heap and lane.heap[0][1] not in self._waiting:
            heapq.heappop(lane.heap)

    def _forget_gone(self, lane: _Lane) -> None:
        """Keep the heaps in proportion to what waits: what left is only skipped at the top."""
        most = 2 * len(self._waiting) + _SLACK
        if len(self._deadlines) > most:
            self._deadlines = [d for d in self._deadlines if d[1] in self._waiting]
            heapq.heapify(self._deadlines)
        if len(lane.heap) > most:
            lane.heap = [entry for entry in lane.heap if entry[1] in self._waiting]
            heapq.heapify(lane.heap)
