"""The journal: the update's state, its reports and the floors of what is believed, in one file.

SQLite in WAL mode with ``synchronous=FULL``: a transaction is on the disk when it is
committed, and after a crash it is there whole or not at all. State and reports change
in one transaction, so that no transition is ever told twice differently.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge_client.actions import Report
from edge_client.database import open_database, open_readonly, transaction, unusable
from edge_client.metadata_floors import FLOORS, Floors
from edge_client.states import Idle, JournalledState, Key, State, exec_state, key_of
from schemas.device import ExecutionSeen
from schemas.errors import DeviceCause
from schemas.ids import BootId
from schemas.rollout import ExecReport, ExecState
from schemas.trust import DIRECTOR_ROLE

MAX_WAITING = 500
"""Reports kept for sending; beyond it the oldest that ends nothing are dropped."""

MAX_ENDED = 200
"""Executions whose last report is kept to be repeated."""

MAX_DETAIL = 2000

ROLLED_BACK = "rolled_back"
"""Whether what serves was put back by hand, until the next update succeeds: 1 or 0."""

_WHAT = "journal"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, execution TEXT NOT NULL, attempt INTEGER NOT NULL,
  state TEXT NOT NULL, terminal INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS executions (
  execution TEXT, attempt INTEGER, seq INTEGER NOT NULL, last TEXT, touched INTEGER NOT NULL,
  PRIMARY KEY (execution, attempt));
CREATE TABLE IF NOT EXISTS floors (device TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trust (device TEXT PRIMARY KEY, floors TEXT NOT NULL);
"""

_STATE: TypeAdapter[State] = TypeAdapter(JournalledState)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A report to be sent; ``id`` removes it once it has arrived."""

    id: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The highest sequence accepted on behalf of a device."""

    device: str
    sequence: int


