"""When a file is sent once to all who wait for it, and at what pace.

A device waits for a file when it asked for its leaves lately and takes broadcasts. Enough of
them begin a round: a short delay in which stragglers join, then each chunk once, in order.
Whoever asks in a round's first half joins it, and pulls its beginning afterwards; whoever
asks later counts for the next one, and pulls meanwhile. The more listen, the slower it goes;
nobody joins who would slow it much below what the others were told, for they would give it
up. No IO and no clock: ``now`` is seconds of any steady clock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from schemas.transfer import CHUNK_BYTES, BroadcastOffer, chunk_count

MAX_ROUNDS = 8
MAX_FILES = 1000
MAX_WAITING = 200_000
_BATCHES = 2**32
_LATE_SECONDS = 0.25
"""A round that could not send for longer goes on at its pace instead of catching up."""

_SLOWER = 2 / 3
"""Of the rate that was told, the least at which a round goes on for the sake of who joins."""

_ABOUT = 0.1
_QUIET_CHUNKS = 8
_MAX_QUIET = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When and how fast.

    start_from: devices that begin a round; 0 is never. device_rate, total_rate: bytes a second
    to each, and to all together. delay, recent, quiet: seconds until a round begins, for which
    a question counts, and as in ``BroadcastOffer``. least_chunks: a smaller file is pulled
    before a round could begin.
    """

    start_from: int = 10
    device_rate: float = 8 * 2**20
    total_rate: float = 256 * 2**20
    delay: float = 1.0
    recent: float = 60.0
    quiet: float = 2.0
    least_chunks: int = 16


@dataclass(frozen=True, slots=True)
class Announcement:
    """What devices that wait are told: a round is about to begin, or begins at another rate."""

    sha256: str
    devices: tuple[str, ...]
    offer: BroadcastOffer


@dataclass(frozen=True, slots=True)
class Slot:
    """A chunk that is due. listeners: devices that hear it, by what they said."""

    sha256: str
    batch: int
    index: int
    listeners: int


@dataclass(slots=True)
class _Round:
    sha256: str
    chunks: int
    batch: int
    begins_at: float
    next_at: float
    listeners: set[str]
    rate: float
    index: int = 0

    @property
    def ended(self) -> bool:
        return self.index >= self.chunks


