"""Keeping revoked devices out: what the database says, brought to the broker.

Level-triggered: each tick compares who is revoked with what the broker was told, tells it,
has canaries prove it, and then ends the sessions of those who are connected yet. A tick that
fails is repeated; a restart begins with telling everything once more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from orchestrator.domain import gate as rules
from orchestrator.domain.gate import Step, Told, Wanted
from orchestrator.errors import ArgosyError
from orchestrator.services.ports import Clock, Gate, UnitOfWork
from orchestrator.services.records import RevokedCertificate
from schemas.device import DeviceState

log = logging.getLogger(__name__)

_RETRY = timedelta(seconds=2)
_AT_ONCE = 200
"""Sessions ended in one tick: some milliseconds each."""


class ShuttingOut:
    """The control loop's task.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        gate: the broker's.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, gate: Gate) -> None:
        self._uow = uow
        self._clock = clock
        self._gate = gate
        self._started = clock()
        self._told = Told()
        self._seen: tuple[object, ...] | None = None
        self._revoked: Sequence[RevokedCertificate] = ()
        self._shut: frozenset[str] = frozenset()
        self._ended: frozenset[str] | None = None
        self._lost: frozenset[str] = frozenset()
        self._not_before = self._started
        self._fault = ""

    @property
    def told(self) -> Told:
        """What the broker was told, and what is known of it."""
        return self._told

    @property
    def revoked(self) -> int:
        """How many revoked certificates have not expired."""
        return len(self._revoked)

    def end_lost(self, devices: Iterable[str]) -> None:
        """End these sessions once the broker refuses them by what it is told next."""
        self._lost |= frozenset(devices)

    def has_ended(self, serial: str) -> bool:
        """Whether a revoked certificate's session was ended, after the broker was told of it."""
        return serial in self._known_ended()

    def trouble(self) -> str | None:
        """Why it is not assured that who is revoked stays out; None when it is."""
        waiting = len(self._waiting())
        found = rules.trouble(self._told, waiting=waiting, started=self._started, now=self._clock())
        return f"{found}: {self._fault}" if found and self._fault else found

    def health(self) -> str:
        """The word "ok", or the trouble where it is ours.

        A broker that is run elsewhere and cannot be tried is no fault of this platform, but
        one that lets canaries in is told of.
        """
        trouble = self.trouble()
        if trouble is None or (
            not self._gate.embedded and self._told.verdict is not rules.Verdict.OPEN
        ):
            return "ok"
        return trouble

    def tick(self) -> None:
        """Bring the broker nearer to what the database says."""
        now = self._clock()
        self._load(now)
        # Not by more than that: else the clock was ahead when it was set.
        if now < self._not_before <= now + _RETRY:
            return
        try:
            self._step(now)
            self._fault = ""
        except (ArgosyError, OSError) as error:
            self._fault = getattr(error, "detail", None) or str(error)
            self._not_before = now + _RETRY
            raise

    def _step(self, now: datetime) -> None:
        wanted = Wanted(frozenset(r.serial for r in self._revoked), self._shut, self._gate.roots())
        match rules.next_step(wanted, self._told, now):
            case Step.TELL:
                until = self._gate.tell(wanted, self._revoked)
                self._told = rules.was_told(self._told, wanted, now, until)
            case Step.TRY:
                trial = self._gate.try_canaries()
                self._told = rules.was_tried(self._told, trial, self._clock())
            case Step.REST:
                pass
        # A broker elsewhere that cannot be tried is not waited for: its sessions can be ended.
        if self._told.proven_at is not None or not self._gate.embedded:
            self._end_sessions(self._waiting()[:_AT_ONCE])
            for device in sorted(self._lost):
                self._gate.end(device, clear=False)
                self._lost -= {device}

    def _load(self, now: datetime) -> None:
        with self._uow.read() as tx:
            # Whatever expires in between stays listed for a while longer: no harm.
            seen = (*tx.fleet_trust.mark(), now.replace(minute=0, second=0, microsecond=0))
            if seen == self._seen:
                return
            revoked = tx.devices.revoked_serials(now - timedelta(days=1))
            records = tx.devices.many(r.device_id for r in revoked)
        self._revoked = revoked
        self._shut = frozenset(d.id for d in records.values() if d.state is DeviceState.REVOKED)
        self._seen = seen

    def _waiting(self) -> list[RevokedCertificate]:
        ended = self._known_ended()
        return [r for r in self._revoked if r.serial not in ended]

    def _known_ended(self) -> frozenset[str]:
        if self._ended is None:
            self._ended = self._gate.ended()
        return self._ended

    def _end_sessions(self, due: Sequence[RevokedCertificate]) -> None:
        done: set[str] = set()
        try:
            for device in sorted({r.device_id for r in due}):
                self._gate.end(device, clear=device in self._shut)
                done.update(r.serial for r in due if r.device_id == device)
                log.info("ended whatever session %s had: its certificate is revoked", device)
        finally:
            if done:
                current = {r.serial for r in self._revoked}
                self._ended = frozenset((self._known_ended() & current) | done)
                self._gate.keep_ended(self._ended)
