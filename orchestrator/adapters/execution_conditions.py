"""What a statement over executions is limited to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, or_, select, true

from orchestrator.adapters.tables import DeviceRow
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
        yield e.device_id.in_(select(DeviceRow.id).where(*_like(among.alike)))
    if among.usable is not None:
        # Those that are barred are few, so they are looked up first.
        barred = e.device_id.in_(select(DeviceRow.id).where(_BARRED))
        yield ~barred if among.usable else barred


def _there(e: Any) -> ColumnElement[bool]:
    return select(DeviceRow.id).where(DeviceRow.id == e.device_id, IS_ONLINE).correlate(e).exists()


def _like(group: Alike) -> Iterator[ColumnElement[bool]]:
    yield DeviceRow.device_class == group.device_class
    texts = ((DeviceRow.hardware, group.hardware_text), (DeviceRow.active, group.active_text))
    for column, its in texts:
        # A column without a value has no text; JSON's null has one.
        as_text = cast(column, Text)
        yield as_text.is_(None) if its is None else as_text == its
