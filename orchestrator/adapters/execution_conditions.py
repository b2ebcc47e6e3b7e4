"""What a statement over executions is limited to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, or_, select, true

from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, RolloutRow
from orchestrator.services.records import Alike, Among
from schemas.device import DeviceState, Presence
from schemas.rollout import ExecState

IS_ONLINE = DeviceRow.presence == Presence.ONLINE.value
_BARRED = DeviceRow.state.in_([s.value for s in DeviceState if s is not DeviceState.ACTIVE])


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
    if among.online is not None:
        yield _there(e) if among.online else ~_there(e)
    if among.alike is not None:
        model = model_of(among.rollout_id)
        yield e.device_id.in_(select(DeviceRow.id).where(*_like(among.alike, model)))
    if among.usable is not None:
        # Those that are barred are few, so they are looked up first.
        barred = e.device_id.in_(select(DeviceRow.id).where(_BARRED))
        yield ~barred if among.usable else barred


def _there(e: Any) -> ColumnElement[bool]:
    return select(DeviceRow.id).where(DeviceRow.id == e.device_id, IS_ONLINE).correlate(e).exists()


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