@dataclass(slots=True)
class Broadcasts:
    """The rounds, and who waits for the next. Used under a lock, or from one thread."""

    rules: Rules = field(default_factory=Rules)
    next_batch: int = 0
    _limit: float | None = None
    _rounds: dict[str, _Round] = field(default_factory=dict)
    _sizes: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _asked: dict[str, OrderedDict[str, float]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Rounds that are announced or under way."""
        return len(self._rounds)

    def running(self) -> tuple[str, ...]:
        """The files of the rounds."""
        return tuple(self._rounds)

    def asked(
        self, device: str, sha256: str, size: int, now: float
    ) -> tuple[BroadcastOffer | None, Announcement | None]:
        """A device that takes broadcasts asks for a file of ``size`` bytes.

        Returns:
            What it is offered, and what the others are told when it was the last that was
            missing for a round.
        """
        chunks = chunk_count(size)
        if not self.rules.start_from or chunks < self.rules.least_chunks:
            return None, None
        current = self._rounds.get(sha256)
        if current is not None and self._joins(device, current):
            current.listeners.add(device)
            return self._offer(current, now), None
        self._note(device, sha256, size, now)
        if current is not None:
            return None, None
        begun = self._begin(sha256, now)
        if begun is None:
            return None, None
        others = tuple(sorted(begun.listeners - {device}))
        offer = self._offer(begun, now)
        return offer, Announcement(sha256, others, offer) if others else None

    def left(self, device: str) -> None:
        """A device is gone: nobody need wait for it. A round without listeners ends."""
        for waiting in self._asked.values():
            waiting.pop(device, None)
        for sha256, current in list(self._rounds.items()):
            current.listeners.discard(device)
            if not current.listeners:
                del self._rounds[sha256]

    def next(self, now: float) -> tuple[Slot | None, list[Announcement]]:
        """Take the chunk that is due by now, if one is, and what is to be told about it.

        At a round's begin that is its rate, if it is another than was offered; at its end, the
        rounds that follow.
        """
        current = self._soonest()
        if current is None or current.next_at > now:
            return None, []
        rate, told = self._rate(), []
        if not current.index and abs(rate - current.rate) > _ABOUT * current.rate:
            listeners = tuple(sorted(current.listeners))
            told = [Announcement(current.sha256, listeners, self._offer(current, now))]
        if not current.index:
            current.rate = rate
        slot = Slot(current.sha256, current.batch, current.index, len(current.listeners))
        current.index += 1
        current.next_at = max(current.next_at, now - _LATE_SECONDS) + CHUNK_BYTES / rate
        if current.ended:
            del self._rounds[current.sha256]
            told += self._begin_others(now)
        return slot, told

    def wait(self, now: float) -> float | None:
        """Seconds until the next chunk is due; None without a round."""
        current = self._soonest()
        return None if current is None else max(0.0, current.next_at - now)

    def _begin_others(self, now: float) -> list[Announcement]:
        """Begin a round for each file that enough devices wait for: another has ended."""
        told = []
        for sha256 in list(self._sizes):
            if sha256 not in self._rounds and (begun := self._begin(sha256, now)) is not None:
                listeners = tuple(sorted(begun.listeners))
                told.append(Announcement(sha256, listeners, self._offer(begun, now)))
        return told

    def end(self, sha256: str) -> None:
        """Send no more of a file, as it is not served any more."""
        self._rounds.pop(sha256, None)
        self._forget(sha256)

    def limit(self, total_rate: float | None) -> None:
        """Keep below a rate to all devices together that is lower than the rules'."""
        self._limit = total_rate

    def clear(self) -> None:
        """End all rounds: the connection was lost, and who listened pulls."""
        self._rounds.clear()

    def _note(self, device: str, sha256: str, size: int, now: float) -> None:
        self._sizes[sha256] = size
        self._sizes.move_to_end(sha256)
        if len(self._sizes) > MAX_FILES:
            self._forget(next(iter(self._sizes)))
        waiting = self._asked.setdefault(sha256, OrderedDict())
        waiting[device] = now
        waiting.move_to_end(device)
        if len(waiting) > MAX_WAITING:
            waiting.popitem(last=False)

    def _begin(self, sha256: str, now: float) -> _Round | None:
        waiting = self._asked.get(sha256, OrderedDict())
        while waiting and next(iter(waiting.values())) < now - self.rules.recent:
            waiting.popitem(last=False)
        if not waiting:
            self._forget(sha256)
            return None
        crowded = len(self._rounds) >= MAX_ROUNDS or not self._bears(len(waiting))
        if len(waiting) < self.rules.start_from or crowded:
            return None
        begun = _Round(
            sha256=sha256,
            chunks=chunk_count(self._sizes[sha256]),
            batch=self.next_batch,
            begins_at=now + self.rules.delay,
            next_at=now + self.rules.delay,
            listeners=set(waiting),
            rate=self._rate(len(waiting)),
        )
        self.next_batch = (self.next_batch + 1) % _BATCHES
        self._rounds[sha256] = begun
        self._forget(sha256)
        return begun

    def _forget(self, sha256: str) -> None:
        self._sizes.pop(sha256, None)
        self._asked.pop(sha256, None)

    def _soonest(self) -> _Round | None:
        return min(self._rounds.values(), key=lambda one: one.next_at, default=None)

    def _joins(self, device: str, current: _Round) -> bool:
        early = 2 * current.index <= current.chunks
        return early and (device in current.listeners or self._bears(1))

    def _bears(self, more: int) -> bool:
        """Whether so many more would leave those that listen about what they were told."""
        rate = self._rate(more)
        return all(rate >= _SLOWER * one.rate for one in self._rounds.values() if one.index)

    def _rate(self, more: int = 0) -> float:
        """Bytes a second of each round: all rounds share what all devices get together."""
        listeners = more + sum(len(one.listeners) for one in self._rounds.values())
        total = min(self.rules.total_rate, self._limit or self.rules.total_rate)
        return max(1.0, min(self.rules.device_rate, total / max(1, listeners)))

    def _offer(self, current: _Round, now: float) -> BroadcastOffer:
        rate = self._rate()
        quiet = max(self.rules.quiet, _QUIET_CHUNKS * CHUNK_BYTES / rate)
        return BroadcastOffer(
            batch=current.batch,
            starts_in=min(60.0, max(0.0, current.begins_at - now)),
            rate=rate,
            quiet=math.ceil(10 * min(quiet, _MAX_QUIET)) / 10,
        )
