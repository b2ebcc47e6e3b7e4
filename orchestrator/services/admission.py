"""Who of the fleet may take part: approve, reject, revoke."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.clone import cleared
from orchestrator.errors import Conflict
from orchestrator.services import certificates, fleet
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord
from schemas.device import DeviceState, DeviceView, Presence
from schemas.enroll import fingerprint

REJECTED = "an operator turned it away"


class AdmissionService:
    """What operators decide over devices. Repeats change nothing.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def approve(self, device_id: str) -> DeviceView:
        """Let a device in that waits; it gets its certificate when it asks again.

        Raises:
            NotFound: there is no such device.
            Conflict: it was rejected or revoked.
        """
        with self._uow() as tx:
            device = fleet.found(tx, device_id, lock=True)
            if device.state is DeviceState.REVOKED:
                msg = f"{device.id} was revoked or rejected, so it cannot be approved"
                raise Conflict(msg, hint=f"`argosy token create --device {device.id}`")
            if device.state is DeviceState.PENDING:
                device = replace(device, state=DeviceState.ACTIVE)
                tx.devices.save(device)
                told = {"fingerprint": fingerprint(device.spki_sha256), "token": device.token_id}
                tx.audit.add("device.approve", device.id, told)
                fleet.announce(tx, device, self._clock())
            return fleet.device_view(tx, device)

    def reject(self, device_id: str) -> DeviceView:
        """Turn a device away that waits.

        Raises:
            NotFound: there is no such device.
            Conflict: it has been approved.
        """
        with self._uow() as tx:
            device = fleet.found(tx, device_id, lock=True)
            if device.state is DeviceState.PENDING:
                device = self._shut_out(tx, device, REJECTED)
                told = {"fingerprint": fingerprint(device.spki_sha256), "token": device.token_id}
                tx.audit.add("device.reject", device.id, told)
            elif device.state is not DeviceState.REVOKED or device.certificate_serial:
                msg = f"{device.id} does not wait for approval: it is {device.state}"
                raise Conflict(msg, hint=f"`argosy device revoke {device.id}` shuts it out")
            return fleet.device_view(tx, device)

    def revoke(self, device_id: str, reason: str) -> DeviceView:
        """Shut a device out: its certificates count no more, from this moment on.

        Neither do tokens that were made for it before; one made afterwards lets it back in.

        Raises:
            NotFound: there is no such device.
        """
        with self._uow() as tx:
            device = fleet.found(tx, device_id, lock=True)
            if device.state is not DeviceState.REVOKED:
                now = self._clock()
                serials = certificates.revoke_all(tx, device.id, reason or "revoked", now)
                device = self._shut_out(tx, device, reason)
                why = "the device was revoked" + (f": {reason}" if reason else "")
                fleet.end_executions(tx, device.id, why, now)
                fleet.clear_desired(tx, device.id)
                told = {"reason": reason, "serials": list(serials)}
                tx.audit.add("device.revoke", device.id, told)
                for token in tx.devices.tokens_for(device.id):
                    # Made before: whoever holds one could take the place that was just closed.
                    tx.devices.save_token(replace(token, revoked=True))
                    tx.audit.add("token.revoke", token.id, {"uses": token.uses, "with": device.id})
            return fleet.device_view(tx, device)

    def clear_alert(self, device_id: str) -> DeviceView:
        """Somebody looked into a suspected clone.

        Raises:
            NotFound: there is no such device.
        """
        with self._uow() as tx:
            device = fleet.found(tx, device_id, lock=True)
            if device.clone_suspected_at is not None:
                since = device.clone_suspected_at.isoformat()
                device = replace(device, clone_suspected_at=None, turns=cleared(device.turns))
                tx.devices.save(device)
                tx.audit.add("device.clear_alert", device.id, {"since": since})
                fleet.announce(tx, device, self._clock())
            return fleet.device_view(tx, device)

    def _shut_out(self, tx: Transaction, device: DeviceRecord, reason: str) -> DeviceRecord:
        now = self._clock()
        never = device.presence is Presence.NEVER
        device = replace(
            device,
            state=DeviceState.REVOKED,
            presence=Presence.NEVER if never else Presence.OFFLINE,
            revoked_at=now,
            revoke_reason=reason,
        )
        tx.devices.save(device)
        fleet.announce(tx, device, now)
        return device
