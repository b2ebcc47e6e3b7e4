"""Devices that serve a version that is taken back, in SQL.

Every question begins with the devices that serve the version, which an index finds: in a healthy
fleet they are few, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, true
from sqlalchemy.orm import Session, aliased

from orchestrator.adapters.execution_conditions import IS_ONLINE
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import (
    DeviceModelRow,
    DeviceRow,
    ExecutionRow,
    ModelVersionRow,
    RolloutRow,
)
from orchestrator.domain.taking_back import Standing
from orchestrator.services.records import RolloutRecord, TakenBack
from schemas.device import DeviceState
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState

_OPEN = sorted(state.value for state in frozenset(ExecState) - EXEC_TERMINAL)
_THERE_ALREADY = ExecState.ALREADY_INSTALLED.value
_AGAIN = (RolloutState.RUNNING.value, RolloutState.PAUSED.value, RolloutState.SUCCEEDED.value)

# Made once: an alias makes all columns of its table anew, which was a tenth of a round.
_EXECUTION, _BACK, _LATER = (aliased(ExecutionRow) for _ in range(3))
_ANEW, _SHIPS, _PARENT, _SINCE = (aliased(RolloutRow) for _ in range(4))
_VERSION, _REVOKED = (aliased(ModelVersionRow) for _ in range(2))

Brought = Any
"""An alias of executions: the one by which a device got the version."""


class SqlTakingBack:
    """``services.ports.TakingBack`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rollouts = Records(session, RolloutRow, RolloutRecord)

    def turned(self, since: datetime) -> Sequence[RolloutRecord]:
        anew = _ANEW
        shipped_anew = (
            select(anew.id)
            .where(
                anew.model == RolloutRow.model,
                anew.version == RolloutRow.version,
                anew.state.in_(_AGAIN),
                anew.started_at > RolloutRow.turned_at,
                _is_meant(anew),
            )
            .correlate(RolloutRow)
            .exists()
        )
        query = select(RolloutRow).where(
            or_(
                RolloutRow.state == RolloutState.ROLLING_BACK.value,
                and_(
                    RolloutRow.state == RolloutState.ROLLED_BACK.value,
                    RolloutRow.ended_at > since,
                    ~shipped_anew,
                ),
            )
        )
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def revoked(self) -> Sequence[TakenBack]:
        row = ModelVersionRow
        query = select(row.model, row.version, row.take_back_to).where(row.take_back == true())
        return [
            TakenBack(model=model, version=version, to=to)
            for model, version, to in self._session.execute(query.order_by(row.model, row.version))
        ]

    def rollbacks(self, taken: TakenBack) -> Sequence[RolloutRecord]:
        query = select(RolloutRow).where(*_rollback(RolloutRow, taken))
        return self._rollouts.all(query.order_by(RolloutRow.id))

    def members(self, taken: TakenBack, limit: int) -> Mapping[str, int]:
        e = _EXECUTION
        device = DeviceModelRow.device_id
        query = _serving(taken, e, select(device, _goal(taken, e)))
        query = query.where(_placeable(taken, e), ~_dealt_with(taken, e))
        return dict(self._session.execute(query.order_by(device).limit(limit)).all())

    def busy(self, taken: TakenBack) -> int:
        query = (
            select(func.count())
            .select_from(ExecutionRow)
            .join(RolloutRow, RolloutRow.id == ExecutionRow.rollout_id)
            .join(DeviceRow, DeviceRow.id == ExecutionRow.device_id)
            .where(*_rollback(RolloutRow, taken), ExecutionRow.state.in_(_OPEN), IS_ONLINE)
        )
        return self._session.scalar(query) or 0

    def left(self, taken: TakenBack) -> Mapping[Standing, int]:
        e, back = _EXECUTION, _BACK
        placeable = _placeable(taken, e)
        counted: Any = select(back.state, IS_ONLINE, placeable, func.count())
        query = _serving(taken, e, counted)
        its = select(RolloutRow.id).where(*_rollback(RolloutRow, taken))
        query = query.outerjoin(
            back,
            and_(
                back.device_id == DeviceModelRow.device_id,
                back.rollout_id.in_(its),
                back.state != _THERE_ALREADY,
            ),
        ).group_by(back.state, IS_ONLINE, placeable)
        return {
            Standing(state and ExecState(state), bool(online), bool(can)): n
            for state, online, can, n in self._session.execute(query)
        }


def _rollback(r: Any, taken: TakenBack) -> Iterator[ColumnElement[bool]]:
    """That a rollout leads away from the version, for this reason."""
    if taken.rollout_id is not None:
        yield r.rollback_of == taken.rollout_id
        return
    yield r.model == taken.model
    yield r.takes_back == taken.version
    yield r.rollback_of.is_(None)


def _serving(taken: TakenBack, e: Brought, query: Select[Any]) -> Select[Any]:
    """Devices that take part, serve the version, and got it by what is taken back."""
    query = query.select_from(DeviceModelRow).join(
        DeviceRow, DeviceRow.id == DeviceModelRow.device_id
    )
    if taken.rollout_id is None:
        # Where it came from decides what a device goes back to, and not whether it goes.
        query = query.outerjoin(e, and_(*_brought(taken, e), ~_brought_later(taken, e)))
    else:
        its = (*_brought(taken, e), e.rollout_id == taken.rollout_id)
        query = query.join(e, and_(*its)).where(~_brought_later(taken, e))
    return query.where(
        DeviceModelRow.model == taken.model,
        DeviceModelRow.version == taken.version,
        DeviceRow.state == DeviceState.ACTIVE.value,
    )


def _brought(taken: TakenBack, e: Brought) -> Iterator[ColumnElement[bool]]:
    yield e.device_id == DeviceModelRow.device_id
    yield e.sequence > 0
    yield _ships(taken, e)


def _ships(taken: TakenBack, e: Brought) -> ColumnElement[bool]:
    r = _SHIPS
    its = (r.model == taken.model, r.version == taken.version, _is_meant(r))
    return select(r.id).where(r.id == e.rollout_id, *its).correlate(e).exists()


def _is_meant(r: Any) -> ColumnElement[bool]:
    """That somebody wants a rollout's version there.

    A rollback to whatever devices served before says nothing of what that is: it may be taken back
    as well, and then they are led on.
    """
    parent, v = _PARENT, _REVOKED
    named = select(parent.id).where(parent.id == r.rollback_of, parent.back_to == r.version)
    revoked = select(v.version).where(
        r.rollback_of.is_(None),
        v.model == r.model,
        v.version == r.takes_back,
        v.take_back_to == r.version,
    )
    return or_(r.takes_back.is_(None), named.correlate(r).exists(), revoked.correlate(r).exists())


def _brought_later(taken: TakenBack, e: Brought) -> ColumnElement[bool]:
    """That the device was given the version once more after ``e``."""
    later = _LATER
    its = (later.device_id == e.device_id, later.sequence > e.sequence)
    return select(later.id).where(*its, _ships(taken, later)).correlate(e).exists()


def _dealt_with(taken: TakenBack, e: Brought) -> ColumnElement[bool]:
    """That a rollback made since has the device, whatever came of it.

    One that found what it leads to there already was early: the device switched after it.
    """
    back, r = _BACK, _SINCE
    # By the clock only where nothing else tells: it may have been set back.
    since = (
        e.offered_at.is_(None),
        back.sequence > e.sequence,
        back.state.in_(_OPEN),
        r.created_at >= e.offered_at,
    )
    return (
        select(back.id)
        .join(r, r.id == back.rollout_id)
        .where(
            back.device_id == DeviceModelRow.device_id,
            back.state != _THERE_ALREADY,
            r.model == taken.model,
            r.takes_back == taken.version,
            or_(*since),
        )
        .correlate(DeviceModelRow, e)
        .exists()
    )


def _goal(taken: TakenBack, e: Brought) -> Any:
    return e.before_version if taken.to is None else literal(taken.to)


def _placeable(taken: TakenBack, e: Brought) -> ColumnElement[bool]:
    """That there is a version to lead the device to (``domain.taking_back.goal``)."""
    wanted = e.before_version if taken.to is None else taken.to
    v = _VERSION
    its = (
        v.model == taken.model,
        v.version == wanted,
        v.version < taken.version,
        v.revoked.is_(False),
        v.purged.is_(False),
    )
    return select(v.version).where(*its).correlate(e).exists()
