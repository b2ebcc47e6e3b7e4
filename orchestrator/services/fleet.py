"""What services of devices share: finding one, showing it, telling of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.execution import Ended
from orchestrator.domain.reconcile import desired_of
from orchestrator.errors import NotFound
from orchestrator.services import inventory, rollouts
from orchestrator.services.ports import Transaction
from orchestrator.services.records import DeviceRecord, ExecutionRecord
from schemas.device import ActiveModel, DeviceView
from schemas.enroll import fingerprint
from schemas.rollout import EXEC_TERMINAL, ExecState


def found(tx: Transaction, device_id: str, *, lock: bool = False) -> DeviceRecord:
    """A device's record.

    Raises:
        NotFound: there is none.
    """
    record = tx.devices.get(device_id, lock=lock)
    if record is None:
        msg = f"there is no device {device_id[:80]}"
        raise NotFound(msg, hint="`argosy device ls` lists them")
    return record


def announce(tx: Transaction, device: DeviceRecord, now: datetime) -> None:
    """Tell watchers where a device stands."""
    announce_all(tx, [device], now)


def announce_all(tx: Transaction, devices: Sequence[DeviceRecord], now: datetime) -> None:
    """Tell watchers where devices stand."""
    if devices:
        tx.events.add_all("device", [(one.id, _data(one)) for one in devices], now)


def _data(device: DeviceRecord) -> Mapping[str, str]:
    data = {"state": device.state.value, "presence": device.presence.value}
    if device.clone_suspected_at is not None:
        data["alert"] = "clone"
    elif device.drifted_at is not None:
        data["alert"] = "drifted"
    return data


def end_executions(tx: Transaction, device_id: str, why: str, now: datetime) -> None:
    """End whatever rollouts still want of a device."""
    open_states = frozenset(ExecState) - EXEC_TERMINAL
    for execution in tx.rollouts.of_device(device_id, open_states):
        rollouts.move_execution(tx, execution, Ended(ExecState.REMOVED, why), now)


def clear_desired(tx: Transaction, device_id: str) -> None:
    """Have the control loop see to what the broker retains for a device."""
    latest = tx.rollouts.latest_of_device(device_id)
    if latest is not None and latest.published:
        tx.rollouts.save_execution(replace(latest, published=False))


def device_view(tx: Transaction, record: DeviceRecord) -> DeviceView:
    """A device as the API shows it."""
    return device_views(tx, [record])[0]


def device_views(tx: Transaction, records: Sequence[DeviceRecord]) -> Sequence[DeviceView]:
    """Devices as the API shows them."""
    ids = [record.id for record in records]
    newest, given = tx.outbox.newest(ids), inventory.given(tx, ids)
    since = tx.devices.serving_since(ids)
    return [
        _view(one, newest.get(one.id), desired_of(given[one.id]), since.get(one.id, {}))
        for one in records
    ]


def _view(
    record: DeviceRecord,
    latest: ExecutionRecord | None,
    desired: tuple[ActiveModel, ...],
    since: Mapping[str, datetime],
) -> DeviceView:
    return DeviceView(
        id=record.id,
        device_class=record.device_class,
        tags=record.tags,
        state=record.state,
        presence=record.presence,
        hardware=record.hardware,
        active=record.active,
        serving_since=dict(since),
        desired=desired,
        drifted_at=record.drifted_at,
        rolled_back=record.rolled_back,
        rollout=latest.rollout_id if latest else None,
        rollout_state=latest.state.value if latest else None,
        certificate_expires_at=record.certificate_expires_at,
        certificate_serial=record.certificate_serial,
        fingerprint=fingerprint(record.spki_sha256),
        token=record.token_id,
        clone_suspected_at=record.clone_suspected_at,
        revoked_at=record.revoked_at,
        revoke_reason=record.revoke_reason,
        enrolled_at=record.enrolled_at,
        last_seen_at=record.last_seen_at,
    )
