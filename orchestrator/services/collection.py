"""Garbage collection of artifacts: nothing that anything may need, and no half of a deed.

Versions are marked as purged in one transaction with all that speaks for keeping them. Then
the files go, a few at a time, each time within a writing transaction that looks again
whether something names them by now. Writing transactions run one after the other, and who
registers a version, or submits a job, looks within its own whether the files are there: so
either it finds them gone and says so, or the collection finds them needed. A process that
is killed in between has deleted too little, and the next collection goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.domain import collect
from orchestrator.domain.collect import GRACE, Artifact, Plan, Policy
from orchestrator.errors import Conflict, Invalid
from orchestrator.services.ports import Artifacts, ArtifactShelf, Clock, Transaction, UnitOfWork
from schemas.errors import FieldError
from schemas.model import CollectReport, CollectRequest, Manifest

_BATCH = 20
"""Files deleted per transaction, so that no other writer waits for long."""


class CollectionService:
    """Deletes the files of versions that nothing needs, and artifacts that nothing names.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        artifacts: where the files are.
        batch: files deleted per transaction.
    """

    def __init__(
        self, uow: UnitOfWork, clock: Clock, artifacts: ArtifactShelf, *, batch: int = _BATCH
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._artifacts = artifacts
        self._batch = batch
        self._running = threading.Lock()

    def collect(self, request: CollectRequest) -> CollectReport:
        """Collect, or say what would be.

        The report counts what was deleted: fewer than a dry run said where something came
        to be needed meanwhile.

        Raises:
            Conflict: another collection runs.
            Unavailable: the store does not answer; what was deleted by then stays so, and
                the next collection goes on.
        """
        now = self._clock()
        policy = Policy(request.keep_last, timedelta(days=request.older_than_days))
        if request.dry_run:
            return self._foresee(policy, now)
        if not self._running.acquire(blocking=False):
            msg = "a collection runs already"
            raise Conflict(msg, hint="wait until it has ended")
        try:
            return self._collect(policy, now)
        finally:
            self._running.release()

    def why_gone(self, sha256: str) -> str | None:
        """Why an artifact is not there any more; None when nobody knows of it."""
        with self._uow.read() as tx:
            ref = tx.holdings.lost(sha256)
        if ref is None:
            return None
        return f"artifact {sha256} was of {ref[0]}@{ref[1]}, whose files were collected"

    def _foresee(self, policy: Policy, now: datetime) -> CollectReport:
        with self._uow.read() as tx:
            plan = collect.plan(tx.holdings.all(), policy, now)
        going = collect.garbage(self._artifacts.stored(), plan.needed, now)
        return _report(plan, going, dry_run=True)

    def _collect(self, policy: Policy, now: datetime) -> CollectReport:
        with self._uow() as tx:
            plan = collect.plan(tx.holdings.all(), policy, now)
            for model, version in plan.purge:
                tx.models.set_purged(model, version)
                data = {"model": model, "version": version, "change": "purged"}
                tx.events.add("model", model, data, now)
        going = collect.garbage(self._artifacts.stored(), plan.needed, now)
        gone: list[Artifact] = []
        for start in range(0, len(going), self._batch):
            with self._uow() as tx:
                gone += self._delete(tx, going[start : start + self._batch], now)
        self._artifacts.sweep(now - GRACE)
        return _report(plan, gone, dry_run=False)

    def _delete(self, tx: Transaction, going: Sequence[Artifact], now: datetime) -> list[Artifact]:
        """Delete what is not needed by now either; answers what is gone."""
        needed = tx.holdings.named([a.sha256 for a in going], since=now)
        return [
            artifact
            for artifact in going
            if artifact.sha256 not in needed
            and self._artifacts.delete(artifact.sha256, now - GRACE)
        ]


def check_there(artifacts: Artifacts, manifest: Manifest) -> None:
    """See, within the transaction that registers it, that a version's files are there still.

    Raises:
        Invalid: one was collected since it was checked.
    """
    for file in dict.fromkeys(manifest.files()):
        if not artifacts.exists(file.sha256):
            text = f"artifact {file.sha256} was collected; upload it again"
            field = FieldError(field=f"file {file.path}", message=text)
            msg = f"the manifest cannot be registered: {field.field}: {text}"
            raise Invalid(msg, fields=[field])


def _report(plan: Plan, gone: Sequence[Artifact], *, dry_run: bool) -> CollectReport:
    return CollectReport(
        dry_run=dry_run,
        purged=tuple(f"{model}@{version}" for model, version in plan.purge),
        artifacts=len(gone),
        bytes=sum(artifact.size for artifact in gone),
    )
