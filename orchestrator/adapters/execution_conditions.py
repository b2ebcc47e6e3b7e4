"""What a statement over executions is limited to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, cast, or_, select, true
from sqlalchemy.orm import aliased

from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, ExecutionRow, RolloutRow
from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.waiting import WAITS
from orchestrator.services.records import Alike, Among
from schemas.device import DeviceState, Presence
from schemas.rollout import ExecState, RolloutState

IS_ONLINE = DeviceRow.presence == Presence.ONLINE.value
_IN_FLIGHT = sorted(state.value for state in IN_FLIGHT)
_WAITS = sorted(state.value for state in WAITS)
_BARRED = DeviceRow.state.in_([s.value for s in DeviceState if s is not DeviceState.ACTIVE])


_PASSED_OVER = sorted(
    state.value
    for state in (
        ExecState.CANCELLED,
        ExecState.SUPERSEDED,
        ExecState.REMOVED,
        ExecState.TIMED_OUT,
    )
)


def passed_over() -> ColumnElement[bool]:
    """Whether an execution ended before its device was offered anything."""
    return and_(ExecutionRow.state.in_(_PASSED_OVER), ExecutionRow.sequence == 0)


def conditions(e: Any, among: Among) -> Iterator[ColumnElement[bool]]:
    """What a statement over ``e``, the table of executions or an alias, is limited to."""
    yield e.rollout_id == among.rollout_id
    if among.wave is not None:
        yield e.wave == among.wave
    if among.states:
        yield e.state.in_(sorted(state.value for state in among.states))
    if among.ids:
        yield e.id.in_(among.ids)
    if among.devices:
        yield e.device_id.in_(among.devices)
    if among.due_by is not None:
        yield e.due_at <= among.due_by
        # Nobody can answer what the broker does not have yet.
        yield or_(e.state != ExecState.OFFERED.value, e.published.is_(True), ~_there(e))
    if among.retryable_below is not None:
        yield e.state == ExecState.FAILED.value
        yield e.retryable == true()
        yield e.attempt < among.retryable_below
    if among.waiting_since is not None:
        yield e.state.in_(_WAITS)
        yield e.offered_at <= among.waiting_since
        yield e.proceed.is_(False)
    if among.retried:
        yield e.attempt > 1
    yield from _by_device(e, among)


def _by_device(e: Any, among: Among) -> Iterator[ColumnElement[bool]]:
    if among.online is not None:
        yield _there(e) if among.online else ~_there(e)
    if among.alike is not None:
        model = model_of(among.rollout_id)
        yield e.device_id.in_(select(DeviceRow.id).where(*_like(among.alike, model)))
    if among.usable is not None:
        # Those that are barred are few, so they are looked up first.
        barred = e.device_id.in_(select(DeviceRow.id).where(_BARRED))
        yield ~barred if among.usable else barred
    if among.held is not None:
        held = and_(one_of_those_there(e), works_elsewhere(e, among.rollout_id))
        yield held if among.held else ~held


def works_elsewhere(e: Any, rollout_id: str) -> ColumnElement[bool]:
    """That the device of ``e`` is at work for a rollout of another model than this one's."""
    other = aliased(ExecutionRow)
    its = select(other.id).where(other.device_id == e.device_id, *engaged(other, rollout_id))
    return its.correlate(e).exists()


def engaged(other: Any, rollout_id: str) -> Iterator[ColumnElement[bool]]:
    """That ``other`` keeps its device from being offered what this rollout ships."""
    rollout = aliased(RolloutRow)
    its = (rollout.id == other.rollout_id, rollout.model != model_of(rollout_id))
    # What a paused rollout has not sent yet keeps nobody: nothing has begun.
    begun = or_(
        other.state != ExecState.OFFERED.value,
        other.published.is_(True),
        rollout.state != RolloutState.PAUSED.value,
    )
    yield other.state.in_(_IN_FLIGHT)
    # What only waits on its device, for a window or a word, gives way to a rollback.
    yield or_(~_waits(other), ~_is_rollback(rollout_id))
    yield select(rollout.id).where(*its, begun).correlate(other).exists()


def waits_elsewhere(other: Any, rollout_id: str) -> Iterator[ColumnElement[bool]]:
    """That ``other`` waits on its device for a rollout of another model than this one's."""
    rollout = aliased(RolloutRow)
    its = (rollout.id == other.rollout_id, rollout.model != model_of(rollout_id))
    yield _waits(other)
    yield select(rollout.id).where(*its).correlate(other).exists()


def _waits(e: Any) -> ColumnElement[bool]:
    """That a device changes nothing for now: it is put off, or staged; and not told to go on."""
    return and_(e.state.in_(_WAITS), e.proceed.is_(False))


def _is_rollback(rollout_id: str) -> ColumnElement[bool]:
    query = select(RolloutRow.takes_back).where(RolloutRow.id == rollout_id)
    return query.scalar_subquery().is_not(None)


def _there(e: Any) -> ColumnElement[bool]:
    return select(DeviceRow.id).where(DeviceRow.id == e.device_id, IS_ONLINE).correlate(e).exists()


def one_of_those_there(e: Any) -> ColumnElement[bool]:
    """That the device of ``e`` is there, where many are asked for: those there are listed once.

    Where most are away, this is ten times as quick as looking each of them up.
    """
    there = aliased(DeviceRow)
    listed = select(there.id).where(there.presence == Presence.ONLINE.value)
    found: ColumnElement[bool] = e.device_id.in_(listed)
    return found


def model_of(rollout_id: str) -> Any:
    """The name of a rollout's model, to be looked up within the statement."""
    return select(RolloutRow.model).where(RolloutRow.id == rollout_id).scalar_subquery()


def _like(group: Alike, model: Any) -> Iterator[ColumnElement[bool]]:
    yield DeviceRow.device_class == group.device_class
    # A column without a value has no text; JSON's null has one.
    hardware = cast(DeviceRow.hardware, Text)
    yield hardware.is_(None) if group.hardware_text is None else hardware == group.hardware_text
    d = DeviceModelRow
    there = [d.device_id == DeviceRow.id, d.model == model]
    if group.active is not None:
        its = group.active
        there += [d.version == its.version, d.variant == its.variant, d.sha256 == its.sha256]
    serves = select(d.device_id).where(*there).correlate(DeviceRow).exists()
    yield ~serves if group.active is None else serves
