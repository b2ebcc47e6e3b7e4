"""Garbage collection of artifacts: nothing that anything may need, and no half of a deed.

Versions are marked as purged in one transaction with all that speaks for keeping them. Then
the files go, a few at a time: a transaction condemns those that nobody names or holds by
then (``services.holds``), they are deleted outside of any transaction, and another one
takes the marks away. Who registers a version or submits a job holds its files while it
looks whether they are there, and an upload waits for a deletion of the same file. So either
the collection finds a file needed, or the others find it condemned or gone and say so. A
process that is killed in between has deleted too little, and the next collection goes on;
its marks end soon (``holds.CONDEMNED``).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orchestrator.domain import collect
from orchestrator.domain.collect import GRACE, Artifact, Plan, Policy
from orchestrator.errors import Conflict
from orchestrator.services.holds import CONDEMNED
from orchestrator.services.ports import ArtifactShelf, Clock, UnitOfWork
from schemas.model import CollectReport, CollectRequest

_BATCH = 20
"""Files that are condemned at once."""

_WORKING = 30.0
"""Seconds after which no further deletion of a batch begins; a slow one takes 20."""


class CollectionService:
    """Deletes the files of versions that nothing needs, and artifacts that nothing names.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        artifacts: where the files are.
        batch: files condemned at once.
        ticking: seconds that pass, whatever the clock does.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        artifacts: ArtifactShelf,
        *,
        batch: int = _BATCH,
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._artifacts = artifacts
        self._batch = batch
        self._ticking = ticking
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
            purged = [f"{model}@{version}" for model, version in plan.purge]
            tx.audit.add("model.gc", "artifacts", {"purged": purged, "count": len(purged)})
        going = deque(collect.garbage(self._artifacts.stored(), plan.needed, now))
        gone: list[Artifact] = []
        while going:
            portion = [going.popleft() for _ in range(min(self._batch, len(going)))]
            deleted, left = self._delete(portion, now)
            gone += deleted
            going.extendleft(reversed(left))
        self._artifacts.sweep(now - GRACE)
        return _report(plan, gone, dry_run=False)

    def _delete(
        self, going: Sequence[Artifact], now: datetime
    ) -> tuple[list[Artifact], list[Artifact]]:
        """Delete what nobody needs by now either; what is gone, and what time was too short for."""
        began, owner = self._ticking(), secrets.token_hex(16)
        doomed = self._condemn(owner, going, now)
        left, gone = deque(doomed), list[Artifact]()
        # None is begun that may still run when the marks end; one is, however long that took.
        while left and (len(left) == len(doomed) or self._ticking() - began < _WORKING):
            artifact = left.popleft()
            # Where this fails the marks stay until they end: a call that nobody waits for any
            # more may yet be carried out.
            if self._artifacts.delete(artifact.sha256, now - GRACE):
                gone.append(artifact)
        if doomed:
            with self._uow() as tx:
                tx.artifact_marks.release(owner)
        return gone, list(left)

    def _condemn(self, owner: str, going: Sequence[Artifact], now: datetime) -> list[Artifact]:
        """Mark what nobody names or holds as about to be deleted."""
        digests = [artifact.sha256 for artifact in going]
        with self._uow() as tx:
            at = self._clock()
            tx.artifact_marks.prune(at)
            spared = tx.holdings.named(digests, since=now) | tx.artifact_marks.held(digests, at)
            doomed = [artifact for artifact in going if artifact.sha256 not in spared]
            until = at + CONDEMNED
            tx.artifact_marks.condemn(owner, [artifact.sha256 for artifact in doomed], until)
        return doomed


def _report(plan: Plan, gone: Sequence[Artifact], *, dry_run: bool) -> CollectReport:
    return CollectReport(
        dry_run=dry_run,
        purged=tuple(f"{model}@{version}" for model, version in plan.purge),
        artifacts=len(gone),
        bytes=sum(artifact.size for artifact in gone),
    )
