"""Trust metadata over the device's connection, and the documents that wait for it.

Each desired document is held against metadata that was refreshed after it came; without
one the metadata is refreshed once a day, so that new roots are walked while they are few.
The walk is a generator that wants one file at a time: nothing here waits, and a lost connection
just drops it. Used from the thread that decides.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import sqlite3
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from edge_client.device import Device
from edge_client.errors import EdgeError, JournalError, MetadataUnavailableError, TrustError
from edge_client.journal import Journal
from edge_client.metadata_age import REFRESHED
from edge_client.metadata_floors import Floors
from edge_client.metadata_walk import Wanted
from edge_client.states import Offer
from edge_client.trust import Reader, confirm, read_desired, target_of
from schemas.trust import DIRECTOR_ROLE, MAX_METADATA_BYTES, MetadataAnswer, MetadataAsk

ASK_AGAIN_SECONDS = 5.0
"""After this without an answer the same file is asked for again."""

WALK_SECONDS = 60.0
"""How long one walk may take in all."""

FIRST_DELAY, LAST_DELAY = 1.0, 300.0
MAX_REFUSED = 4
"""Walks in a row that find metadata which does not hold, before the document is rejected: the
server may be about to sign anew, and a clock about to be set."""

AT_CONNECT = dt.timedelta(hours=12)
EVERY = dt.timedelta(days=1)

log = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 2 * MAX_METADATA_BYTES
"""Of the message around a file, which is escaped in it."""

Verdict: TypeAlias = Offer | TrustError
_Walk: TypeAlias = Generator[Wanted, bytes | None, Verdict | None]


class JournalFloors:
    """The floors of one device, in its journal."""

    def __init__(self, journal: Journal, device: str) -> None:
        """Put together."""
        self._journal, self._device = journal, device

    def load(self) -> Floors:
        """Read them."""
        return self._journal.trust_floors(self._device)

    def save(self, floors: Floors, *, anew: frozenset[str]) -> None:
        """Write them, durably."""
        self._journal.save_trust_floors(self._device, floors, anew=anew)


@dataclass(slots=True)
class _Asked:
    """The walk that is under way."""

    walk: _Walk
    wanted: Wanted
    until: float
    again_at: float = 0.0


class Refresher:
    """Refreshes, and decides about documents with what it found."""

    def __init__(
        self,
        device: Device,
        *,
        decided: Callable[[bytes, Verdict], None],
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Put together.

        Args:
            device: its parts.
            decided: takes a document with the offer in it, or why it is refused; when it
                raises ``JournalError`` it is called again later.
            spread: draws 0 to 1, so that a fleet does not come back at once.
        """
        self._device, self._decided, self._spread = device, decided, spread
        self._connected = False
        self._document: bytes | None = None
        self._under_way: _Asked | None = None
        self._failures = self._refused = 0
        self._next_at = 0.0
        self._last = device.journal.fact(REFRESHED)

    def check(self, document: bytes) -> None:
        """Take a desired document; one that still waits is forgotten."""
        self._document = document
        self._failures = self._refused = 0
        self._begin_anew()

    def forget(self) -> None:
        """Forget the document that waits; a walk that is under way was for it."""
        if self._document is not None:
            self._document, self._under_way = None, None

    def connected(self) -> None:
        """Begin what waited for a connection."""
        self._connected = True
        self._failures = 0
        if self._document is not None or self._older_than(AT_CONNECT):
            self._begin_anew()

    def disconnected(self) -> None:
        """Drop the walk; the next connection begins it anew."""
        self._connected = False
        self._under_way = None

    def pump(self) -> float:
        """Go on. Returns when to call again, in steady seconds."""
        now = self._device.clock.steady()
        if not self._connected:
            return now + LAST_DELAY
        asked = self._under_way
        if asked is None:
            waiting = self._document is not None or self._older_than(EVERY)
            if not waiting:
                return now + LAST_DELAY
            if now < self._next_at:
                return self._next_at
            self._begin_anew()
        elif now >= asked.until:
            self._failed(MetadataUnavailableError(f"{asked.wanted.name} did not come in time"))
        elif now >= asked.again_at:
            self._ask(asked)
        asked = self._under_way
        return self._next_at if asked is None else min(asked.again_at, asked.until)

    def answer(self, raw: bytes) -> None:
        """Take a file; one that is not waited for is dropped."""
        asked = self._under_way
        if asked is None or len(raw) > _MAX_ANSWER_BYTES:
            return
        try:
            answer = MetadataAnswer.model_validate_json(raw)
        except ValidationError:
            self._device.problems.note("a malformed metadata answer was ignored")
            return
        if answer.name != asked.wanted.name:
            return
        if answer.error is not None:
            why = f"the server cannot give {answer.name}: {answer.error[:200]}"
            self._failed(MetadataUnavailableError(why))
            return
        text = answer.text
        self._go_on(asked.walk, None if text is None else text.encode(), until=asked.until)

    def _begin_anew(self) -> None:
        """What was asked for before a document came may be older than it."""
        self._under_way = None
        if self._connected:
            until = self._device.clock.steady() + WALK_SECONDS
            self._go_on(self._walk(self._document), None, until=until)

    def _walk(self, document: bytes | None) -> _Walk:
        """Refresh, then check a document, if there is one."""
        device = self._device
        device.require_clock()
        yield from device.metadata.refreshing()
        now = device.clock.date()
        device.saw_good_time(now)
        self._last = now.timestamp()
        device.journal.remember(REFRESHED, self._last)
        if document is None:
            return None
        record = device.identity.record
        me = Reader(
            device=record.device,
            device_class=record.device_class,
            floor=device.journal.floor(record.device),
        )
        try:
            director = device.metadata.delegated(DIRECTOR_ROLE)
            offer = read_desired(document, director=director, me=me, now=now)
        except TrustError as error:
            return error
        found = yield from device.metadata.finding(target_of(offer))
        try:
            return confirm(offer, found)
        except TrustError as error:
            return error

    def _go_on(self, walk: _Walk, data: bytes | None, *, until: float) -> None:
        """Send a file into the walk, or None to begin it, and ask for what it wants next."""
        self._under_way = None
        try:
            wanted = walk.send(data)
        except StopIteration as end:
            self._ended(end.value)
        except (EdgeError, OSError, sqlite3.Error) as error:
            self._failed(error)
        except Exception as error:  # whatever a file made of it: later again, and never at once
            log.exception("the trust metadata could not be looked at")
            self._failed(error)
        else:
            self._under_way = _Asked(walk, wanted, until)
            self._ask(self._under_way)

    def _ask(self, asked: _Asked) -> None:
        asked.again_at = self._device.clock.steady() + ASK_AGAIN_SECONDS
        self._device.ask(MetadataAsk(name=asked.wanted.name))

    def _ended(self, verdict: Verdict | None) -> None:
        document, self._document = self._document, None
        self._failures = self._refused = 0
        if document is not None and verdict is not None:
            self._decide(document, verdict)

    def _failed(self, error: Exception) -> None:
        """Try again later; metadata that does not hold time and again refuses the document."""
        self._under_way = None
        self._device.problems.note(f"the trust metadata was not refreshed: {error}")
        self._wait()
        if not isinstance(error, TrustError):
            return
        self._refused += 1
        document = self._document
        if document is not None and self._refused >= MAX_REFUSED:
            self._document, self._refused = None, 0
            self._decide(document, error)

    def _decide(self, document: bytes, verdict: Verdict) -> None:
        try:
            self._decided(document, verdict)
        except JournalError:
            self._document = document
            self._wait()
            raise

    def _wait(self) -> None:
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 16))
        delay *= 0.5 + self._spread() / 2
        self._next_at = self._device.clock.steady() + delay
        self._failures += 1

    def _older_than(self, age: dt.timedelta) -> bool:
        """Whether the last refresh is; a time that is still to come counts for nothing."""
        now = self._device.clock.date().timestamp()
        return self._last is None or not 0 <= now - self._last < age.total_seconds()
