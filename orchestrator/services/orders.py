"""What a job needs from here, and gives back: checked when it is submitted and when it ends."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.job import ACTIVE
from orchestrator.errors import Conflict, Forbidden, LeaseLost, NotFound
from orchestrator.services import device_classes, sources
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.records import JobRecord
from schemas.job import JobOrder, JobProgress
from schemas.jobfile import JobSpec

MAX_CLASSES = 32
"""With a budget in one job, as ``Optimize.classes`` bounds them."""


class OrderService:
    """What a driver may read with its job's key.

    Args:
        uow: opens transactions.
        lease_seconds: how long a job may be silent.
    """

    def __init__(self, uow: UnitOfWork, lease_seconds: float) -> None:
        self._uow = uow
        self._lease = lease_seconds

    def order(self, job_id: str) -> JobOrder:
        """What the job's driver is to do.

        Raises:
            NotFound, LeaseLost: there is no such job, or it does not run.
            NotFound, Revoked, Conflict, Invalid: of the version that it infers with or goes
                on from.
        """
        with self._uow.read() as tx:
            job = _active(tx, job_id)
            manifest = sources.manifest_of(tx, job.spec)
            spec = _with_budgets(tx, job.spec)
        return JobOrder(
            id=job.id,
            attempt=job.attempt,
            spec=spec,
            lease_seconds=self._lease,
            manifest=manifest,
        )

    def check_readable(self, job_id: str, sha256: str) -> None:
        """Let a job read what it begins with, and nothing else.

        That is its code, the file that it imports, the files of the version it infers with,
        or the weights of the version it goes on from.

        Raises:
            Forbidden: it is another artifact, whether it exists or not.
            NotFound, LeaseLost, Revoked, Conflict: as for ``order``.
        """
        with self._uow.read() as tx:
            if sources.readable(tx, _active(tx, job_id).spec, sha256):
                return
        msg = f"artifact {sha256} is not of {job_id}: it may read its own code and model alone"
        raise Forbidden(msg)


def check(tx: Transaction, spec: JobSpec) -> None:
    """See that the version and the job that a job goes on from are here.

    Raises:
        NotFound: there is no such model version, or no job that it was cloned from.
        Conflict: the version's files were collected.
        Revoked: the model version was withdrawn.
        Invalid: the model version has no such variant, or nothing to go on from.
    """
    sources.manifest_of(tx, spec)
    if spec.cloned_from is not None and tx.jobs.get(spec.cloned_from) is None:
        msg = f"cloned_from: there is no job {spec.cloned_from}"
        raise NotFound(msg, hint="`argosy job ls` lists them")


def submitted(tx: Transaction, spec: JobSpec, submission: str | None) -> JobRecord | None:
    """The job that was submitted with a key before.

    Raises:
        Conflict: it is another one.
    """
    record = None if submission is None else tx.jobs.by_submission(submission)
    if record is not None and record.spec != spec:
        msg = f"another job was submitted with this key: {record.id}"
        raise Conflict(msg, hint="give each job an Idempotency-Key of its own")
    return record


def with_result(tx: Transaction, record: JobRecord, report: JobProgress) -> JobRecord:
    """The job with the version that its last report names.

    Raises:
        Conflict: it registered none, or another.
    """
    if record.spec.batch is not None:
        return record
    model, version = report.model, report.version
    if model is None or version is None:
        msg = "a job that succeeded names the model and version it registered"
        raise Conflict(msg)
    if model != record.spec.model_name or tx.models.get(model, version) is None:
        msg = f"{record.id} has not registered {model}@{version}"
        raise Conflict(msg)
    return replace(record, model=model, version=version)


def _with_budgets(tx: Transaction, spec: JobSpec) -> JobSpec:
    """The job with the platform's budgets, of the classes that it does not name itself."""
    if spec.batch is not None:
        return spec
    own = spec.optimize.classes
    added = device_classes.budgets(tx, own, MAX_CLASSES - len(own))
    if not added:
        return spec
    optimize = spec.optimize.model_copy(update={"classes": {**own, **added}})
    return spec.model_copy(update={"optimize": optimize})


def _active(tx: Transaction, job_id: str) -> JobRecord:
    record = tx.jobs.get(job_id)
    if record is None:
        msg = f"there is no job {job_id}"
        raise NotFound(msg)
    if record.state not in ACTIVE:
        msg = f"{job_id} does not run: it is {record.state}"
        raise LeaseLost(msg)
    return record
