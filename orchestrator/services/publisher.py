"""Brings the retained desired messages to what the database says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.services import rollouts
from orchestrator.services.ports import Downlink, Signer, Transaction, UnitOfWork
from orchestrator.services.records import ExecutionRecord
from orchestrator.services.versions import found as found_version
from schemas.rollout import SERVER_TERMINAL, Assignment, Command

_DESIRED_DAYS = 30
_PUBLISH_LIMIT = 200


class DesiredPublisher:
    """Signs assignments and sends them, clears them, sends cancels.

    Level-triggered: a record stays unpublished until the broker has acknowledged exactly
    what it asks for, and only then is that written down.

    Args:
        uow: opens transactions; none is open while something is sent.
        signer: signs assignments.
        downlink: sends to devices.

    An offer waits until its version is in the trust metadata: a device that cannot find it
    there would refuse it. What was offered is signed and sent anew after the director's key
    changed, and once when the server starts, which may have missed that.
    """

    def __init__(self, uow: UnitOfWork, signer: Signer, downlink: Downlink) -> None:
        self._uow = uow
        self._signer = signer
        self._downlink = downlink
        self._director: tuple[str, ...] = ()

    def tick(self) -> int:
        """Publish what differs from the database; how many records agree now."""
        self._follow_director()
        with self._uow.read() as tx:
            waiting = tx.rollouts.unpublished(_PUBLISH_LIMIT)
        return sum(self._publish_one(record) for record in waiting)

    def _follow_director(self) -> None:
        keys = self._signer.director_keys()
        if keys == self._director:
            return
        with self._uow() as tx:
            tx.rollouts.unpublish(IN_FLIGHT)
        self._director = keys

    def _publish_one(self, record: ExecutionRecord) -> bool:
        with self._uow.read() as tx:
            if record.state in IN_FLIGHT and not self._is_published(tx, record):
                return False
            latest = tx.rollouts.latest_of_device(record.device_id)
            is_latest = latest is not None and latest.id == record.id
            document = self._document(tx, record) if record.state in IN_FLIGHT else b""
        sent = True
        if is_latest:
            sent = self._downlink.desired(record.device_id, document)
        if record.state in SERVER_TERMINAL:
            command = Command(kind="cancel", execution=record.id, attempt=record.attempt)
            sent = self._downlink.command(record.device_id, command) and sent
        if not sent:
            return False
        with self._uow() as tx:
            current = tx.rollouts.execution(record.id, lock=True)
            if current is not None and _wishes(current) == _wishes(record):
                tx.rollouts.save_execution(replace(current, published=True))
        self._downlink.forget(record.device_id, record.id)
        return True

    def _is_published(self, tx: Transaction, record: ExecutionRecord) -> bool:
        rollout = rollouts.found(tx, record.rollout_id)
        return self._signer.published(rollout.model, rollout.version)

    def _document(self, tx: Transaction, record: ExecutionRecord) -> bytes:
        rollout = rollouts.found(tx, record.rollout_id)
        device = tx.devices.many([record.device_id])[record.device_id]
        version = found_version(tx, rollout.model, rollout.version)
        assignment = Assignment(
            device=device.id,
            device_class=device.device_class,
            execution=record.id,
            attempt=record.attempt,
            rollout=rollout.id,
            model=rollout.model,
            version=rollout.version,
            variant=record.variant or "",
            manifest_sha256=version.manifest_sha256,
            probation=rollout.spec.probation,
        )
        return self._signer.sign_assignment(
            assignment,
            manifest_size=len(version.manifest.encode()),
            sequence=record.sequence,
            expires=(record.offered_at or rollout.created_at) + timedelta(days=_DESIRED_DAYS),
        )


def _wishes(record: ExecutionRecord) -> tuple[object, ...]:
    """What of a record decides which messages the device shall have."""
    return (
        record.sequence,
        record.attempt,
        record.state in IN_FLIGHT,
        record.state in SERVER_TERMINAL,
    )
