"""The fleet: who is there, and what it serves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from orchestrator.domain.clone import Seen, Sighting, observe
from orchestrator.services import fleet
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord
from schemas.device import Birth, Death, DeviceState, DeviceView, Presence
from schemas.rollout import DEVICE_TERMINAL

log = logging.getLogger(__name__)

_MISSED = 3


class DeviceService:
    """What the API and the gateway do with devices.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        heartbeat_seconds: how often a device says that it is there.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, *, heartbeat_seconds: float) -> None:
        self._uow = uow
        self._clock = clock
        self._heartbeat = heartbeat_seconds

    def get(self, device_id: str) -> DeviceView:
        """One device.

        Raises:
            NotFound: there is none.
        """
        with self._uow.read() as tx:
            return fleet.device_view(tx, fleet.found(tx, device_id))

    def page(
        self, before: str | None, limit: int, states: Collection[DeviceState] = ()
    ) -> Sequence[DeviceView]:
        """Devices, newest first; only those in some states, if any are named."""
        with self._uow.read() as tx:
            found = tx.devices.page(before, limit, states)
            return [fleet.device_view(tx, record) for record in found]

    def admits(self, device_id: str) -> bool:
        """Whether a device is heard: it is there, and neither waits for approval nor is revoked.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._uow.read() as tx:
            return device_id in tx.devices.taking_part([device_id])

    def born(self, tx: Transaction, device_id: str, birth: Birth, *, retained: bool) -> None:
        """A device says that it is there, and what it serves.

        retained: the broker repeats it because the gateway subscribed anew; that alone
        never brings a device back whose death was heard, and tells of no clone.
        """
        record = tx.devices.get(device_id, lock=True)
        if record is None:
            return
        same_session = (record.boot, record.session) == (birth.boot, birth.session)
        if record.boot == birth.boot and birth.session < record.session:
            return  # an older connection's, delivered late
        if retained and same_session:
            return
        now = self._clock()
        if not retained:
            sighting = Sighting(birth.boot, birth.session, birth.uptime, now.timestamp())
            seen, turns = observe(record.turns, sighting)
            if seen is Seen.LATE:
                return
            record = replace(record, turns=turns)
            if seen is Seen.CLONE:
                record = self._suspect(tx, record, birth)
        self._note_certificate(tx, record, birth)
        changed = record.presence is not Presence.ONLINE or record.active != birth.active
        record = replace(
            record,
            presence=Presence.ONLINE,
            boot=birth.boot,
            session=birth.session,
            hardware=birth.hardware,
            active=birth.active,
            seen_certificate=birth.certificate or record.seen_certificate,
            last_seen_at=now,
        )
        tx.devices.save(record)
        latest = None if same_session else tx.rollouts.latest_of_device(device_id)
        if latest is not None and latest.state not in DEVICE_TERMINAL:
            # The broker may have lost what was sent down, an end as well as an offer.
            tx.rollouts.save_execution(replace(latest, published=False))
        if changed:
            fleet.announce(tx, record, now)

    def _suspect(self, tx: Transaction, record: DeviceRecord, birth: Birth) -> DeviceRecord:
        """Two boots take turns: an alert, until somebody looked."""
        if record.clone_suspected_at is not None:
            return record
        now = self._clock()
        record = replace(record, clone_suspected_at=now)
        log.warning("%s is used from two places at once: it may have been cloned", record.id)
        boots = {"boots": [record.boot or "", birth.boot]}
        tx.audit.add("device.clone_suspected", record.id, boots)
        fleet.announce(tx, record, now)
        return record

    def _note_certificate(self, tx: Transaction, record: DeviceRecord, birth: Birth) -> None:
        seen, known = birth.certificate, record.seen_certificate
        if seen is not None and (known is None or known.serial != seen.serial):
            tx.devices.see_certificate(record.id, seen.serial, self._clock())

    def died(self, tx: Transaction, device_id: str, death: Death) -> None:
        """The broker says that a connection is gone; an older one's end means nothing."""
        record = tx.devices.get(device_id, lock=True)
        if record is None or (record.boot, record.session) != (death.boot, death.session):
            return
        if record.presence is Presence.ONLINE:
            record = replace(record, presence=Presence.OFFLINE)
            tx.devices.save(record)
            fleet.announce(tx, record, self._clock())

    def sweep(self) -> int:
        """Take devices for offline that missed three heartbeats; how many."""
        now = self._clock()
        with self._uow() as tx:
            silent = tx.devices.silent(now - timedelta(seconds=_MISSED * self._heartbeat))
            for record in silent:
                gone = replace(record, presence=Presence.OFFLINE)
                tx.devices.save(gone)
                fleet.announce(tx, gone, now)
        return len(silent)
