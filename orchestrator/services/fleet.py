"""What services of devices share: finding one, showing it, telling of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.execution import Ended
from orchestrator.errors import NotFound
from orchestrator.services import rollouts
from orchestrator.services.ports import Transaction
from orchestrator.services.records import DeviceRecord
from schemas.device import DeviceView
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
    data = {"state": device.state.value, "presence": device.presence.value}
    if device.clone_suspected_at is not None:
        data["alert"] = "clone"
    tx.events.add("device", device.id, data, now)


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
    latest = tx.rollouts.latest_of_device(record.id)
    return DeviceView(
        id=record.id,
        device_class=record.device_class,
        tags=record.tags,
        state=record.state,
        presence=record.presence,
        hardware=record.hardware,
        active=record.active,
        rollout=latest.rollout_id if latest else None,
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
