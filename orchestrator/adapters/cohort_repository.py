"""What the devices of a wave and of its control cohort did before and after, in SQL.

A verdict needs some hundred devices of each class, however large the fleet is: they are chosen by
the random part of their ids, beginning at a place of the rollout's own, so that each look at a
wave is at the same devices. Of each only its newest windows in a span are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median_low
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    and_,
    column,
    func,
    or_,
    select,
    values,
)
from sqlalchemy.orm import Session, aliased

from orchestrator.adapters.execution_conditions import IS_ONLINE
from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, ExecutionRow, WaveRow, WindowRow
from orchestrator.domain.execution import FAILURES, IN_FLIGHT
from orchestrator.domain.judging.figures import Cohorts, DeviceFigures
from orchestrator.domain.judging.silence import LEAST_SECONDS, Signs, is_silent
from orchestrator.domain.judging.spans import SpanSum
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import Kept
from orchestrator.services.records import RolloutRecord
from schemas.device import DeviceState
from schemas.rollout import ExecState, WaveState

DEVICES = 800
"""In all classes together, of both cohorts."""

WINDOWS = 24_000
"""That are read for one look; each device and span has its share."""

_FEWEST, _MOST = 10, 240
"""Windows of a device in a span, at least and at most."""

_MEMBERS = 20_000
"""Devices of a wave among whom those of each class are chosen."""

_CANDIDATES = 10
"""Times as many devices of a class as are wanted are looked through for a control cohort."""

_USABLE = (DeviceRow.state == DeviceState.ACTIVE.value, DeviceRow.drifted_at.is_(None))
_FAILURES = sorted(state.value for state in FAILURES)
_IN_FLIGHT = sorted(state.value for state in IN_FLIGHT)
_KEPT = msgspec.msgpack.Decoder(Kept)


class _Device(NamedTuple):
    """One of a cohort. version: that it served, or serves. Times in milliseconds since 1970.

    offered: from when on it may have switched; since: from when on it serves, by what it said.
    """

    id: str
    device_class: str
    online: bool
    version: int
    offered: int
    since: int


class _Stretch(NamedTuple):
    """Of one device the windows that began from ``since`` on and before ``until``."""

    device: str
    version: int
    since: int
    until: int


class SqlCohorts:
    """Reads what verdicts are made of.

    Args:
        session: a reading transaction's.
        rollout: whose wave it is.
        now: the time.
        limit: devices of a class and cohort, at most.
    """

    def __init__(self, session: Session, rollout: RolloutRecord, now: datetime, limit: int) -> None:
        self._session, self._rollout, self._now, self._limit = session, rollout, now, limit
        self._now_ms = _ms(now)
        self._each = _FEWEST

    def of_wave(self, wave: int) -> Cohorts:
        """Both cohorts of a wave."""
        treated = self._treated(wave)
        names = sorted({device.device_class for device in treated})
        room = max(1, min(self._limit, DEVICES // (2 * max(1, len(names)))))
        treated = _at_most(treated, room)
        self._each = self._share(2 * len(treated))
        switched = self._switched(treated)
        control: list[_Device] = []
        for name in names:
            turned = [switched.get(d.id, d.since) for d in treated if d.device_class == name]
            control += self._control(wave, name, median_low(turned), room)
        return Cohorts(
            tuple(self._figures(treated, switched, equal=False)),
            tuple(
                one
                for one in self._figures(control, {d.id: d.since for d in control}, equal=True)
                if one.pre is not None or one.post is not None  # the others were not there at all
            ),
        )

    def _share(self, devices: int) -> int:
        """Windows of a device in a span."""
        return max(_FEWEST, min(_MOST, WINDOWS // (2 * max(1, devices))))

    def _treated(self, wave: int) -> list[_Device]:
        e, rollout = ExecutionRow, self._rollout
        members = (
            select(e.device_id, e.offered_at, e.updated_at)
            .where(
                e.rollout_id == rollout.id,
                e.wave == wave,
                e.state == ExecState.SUCCEEDED.value,
                or_(e.late.is_(None), e.late.not_in(_FAILURES)),
            )
            .order_by(*_order(e.device_id, rollout.id))
            .limit(_MEMBERS)
            .subquery()
        )
        place = func.row_number().over(
            partition_by=DeviceRow.device_class, order_by=_order(DeviceRow.id, rollout.id)
        )
        found = (
            select(
                members,
                DeviceRow.device_class,
                IS_ONLINE.label("online"),
                place.label("place"),
            )
            .join(DeviceRow, DeviceRow.id == members.c.device_id)
            .where(*_USABLE)
            .subquery()
        )
        query = select(found).where(found.c.place <= self._limit)
        return [
            _Device(
                row.device_id,
                row.device_class,
                bool(row.online),
                rollout.version,
                _ms(row.offered_at or rollout.created_at),
                _ms(row.updated_at),
            )
            for row in self._session.execute(query.order_by(found.c.place, found.c.device_id))
        ]

    def _switched(self, devices: Sequence[_Device]) -> Mapping[str, int]:
        """When each began to serve the version: the start of its first window with it."""
        if not devices:
            return {}
        bounds = _bounds(
            _Stretch(d.id, d.version, d.offered - AHEAD_MS, self._now_ms + AHEAD_MS)
            for d in devices
        )
        w = aliased(WindowRow)
        first = (
            select(w.start_ms)
            .where(*self._of(w, bounds, "active", equal=True))
            .order_by(w.start_ms)
            .limit(1)
            .correlate(bounds)
            .scalar_subquery()
        )
        found = self._session.execute(select(bounds.c.device, first))
        return {device: start for device, start in found if start is not None}

    def _control(self, wave: int, device_class: str, turn: int, room: int) -> list[_Device]:
        """Devices of a class that keep another version, as of the median switch of the wave's."""
        rollout, d, m = self._rollout, DeviceRow, DeviceModelRow
        turned = datetime.fromtimestamp(turn / 1000, UTC)
        there = or_(IS_ONLINE, d.last_seen_at >= turned - timedelta(seconds=LEAST_SECONDS))
        some = (
            select(d.id, IS_ONLINE.label("online"))
            .where(d.device_class == device_class, there, *_USABLE)
            .order_by(*_order(d.id, rollout.id))
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
                ~_begun(some.c.id, rollout.id, wave),
                ~_at_work(some.c.id),
            )
            .order_by(*_order(some.c.id, rollout.id))
            .limit(room)
        )
        return [
            _Device(device, device_class, bool(online), version, turn, turn)
            for device, online, version in self._session.execute(query)
        ]

    def _figures(
        self, devices: Sequence[_Device], turned: Mapping[str, int], *, equal: bool
    ) -> Iterable[DeviceFigures]:
        """Before and after; ``equal``: with the same version before."""
        past = round(self._rollout.spec.gates.baseline_seconds * 1000)
        before = self._sums(
            (
                _Stretch(d.id, d.version, at - past, at)
                for d in devices
                for at in (turned.get(d.id, d.since),)
            ),
            equal=equal,
        )
        end = self._now_ms + AHEAD_MS
        after = self._sums(
            (_Stretch(d.id, d.version, turned.get(d.id, d.since), end) for d in devices),
            equal=True,
        )
        if not equal and self._rollout.spec.shadow is not None:
            self._add_shadows(devices, after)
        for device in devices:
            pre, post = before.get(device.id, SpanSum()), after.get(device.id, SpanSum())
            silent = self._is_silent(device, pre, post)
            yield DeviceFigures(device.id, device.device_class, pre.span(), post.span(), silent)

    def _sums(self, stretches: Iterable[_Stretch], *, equal: bool) -> dict[str, SpanSum]:
        sums: dict[str, SpanSum] = {}
        for device, start_ms, body in self._windows(list(stretches), "active", equal=equal):
            sums.setdefault(device, SpanSum()).add(_KEPT.decode(body).window, start_ms)
        return sums

    def _add_shadows(self, devices: Sequence[_Device], after: dict[str, SpanSum]) -> None:
        end = self._now_ms + AHEAD_MS
        stretches = [_Stretch(d.id, d.version, d.offered - AHEAD_MS, end) for d in devices]
        for device, _, body in self._windows(stretches, "shadow", equal=True):
            after.setdefault(device, SpanSum()).add_shadow(_KEPT.decode(body).window)

    def _windows(self, stretches: Sequence[_Stretch], role: str, *, equal: bool) -> Iterable[Any]:
        """The newest windows of each stretch: of its version, or (not equal) of any other one."""
        if not stretches:
            return ()
        bounds, w, other = _bounds(stretches), aliased(WindowRow), aliased(WindowRow)
        oldest = (
            select(other.start_ms)
            .where(*self._of(other, bounds, role, equal=equal))
            .order_by(other.start_ms.desc())
            .offset(self._each - 1)
            .limit(1)
            .correlate(bounds)
            .scalar_subquery()
        )
        where = self._of(w, bounds, role, equal=equal)
        query = (
            select(w.device_id, w.start_ms, w.body)
            .select_from(bounds)
            .join(w, and_(*where, w.start_ms >= func.coalesce(oldest, bounds.c.since)))
        )
        return self._session.execute(query).yield_per(1000)

    def _of(self, w: Any, bounds: Any, role: str, *, equal: bool) -> Sequence[ColumnElement[bool]]:
        its = bounds.c.version
        return (
            w.device_id == bounds.c.device,
            w.start_ms >= bounds.c.since,
            w.start_ms < bounds.c.until,
            w.model == self._rollout.model,
            w.role == role,
            w.version == its if equal else w.version != its,
        )

    def _is_silent(self, device: _Device, pre: SpanSum, post: SpanSum) -> bool:
        before = pre.span()
        signs = Signs(
            since=device.since / 1000,
            last=post.end_ms / 1000 if post.windows else None,
            online=device.online,
            worked=before is not None and before.n > 0,
            cadence=before.seconds / pre.windows if before is not None and pre.windows else 60.0,
        )
        soak = self._rollout.spec.gates.soak_seconds
        return is_silent(signs, soak, self._now.timestamp())


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _at_most(devices: Sequence[_Device], room: int) -> list[_Device]:
    seen: dict[str, int] = {}
    kept = []
    for device in devices:
        seen[device.device_class] = seen.get(device.device_class, 0) + 1
        if seen[device.device_class] <= room:
            kept.append(device)
    return kept


def _bounds(stretches: Iterable[_Stretch]) -> Any:
    columns = (
        column("device", String),
        column("version", BigInteger),
        column("since", BigInteger),
        column("until", BigInteger),
    )
    return values(*columns, name="stretches").data([tuple(s) for s in stretches]).cte("bounds")


def _order(device: Any, rollout_id: str) -> Sequence[Any]:
    """By the random bits of ids, as on a ring that begins at those of the rollout."""
    place = func.substr(device, 15)
    return (place < rollout_id[14:], place, device)


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
