"""Join tokens and devices in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, func, not_, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.certificate_repository import SqlCertificates
from orchestrator.adapters.device_facts import DeviceFacts
from orchestrator.adapters.repository import Records
from orchestrator.adapters.selector_sql import where as sql_where
from orchestrator.adapters.served_models import ServedModels, serves
from orchestrator.adapters.tables import DeviceRow, DeviceTagRow, JoinTokenRow
from orchestrator.adapters.tagging import SetTags
from orchestrator.domain.cohort import Candidate
from orchestrator.services.records import DeviceRecord, TagCount, Target, TokenRecord
from schemas.device import DeviceState, Presence
from schemas.selector import Node

_PORTION = 500
_SHUT_OUT = (DeviceState.PENDING.value, DeviceState.REVOKED.value)


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items in portions of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class SqlDevices(SqlCertificates):
    """``services.ports.Devices`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._tokens = Records(session, JoinTokenRow, TokenRecord)
        self._devices = Records(session, DeviceRow, DeviceRecord)
        self._served = ServedModels(session)
        self._facts = DeviceFacts(session)
        self._set_tags = SetTags(session)

    def add_token(self, record: TokenRecord) -> None:
        self._tokens.add(record)

    def save_token(self, record: TokenRecord) -> None:
        self._tokens.save(record, record.id)

    def token(self, token_id: str) -> TokenRecord | None:
        return self._tokens.get(token_id)

    def tokens(self, before: str | None, limit: int) -> Sequence[TokenRecord]:
        return self._tokens.newest(JoinTokenRow.id, before, limit)

    def tokens_for(self, device_id: str) -> Sequence[TokenRecord]:
        return self._tokens.all(
            select(JoinTokenRow).where(
                JoinTokenRow.device_id == device_id,
                JoinTokenRow.revoked.is_(False),
                JoinTokenRow.uses < JoinTokenRow.max_uses,
            )
        )

    def spend(self, token_id: str, now: datetime) -> bool:
        # One statement: whoever changes the row has the use, however many race for it.
        spent = (
            update(JoinTokenRow)
            .where(
                JoinTokenRow.id == token_id,
                JoinTokenRow.uses < JoinTokenRow.max_uses,
                JoinTokenRow.revoked.is_(False),
                JoinTokenRow.expires_at > now,
            )
            .values(uses=JoinTokenRow.uses + 1)
        )
        return cast("CursorResult[Any]", self._session.execute(spent)).rowcount == 1

    def add(self, record: DeviceRecord) -> None:
        self._devices.add(record)
        self._facts.write([(None, record)])
        self._served.write([(record.id, (), record.active)], _heard(record))

    def save(self, record: DeviceRecord) -> None:
        before = self._devices.get(record.id)
        self._devices.save(record, record.id)
        if before is not None:
            self._facts.write([(before, record)])
            self._served.write([(record.id, before.active, record.active)], _heard(record))

    def change(self, pairs: Iterable[tuple[DeviceRecord, DeviceRecord]], at: datetime) -> None:
        pairs = list(pairs)
        self._devices.change(pairs)
        self._facts.write(pairs)
        differs = ((b.id, b.active, a.active) for b, a in pairs if b.active != a.active)
        self._served.write(differs, at)

    def serving_since(self, ids: Collection[str]) -> Mapping[str, Mapping[str, datetime]]:
        return self._served.since(ids)

    def get(self, device_id: str, *, lock: bool = False) -> DeviceRecord | None:
        return self._devices.get(device_id, lock=lock)

    def page(
        self,
        before: str | None,
        limit: int,
        states: Collection[DeviceState] = (),
        model: str | None = None,
        version: int | None = None,
        where: tuple[Node, datetime] | None = None,
    ) -> Sequence[DeviceRecord]:
        wanted: list[ColumnElement[bool]] = []
        if states:
            wanted.append(DeviceRow.state.in_([state.value for state in states]))
        if model is not None:
            wanted.append(serves(model, version))
        if where is not None:
            wanted.append(sql_where(*where))
        return self._devices.newest(DeviceRow.id, before, limit, *wanted)

    def taking_part(self, ids: Iterable[str]) -> AbstractSet[str]:
        found: set[str] = set()
        for portion in batched(sorted(set(ids)), _PORTION):
            query = select(DeviceRow.id).where(
                DeviceRow.id.in_(portion), DeviceRow.state.not_in(_SHUT_OUT)
            )
            found |= set(self._session.scalars(query))
        return found

    def candidates(self, target: Target, now: datetime) -> Sequence[Candidate]:
        query = select(DeviceRow.id, DeviceRow.device_class).where(*fitting(target, now))
        rows = self._session.execute(query.order_by(DeviceRow.id))
        return [Candidate(device, name) for device, name in rows]

    def census(self, target: Target, now: datetime) -> Mapping[tuple[str, Presence], int]:
        columns = (DeviceRow.device_class, DeviceRow.presence)
        query = select(*columns, func.count()).where(*fitting(target, now)).group_by(*columns)
        rows = self._session.execute(query)
        return {(name, Presence(presence)): int(n) for name, presence, n in rows}

    def many(self, ids: Iterable[str]) -> Mapping[str, DeviceRecord]:
        found: dict[str, DeviceRecord] = {}
        # In portions, because a statement takes only so many values.
        for portion in batched(sorted(set(ids)), _PORTION):
            query = select(DeviceRow).where(DeviceRow.id.in_(portion))
            found |= {device.id: device for device in self._devices.all(query)}
        return found

    def silent(self, since: datetime, limit: int) -> Sequence[DeviceRecord]:
        query = select(DeviceRow).where(
            DeviceRow.presence == Presence.ONLINE.value, DeviceRow.last_seen_at < since
        )
        return self._devices.all(query.limit(limit))

    def count_retagged(
        self, node: Node, now: datetime, add: Sequence[str], remove: Collection[str]
    ) -> TagCount:
        return self._set_tags.count(node, now, add, remove)

    def retag(self, node: Node, now: datetime, add: Sequence[str], remove: Collection[str]) -> int:
        return self._set_tags.change(node, now, add, remove)


def fitting(target: Target, now: datetime) -> list[ColumnElement[bool]]:
    """That a device is active and fits a target; no part of it is ever NULL."""
    wanted: list[ColumnElement[bool]] = [DeviceRow.state == DeviceState.ACTIVE.value]
    if target.device_class is not None:
        wanted.append(DeviceRow.device_class == target.device_class)
    for tag in target.tags:
        its = select(DeviceTagRow.device_id).where(DeviceTagRow.tag == tag)
        wanted.append(DeviceRow.id.in_(its))
    if target.where is not None:
        wanted.append(sql_where(target.where, now))
    if target.exclude is not None:
        wanted.append(not_(sql_where(target.exclude, now)))
    return wanted


def _heard(record: DeviceRecord) -> datetime:
    """When it told last, or else came: beside batches only enrollment changes what it serves."""
    return record.last_seen_at or record.enrolled_at
