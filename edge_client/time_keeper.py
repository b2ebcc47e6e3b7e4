"""Asks the server what time it is, and remembers it for this start of the machine."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable

from pydantic import ValidationError

from edge_client.clock_sync import Plan, Sync, answered
from edge_client.machine import Clocks
from edge_client.telemetry_buffer import Buffer
from schemas.clock import TimeAsk, TimeReply

PATIENCE_SECONDS = 3.0
"""After connecting, windows wait so long for the first answer, as a server may not know how."""

MAX_ASKED = 16


class TimeKeeper:
    """Of one agent. Used from the thread that decides."""

    def __init__(self, buffer: Buffer, send: Callable[[TimeAsk], bool], clocks: Clocks) -> None:
        """Put together. send: asks; False where it cannot."""
        self._buffer, self._send, self._clocks = buffer, send, clocks
        self._plan = Plan()
        self._asked: dict[int, float] = {}
        self._id = 0
        self._connected_at = 0.0
        self._known: dict[bytes, Sync | None] = {}

    def connected(self) -> None:
        """Ask at once."""
        self._plan, self._connected_at = Plan(), self._clocks.steady()
        self._asked.clear()

    def pump(self) -> None:
        """Ask, if it is time."""
        now = self._clocks.steady()
        if now < self._plan.due:
            return
        self._id += 1
        self._asked[self._id] = now
        if not self._send(TimeAsk(id=self._id)):
            del self._asked[self._id]
            return
        for old in list(self._asked)[:-MAX_ASKED]:
            del self._asked[old]
        self._plan = self._plan.asked(now)

    def take(self, payload: bytes) -> None:
        """An answer; what is none, or answers nothing that was asked, is ignored."""
        now = self._clocks.steady()
        try:
            reply = TimeReply.model_validate_json(payload)
        except ValidationError:
            return
        asked = self._asked.pop(reply.id, None)
        if asked is None:
            return
        machine = self._clocks.machine
        before = self.sync(machine)
        sync = answered(before, asked=asked, heard=now, server=reply.at, now=now)
        if sync is not None and sync != before:
            self._known[machine] = sync
            self._buffer.synced(machine, sync)

    def ready(self) -> bool:
        """Whether windows may be sent: the time is known, or nobody says it."""
        waited = self._clocks.steady() - self._connected_at
        return self.sync(self._clocks.machine) is not None or waited >= PATIENCE_SECONDS

    def server_time(self) -> dt.datetime | None:
        """What time it is by the server's clock; while nobody knows, it is asked for soon."""
        now, sync = self._clocks.steady(), self.sync(self._clocks.machine)
        if sync is None:
            self._plan = self._plan.soon(now)
            return None
        return dt.datetime.fromtimestamp(now + sync.offset, dt.UTC)

    def sync(self, machine: bytes) -> Sync | None:
        """What is known of the server's clock in a start of the machine."""
        if machine not in self._known:
            try:
                self._known[machine] = self._buffer.sync(machine)
            except sqlite3.Error:
                return None
        return self._known[machine]
