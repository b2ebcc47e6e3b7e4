"""Who is in the two cohorts of a wave, in SQL.

Of each class some hundred devices are chosen, by the random part of their ids, beginning at a place
of the rollout's own, so that each look at a wave is at the same devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from orchestrator.adapters.execution_conditions import IS_ONLINE
from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, ExecutionRow, WaveRow
from orchestrator.domain.execution import FAILURES, IN_FLIGHT
from orchestrator.domain.judging.silence import LEAST_SECONDS
from orchestrator.services.records import RolloutRecord
from schemas.device import DeviceState
from schemas.rollout import ExecState, WaveState

MEMBERS = 5_000
"""Devices of a wave among whom those of each class are chosen, unless the class is rare there."""

_CANDIDATES = 10
"""Times as many devices of a class as are wanted are looked through for a control cohort."""

_USABLE = (DeviceRow.state == DeviceState.ACTIVE.value, DeviceRow.drifted_at.is_(None))
_FAILURES = sorted(state.value for state in FAILURES)
_IN_FLIGHT = sorted(state.value for state in IN_FLIGHT)


class Member(NamedTuple):
    """One of a cohort. version: that it served, or serves. Times in milliseconds since 1970.

    offered: from when on it may have switched; since: from when on it serves, by what it said.
    earlier: it is of a wave that has passed.
    """

    id: str
    device_class: str
    online: bool
    version: int
    offered: int
    since: int
    earlier: bool = False


class CohortMembers:
    """Finds devices.

    Args:
        session: a reading transaction's.
        rollout: whose cohorts they are.
        wave: likewise.
    """

    def __init__(self, session: Session, rollout: RolloutRecord, wave: int) -> None:
        self._session, self._rollout, self._wave = session, rollout, wave

    def treated(self, least: int, most: int, total: int) -> list[Member]:
        """Devices of the wave that serve the version, of each class equally many where it has them.

        Of a class with too few to be compared, those of waves that have passed join them: else a
        wave of stragglers could never show what its gates ask for.

        Args:
            least: of a class, however many classes there are.
            most: of a class.
            total: of all, but for ``least``.
        """
        some = self._treated(most)
        seen = Counter(one.device_class for one in some)
        room = _room(some, least, most, total)
        count = select(func.count()).where(*self._serving())
        if (self._session.scalar(count) or 0) > MEMBERS:
            # A version may be broken on one class alone, and a class be rare in a large wave.
            full = sorted(name for name, n in seen.items() if n >= room)
            others = select(DeviceRow.id).where(DeviceRow.device_class.not_in(full)).limit(1)
            if self._session.scalar(others) is not None:
                some = [one for one in some if one.device_class in full]
                some += self._treated(most, full)
        few = sorted(name for name, n in seen.items() if n < least)
        return _at_most([*some, *self._of_passed_waves(few, least)], least, most, total)

    def control(self, device_class: str, turn: int, room: int) -> list[Member]:
        """Devices of a class that keep another version, and kept it as of ``turn``."""
        rollout, d, m = self._rollout, DeviceRow, DeviceModelRow
        turned = datetime.fromtimestamp(turn / 1000, UTC)
        there = or_(IS_ONLINE, d.last_seen_at >= turned - timedelta(seconds=LEAST_SECONDS))
        some = (
            select(d.id, IS_ONLINE.label("online"))
            .where(d.device_class == device_class, there, *_USABLE)
            .order_by(*ring(d.id, rollout.id))
            .limit(_CANDIDATES * room)
            .subquery()
        )
        serves = and_(m.device_id == some.c.id, m.model == rollout.model)
        query = (
            select(some.c.id, some.c.online, m.version)
            .join(m, serves)
            .where(
                m.version != rollout.version,
                m.since <= turned,
                ~_begun(some.c.id, rollout.id, self._wave),
                ~_at_work(some.c.id),
            )
            .order_by(*ring(some.c.id, rollout.id))
            .limit(room)
        )
        return [
            Member(device, device_class, bool(online), version, turn, turn)
            for device, online, version in self._session.execute(query)
        ]

    def _of_passed_waves(self, classes: Sequence[str], least: int) -> list[Member]:
        """Of each of these classes so many, among those that were offered the version last."""
        if not classes:
            return []
        w = WaveRow
        passed = select(w.idx).where(
            w.rollout_id == self._rollout.id, w.state == WaveState.PASSED.value
        )
        e = ExecutionRow
        its = self._serving(e.wave.in_(passed))
        members = (
            select(e.device_id, e.offered_at, e.updated_at)
            .where(*its)
            .order_by(e.offered_at.desc(), e.device_id)
            .limit(MEMBERS)
            .subquery()
        )
        found = self._placed(members, [*_USABLE, DeviceRow.device_class.in_(classes)], least)
        return [one._replace(earlier=True) for one in found]

    def _serving(self, wave: ColumnElement[bool] | None = None) -> Sequence[ColumnElement[bool]]:
        e = ExecutionRow
        return (
            e.rollout_id == self._rollout.id,
            e.wave == self._wave if wave is None else wave,
            e.state == ExecState.SUCCEEDED.value,
            or_(e.late.is_(None), e.late.not_in(_FAILURES)),
        )

    def _treated(self, limit: int, but: Collection[str] | None = None) -> list[Member]:
        """Of ``MEMBERS`` of the wave, or of all that are not of the classes ``but``."""
        e = ExecutionRow
        picked = select(e.device_id, e.offered_at, e.updated_at).where(*self._serving())
        where = list(_USABLE)
        if but is None:
            picked = picked.order_by(*ring(e.device_id, self._rollout.id)).limit(MEMBERS)
        else:
            where.append(DeviceRow.device_class.not_in(sorted(but)))
        return self._placed(picked.subquery(), where, limit)

    def _placed(
        self, members: Any, where: Sequence[ColumnElement[bool]], limit: int
    ) -> list[Member]:
        """Of each class so many of these."""
        rollout = self._rollout
        place = func.row_number().over(
            partition_by=DeviceRow.device_class, order_by=ring(DeviceRow.id, rollout.id)
        )
        found = (
            select(
                members,
                DeviceRow.device_class,
                IS_ONLINE.label("online"),
                place.label("place"),
            )
            .join(DeviceRow, DeviceRow.id == members.c.device_id)
            .where(*where)
            .subquery()
        )
        query = select(found).where(found.c.place <= limit)
        return [
            Member(
                row.device_id,
                row.device_class,
                bool(row.online),
                rollout.version,
                milliseconds(row.offered_at or rollout.created_at),
                milliseconds(row.updated_at),
            )
            for row in self._session.execute(query.order_by(found.c.place, found.c.device_id))
        ]


def _room(devices: Sequence[Member], least: int, most: int, total: int) -> int:
    classes = {one.device_class for one in devices}
    return max(least, min(most, total // max(1, len(classes))))


def _at_most(devices: Sequence[Member], least: int, most: int, total: int) -> list[Member]:
    room, taken = _room(devices, least, most, total), Counter[str]()
    kept = []
    for device in devices:
        taken[device.device_class] += 1
        if taken[device.device_class] <= room:
            kept.append(device)
    return kept


def milliseconds(at: datetime) -> int:
    """Since 1970."""
    return round(at.timestamp() * 1000)


def ring(device: Any, rollout_id: str) -> Sequence[Any]:
    """By the random bits of ids, as on a ring that begins at those of the rollout."""
    place = func.substr(device, 15)
    return (place < rollout_id[14:], place)


def _begun(device: Any, rollout_id: str, wave: int) -> ColumnElement[bool]:
    """That a device is in a wave that has begun."""
    e, its = aliased(ExecutionRow), aliased(WaveRow)
    begun = (
        select(its.idx)
        .where(
            its.rollout_id == rollout_id,
            its.idx == e.wave,
            or_(its.idx == wave, its.state != WaveState.PENDING.value),
        )
        .correlate(e)
        .exists()
    )
    where = (e.rollout_id == rollout_id, e.device_id == device, begun)
    return select(e.id).where(*where).exists()


def _at_work(device: Any) -> ColumnElement[bool]:
    e = aliased(ExecutionRow)
    return select(e.id).where(e.device_id == device, e.state.in_(_IN_FLIGHT)).exists()
