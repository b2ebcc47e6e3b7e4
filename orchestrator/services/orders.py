"""What a job needs from here, and gives back: checked when it is submitted and when it ends."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.job import ACTIVE
from orchestrator.errors import Conflict, Forbidden, Invalid, LeaseLost, NotFound, Revoked
from orchestrator.services.ports import Artifacts, Transaction, UnitOfWork
from orchestrator.services.records import JobRecord
from orchestrator.services.versions import found
from schemas.errors import FieldError
from schemas.job import JobOrder, JobProgress
from schemas.jobfile import Batch, Code, JobSpec
from schemas.model import Manifest


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
            NotFound, Revoked, Invalid: of the model version that it infers with.
        """
        with self._uow.read() as tx:
            job = _active(tx, job_id)
            batch = job.spec.batch
            manifest = None if batch is None else _manifest(tx, batch)
        return JobOrder(
            id=job.id,
            attempt=job.attempt,
            spec=job.spec,
            lease_seconds=self._lease,
            manifest=manifest,
        )

    def check_readable(self, job_id: str, sha256: str) -> None:
        """Let a job read its own code and the files of the version it infers with.

        Raises:
            Forbidden: it is another artifact, whether it exists or not.
            NotFound, LeaseLost, Revoked: as for ``order``.
        """
        with self._uow.read() as tx:
            spec = _active(tx, job_id).spec
            code = spec.code is not None and spec.code.sha256 == sha256
            if code or (spec.batch is not None and _serves(tx, spec.batch, sha256)):
                return
        msg = f"artifact {sha256} is not of {job_id}: it may read its own code and model alone"
        raise Forbidden(msg)


def check(tx: Transaction, artifacts: Artifacts, spec: JobSpec) -> None:
    """See that all that a job needs from here is here.

    Raises:
        NotFound: its code has not been uploaded, or there is no such model version, or no
            job that it was cloned from.
        Conflict: the code that was uploaded has another size.
        Revoked: the model version was withdrawn.
        Invalid: the model version has no such variant.
    """
    if spec.code is not None:
        _check_code(artifacts, spec.code)
    if spec.batch is not None:
        _manifest(tx, spec.batch)
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


def _check_code(artifacts: Artifacts, code: Code) -> None:
    if not artifacts.exists(code.sha256):
        msg = f"code: artifact {code.sha256} has not been uploaded"
        hint = f"`argosy job submit` uploads it; or PUT /v1/artifacts/{code.sha256} first"
        raise NotFound(msg, hint=hint)
    size = artifacts.size(code.sha256)
    if size != code.size:
        msg = f"code: artifact {code.sha256} has {size} bytes, not {code.size}"
        raise Conflict(msg, hint="pack the folder again: `argosy job submit` does")


def _manifest(tx: Transaction, batch: Batch) -> Manifest:
    name, _, number = batch.model.partition("@")
    record = found(tx, name, int(number))
    if record.revoked:
        msg = f"{batch.model} has been revoked"
        raise Revoked(msg, hint=f"`argosy model get {name}` shows its versions")
    manifest = Manifest.model_validate_json(record.manifest)
    if batch.variant is not None and manifest.variant(batch.variant) is None:
        there = ", ".join(variant.id for variant in manifest.variants)
        text = f"{batch.model} has no variant {batch.variant!r}; it has {there}"
        field = FieldError(field="batch.variant", message=text)
        msg = f"batch.variant: {text}"
        raise Invalid(msg, fields=[field])
    return manifest


def _serves(tx: Transaction, batch: Batch, sha256: str) -> bool:
    return any(file.sha256 == sha256 for file in _manifest(tx, batch).files())


def _active(tx: Transaction, job_id: str) -> JobRecord:
    record = tx.jobs.get(job_id)
    if record is None:
        msg = f"there is no job {job_id}"
        raise NotFound(msg)
    if record.state not in ACTIVE:
        msg = f"{job_id} does not run: it is {record.state}"
        raise LeaseLost(msg)
    return record