class Journal:
    """Opened by one agent at a time; used from one thread."""

    def __init__(self, path: Path, *, boot: BootId) -> None:
        """Open or create.

        Raises:
            JournalError: the file cannot be used.
        """
        self._boot, self._path = boot, path
        self._db = open_database(path, _SCHEMA, what=_WHAT, synchronous="FULL")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def copy(self, path: Path) -> None:
        """Take over all that another one holds, which is only read and nobody else has open.

        Raises:
            JournalError: it is damaged, cannot be read, or is not understood.
        """
        try:
            with contextlib.closing(open_readonly(path, what=_WHAT, alone=True)) as other:
                found = str(other.execute("PRAGMA quick_check(1)").fetchone()[0])
                if found != "ok":
                    raise unusable(_WHAT, path, ValueError(found))
                other.backup(self._db)
        except sqlite3.Error as error:
            raise unusable(_WHAT, path, error) from error
        self.load()

    def load(self) -> State:
        """The state at the last transition; ``Idle`` at first.

        Raises:
            JournalError: it is damaged, or was written by a version that this one does not
            understand.
        """
        try:
            row = self._db.execute("SELECT body FROM state").fetchone()
            return Idle() if row is None else _STATE.validate_json(row[0])
        except (sqlite3.Error, ValidationError) as error:
            raise unusable(_WHAT, self._path, error) from error

    def floor(self, device: str) -> int:
        """The highest sequence accepted for ``device``; 0 at first."""
        row = self._db.execute("SELECT sequence FROM floors WHERE device = ?", (device,)).fetchone()
        return int(row[0]) if row else 0

    def trust_floors(self, device: str) -> Floors:
        """The least versions of trust metadata for ``device``; empty ones at first.

        Raises:
            JournalError: they cannot be read.
        """
        try:
            row = self._db.execute(
                "SELECT floors FROM trust WHERE device = ?", (device,)
            ).fetchone()
            return Floors() if row is None else FLOORS.validate_json(row[0])
        except (sqlite3.Error, ValidationError) as error:
            raise unusable(_WHAT, self._path, error) from error

    def save_trust_floors(
        self, device: str, floors: Floors, *, anew: frozenset[str] = frozenset()
    ) -> None:
        """Replace them, durably. anew: with the director in it, its sequence is forgotten.

        Raises:
            JournalError: they could not be written; the old ones stand.
        """
        with self._transaction():
            body = FLOORS.dump_json(floors).decode()
            self._db.execute("INSERT OR REPLACE INTO trust VALUES (?, ?)", (device, body))
            if DIRECTOR_ROLE in anew:
                self._db.execute("DELETE FROM floors WHERE device = ?", (device,))

    def fact(self, name: str) -> float | None:
        """A number remembered under ``name``."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return float(row[0]) if row else None

    def remember(self, name: str, value: float) -> None:
        """Keep a number across restarts."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def last_report(self, key: Key) -> str | None:
        """The report that ended an execution, as it was sent."""
        row = self._db.execute(
            "SELECT last FROM executions WHERE execution = ? AND attempt = ?", key
        ).fetchone()
        return None if row is None else row[0]

    def seen(self, state: State, device: str) -> ExecutionSeen | None:
        """Where ``device``'s newest execution stands, for its birth message."""
        key, reported = key_of(state), exec_state(state)
        if isinstance(state, Idle) or key is None or reported is None:
            return None
        if state.offer.assignment.device != device:  # of an earlier identity
            return None
        row = self._db.execute(
            "SELECT seq FROM executions WHERE execution = ? AND attempt = ?", key
        ).fetchone()
        seq = -1 if row is None else row[0]
        return ExecutionSeen(execution=key[0], attempt=key[1], state=reported, seq=seq)

    def commit(
        self,
        state: State,
        reports: Iterable[Report],
        *,
        uptime: float,
        floor: Floor | None = None,
        facts: Mapping[str, float] | None = None,
    ) -> None:
        """Write a transition, durably, with all that it tells the server, and what to remember.

        Raises:
            JournalError: it could not be written; then nothing of it was.
        """
        with self._transaction():
            body = _STATE.dump_json(state).decode()
            self._db.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (body,))
            if floor is not None:
                self._db.execute(
                    "INSERT INTO floors VALUES (?, ?) ON CONFLICT (device) DO UPDATE"
                    " SET sequence = max(sequence, excluded.sequence)",
                    (floor.device, floor.sequence),
                )
            for report in reports:
                self._put(report, uptime)
            for fact in (facts or {}).items():
                self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", fact)
            self._trim(_keys(state))

    def repeat(self, key: Key) -> bool:
        """Queue the stored last report of ``key`` again; False when there is none."""
        last = self.last_report(key)
        if last is None:
            return False
        state = ExecReport.model_validate_json(last).state
        with self._transaction():
            self._db.execute(
                "DELETE FROM outbox WHERE execution = ? AND attempt = ? AND terminal = 1", key
            )
            self._queue(key, state, terminal=True, body=last)
        return True

    def waiting(self, limit: int) -> list[Waiting]:
        """The oldest reports that have not arrived."""
        rows = self._db.execute("SELECT id, body FROM outbox ORDER BY id LIMIT ?", (limit,))
        return [Waiting(*row) for row in rows]

    def arrived(self, report_id: int) -> None:
        """Forget a report that the broker has acknowledged."""
        self._db.execute("DELETE FROM outbox WHERE id = ?", (report_id,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or, whatever goes wrong, none of it."""
        try:
            with transaction(self._db):
                yield
        except sqlite3.Error as error:
            raise unusable(_WHAT, self._path, error) from error

    def _put(self, report: Report, uptime: float) -> None:
        row = self._db.execute(
            "INSERT INTO executions VALUES (?, ?, 0, NULL,"
            " (SELECT coalesce(max(touched), 0) + 1 FROM executions))"
            " ON CONFLICT DO UPDATE SET seq = seq + 1, touched = excluded.touched"
            " RETURNING seq",
            report.key,
        ).fetchone()
        message = ExecReport(
            execution=report.key[0],
            attempt=report.key[1],
            seq=row[0],
            boot=self._boot,
            uptime=uptime,
            state=report.state,
            bytes_done=report.done,
            bytes_total=report.total,
            bytes_fetched=report.fetched,
            cause=report.cause,
            retryable=report.retryable,
            detail=None if report.detail is None else report.detail[:MAX_DETAIL],
            waits_until=report.waits_until,
        )
        body = message.model_dump_json(exclude_none=True)
        if report.state is ExecState.DOWNLOADING:
            # Only the newest progress is worth sending.
            self._db.execute(
                "DELETE FROM outbox WHERE execution = ? AND attempt = ? AND state = 'DOWNLOADING'",
                report.key,
            )
        self._queue(report.key, report.state, terminal=report.terminal, body=body)
        if report.terminal and report.keep:
            self._db.execute(
                "UPDATE executions SET last = ? WHERE execution = ? AND attempt = ?",
                (body, *report.key),
            )

    def _queue(self, key: Key, state: ExecState, *, terminal: bool, body: str) -> None:
        self._db.execute(
            "INSERT INTO outbox (execution, attempt, state, terminal, body) VALUES (?, ?, ?, ?, ?)",
            (*key, state.value, int(terminal), body),
        )

    def _trim(self, running: Iterable[Key]) -> None:
        """Keep what is stored bounded, and the numbering of what runs whatever comes."""
        self._db.execute(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY terminal DESC,"
            " id DESC LIMIT -1 OFFSET ?)",
            (MAX_WAITING,),
        )
        for key in running:
            self._db.execute(
                "UPDATE executions SET touched = (SELECT max(touched) + 1 FROM executions)"
                " WHERE execution = ? AND attempt = ?",
                key,
            )
        self._db.execute(
            "DELETE FROM executions WHERE rowid IN (SELECT rowid FROM executions"
            " ORDER BY touched DESC LIMIT -1 OFFSET ?)",
            (MAX_ENDED,),
        )


def facts_of(reports: Iterable[Report]) -> dict[str, float]:
    """What reports change of what is remembered."""
    facts: dict[str, float] = {}
    for report in reports:
        if report.state is ExecState.SUCCEEDED:
            facts[ROLLED_BACK] = 0.0
        elif report.state is ExecState.ROLLED_BACK and report.cause is DeviceCause.OPERATOR:
            facts[ROLLED_BACK] = 1.0
    return facts


def _keys(state: State) -> list[Key]:
    """The present execution, and the one that waits."""
    pending = getattr(state, "pending", None)
    keys = (key_of(state), None if pending is None else pending.key)
    return [key for key in keys if key is not None]
