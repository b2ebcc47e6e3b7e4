"""The fleet: who is there, and what it serves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from orchestrator.domain.tagging import retagged
from orchestrator.errors import Conflict, Invalid
from orchestrator.services import births, fleet
from orchestrator.services.births import Sign
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord
from schemas.device import MAX_TAGS, DeviceState, DeviceView, Presence
from schemas.fleet import TagChange, TagMany, TagsChanged
from schemas.selector import parse

_MISSED = 3
_SHORT = 200
"""Characters of a selector that the audit log has whole; of a longer one it has the parts."""

_PORTION = 500
"""Devices that are taken for offline at once: when a broker is lost, all of them fall silent."""
_PORTIONS = 10


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
        self,
        before: str | None,
        limit: int,
        states: Collection[DeviceState] = (),
        *,
        model: str | None = None,
        version: int | None = None,
        where: str | None = None,
    ) -> Sequence[DeviceView]:
        """Devices, newest first; only those that fit all of what is named."""
        now = self._clock()
        selected = None if where is None else (parse(where), now)
        with self._uow.read() as tx:
            found = tx.devices.page(before, limit, states, model, version, selected)
            return fleet.device_views(tx, found)

    def tag(self, device_id: str, tags: Sequence[str]) -> DeviceView:
        """Give a device exactly these tags; a repeat changes nothing.

        Frozen plans stay as they are.

        Raises:
            NotFound: there is no such device.
        """
        with self._uow() as tx:
            record = fleet.found(tx, device_id, lock=True)
            _keep_tags(tx, record, tuple(dict.fromkeys(tags)))
        return self.get(device_id)

    def retag(self, device_id: str, change: TagChange) -> DeviceView:
        """Give a device tags and take others away; the rest stays, whoever changes it meanwhile.

        Raises:
            NotFound: there is no such device.
            Invalid: it would have too many.
        """
        with self._uow() as tx:
            record = fleet.found(tx, device_id, lock=True)
            wanted = retagged(record.tags, change.add, change.remove)
            if len(wanted) > MAX_TAGS:
                msg = f"{record.id} would have {len(wanted)} tags, and may have {MAX_TAGS}"
                raise Invalid(msg, hint="take some away with the same change")
            _keep_tags(tx, record, wanted)
        return self.get(device_id)

    def retag_all(self, asked: TagMany) -> TagsChanged:
        """The same for every device that a selector matches: all of them, or none.

        Raises:
            Invalid: a device would have too many.
            Conflict: more would change than was agreed to.
        """
        now, node = self._clock(), parse(asked.where)
        with self._uow.read() if asked.dry_run else self._uow() as tx:
            found = tx.devices.count_retagged(node, now, asked.add, asked.remove)
            if found.too_many:
                many = "1 device" if found.too_many == 1 else f"{found.too_many} devices"
                msg = f"{many} would have more than {MAX_TAGS} tags"
                raise Invalid(msg, hint="take some away with the same change")
            if asked.at_most is not None and found.changes > asked.at_most:
                msg = f"{found.changes} would change, more than the {asked.at_most} agreed to"
                raise Conflict(msg, hint="look again whom the selector matches")
            if found.changes and not asked.dry_run:
                tx.devices.retag(node, now, asked.add, asked.remove)
                detail = asked.model_dump(mode="json", include={"add", "remove"})
                counted = {"matched": found.matched, "changed": found.changes}
                where = asked.where
                parts = [where[i : i + _SHORT] for i in range(0, len(where), _SHORT)]
                detail |= {"where": parts} if len(parts) > 1 else {}
                tx.audit.add("device.tag_many", asked.where, detail | counted)
        return TagsChanged(matched=found.matched, changed=found.changes, dry_run=asked.dry_run)

    def admits(self, device_id: str) -> bool:
        """Whether a device is heard: it is there, and neither waits for approval nor is revoked.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._uow.read() as tx:
            return device_id in tx.devices.taking_part([device_id])

    def take(self, tx: Transaction, signs: Sequence[Sign]) -> None:
        """Apply births and deaths inside the transaction that stores their batch."""
        births.take(tx, signs, self._clock())

    def sweep(self) -> int:
        """Take devices for offline that missed three heartbeats; how many."""
        total = 0
        for _ in range(_PORTIONS):  # the rest at the next tick; others write in between
            swept = self._sweep()
            total += swept
            if swept < _PORTION:
                break
        return total

    def _sweep(self) -> int:
        now = self._clock()
        since = now - timedelta(seconds=_MISSED * self._heartbeat)
        with self._uow.read() as tx:  # most find nobody, and hold no writer up
            if not tx.devices.silent(since, 1):
                return 0
        with self._uow() as tx:
            silent = tx.devices.silent(since, _PORTION)
            gone = [replace(record, presence=Presence.OFFLINE) for record in silent]
            tx.devices.change(zip(silent, gone, strict=True), now)
            fleet.announce_all(tx, gone, now)
        return len(gone)


def _keep_tags(tx: Transaction, record: DeviceRecord, wanted: tuple[str, ...]) -> None:
    if record.tags != wanted:
        tx.devices.save(replace(record, tags=wanted))
        detail = {"tags": list(wanted), "before": list(record.tags)}
        tx.audit.add("device.tag", record.id, detail)
