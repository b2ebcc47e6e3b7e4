"""Executions that a batch of messages is about: moved in memory, written at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.execution import Announce, Event
from orchestrator.domain.timers import Timers
from orchestrator.services import moves
from orchestrator.services.ports import Transaction
from orchestrator.services.records import ExecutionRecord
from schemas.rollout import ExecState


class ExecutionBatch:
    """Records of one transaction, by id.

    Args:
        tx: in which they were loaded, and are written.
        records: as they were loaded.
        now: the time.
    """

    def __init__(self, tx: Transaction, records: Iterable[ExecutionRecord], now: datetime) -> None:
        self._tx = tx
        self._now = now
        self._before = {record.id: record for record in records}
        self._records = dict(self._before)
        self._timers: dict[str, Timers] = {}
        self._seen: dict[tuple[str, int, ExecState], ExecutionRecord] = {}

    def get(self, execution: str) -> ExecutionRecord | None:
        """A record as it is by now."""
        return self._records.get(execution)

    def add(self, record: ExecutionRecord) -> None:
        """Take one in that was loaded since; what was done to it before stays."""
        self._before.setdefault(record.id, record)
        self._records.setdefault(record.id, record)

    def put(self, record: ExecutionRecord) -> None:
        """Replace a record that was loaded."""
        self._records[record.id] = record

    def offer_anew(self, record: ExecutionRecord) -> None:
        """Put a record that is offered once more now; its timer begins anew."""
        due = moves.timer_of(record, self._now, self._timers_of(record))
        self.put(replace(record, updated_at=self._now, due_at=due))

    def move(self, record: ExecutionRecord, event: Event) -> ExecutionRecord:
        """Apply an event to a record, and keep what comes of it."""
        timers = self._timers_of(record)
        moved, actions = moves.moved_execution(self._tx, record, event, self._now, timers)
        self.put(moved)
        if any(isinstance(action, Announce) for action in actions):
            # Of several in one state, watchers are told of the last.
            self._seen[moved.id, moved.attempt, moved.state] = moved
        return moved

    def _timers_of(self, record: ExecutionRecord) -> Timers:
        timers = self._timers.get(record.rollout_id)
        if timers is None:
            timers = Timers.of(moves.found(self._tx, record.rollout_id).spec)
            self._timers[record.rollout_id] = timers
        return timers

    def store(self) -> None:
        """Write what changed, and tell watchers."""
        pairs = ((self._before[key], one) for key, one in self._records.items())
        self._tx.outbox.change(pair for pair in pairs if pair[0] != pair[1])
        seen = [(one.rollout_id, moves.execution_data(one)) for one in self._seen.values()]
        if seen:
            self._tx.events.add_all("execution", seen, self._now)
