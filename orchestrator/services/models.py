"""The registry: immutable, numbered versions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain import promotion
from orchestrator.errors import Forbidden, Invalid, LeaseLost, TooLarge
from orchestrator.services import aliases, job_history, registration
from orchestrator.services.holds import Holds
from orchestrator.services.ports import Artifacts, Clock, Transaction, UnitOfWork
from orchestrator.services.records import JobRecord, VersionRecord
from orchestrator.services.versions import found, model_view, version_view
from schemas.errors import FieldError
from schemas.job import JobProgress, LogLine
from schemas.jobfile import Promote
from schemas.model import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ModelVersionView,
    ModelView,
    VersionNote,
    VersionNumber,
)

OPERATOR = "operator"
"""Who moved an alias, where no key says it."""


class ModelService:
    """What the API does with models.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        artifacts: where the files of the versions are.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, artifacts: Artifacts) -> None:
        self._uow = uow
        self._clock = clock
        self._artifacts = artifacts
        self._holds = Holds(uow, clock)

    def register(
        self, name: str, manifest: Manifest, job_id: str | None, *, by: str | None = None
    ) -> VersionNumber:
        """Give a manifest the next number; the same manifest keeps the one it has.

        job_id: the job that registers, which makes one version of its own model however
        often it is tried. by: the key of an operator who registers. A version whose files
        were collected is whole again when its manifest comes again with all its files.

        Raises:
            Forbidden, LeaseLost: the job's model is another, or the job was lost.
            Invalid: it belongs to another model, contradicts itself, or a file is missing,
                is being collected or is not what the manifest says.
            Conflict: it took so long that its files may have been collected.
            TooLarge: the manifest is.
        """
        registration.check(name, manifest, self._artifacts)
        text = manifest.model_dump_json()
        raw = text.encode()
        if len(raw) > MAX_MANIFEST_BYTES:
            msg = f"the manifest has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are allowed"
            raise TooLarge(msg)
        files = {file.sha256: f"file {file.path}" for file in manifest.files()}
        with self._holds.on(files) as hold:
            registration.check_there(manifest, self._artifacts)
            with self._uow() as tx:
                hold.settle(tx, self._clock())
                return self._number(tx, manifest, text, job_id, by=job_id or by or OPERATOR)

    def _number(
        self, tx: Transaction, manifest: Manifest, text: str, job_id: str | None, *, by: str
    ) -> VersionNumber:
        """The number that a manifest, whose JSON is ``text``, has or gets."""
        name, raw, now = manifest.model, text.encode(), self._clock()
        sha256 = hashlib.sha256(raw).hexdigest()
        job = None if job_id is None else _check_job(tx, name, manifest, job_id)
        known = _known(tx, name, sha256, job_id, now)
        if known is not None:
            return VersionNumber(model=name, version=known.version, created=False)
        _check_parent(tx, manifest)
        version = tx.models.last_version(name) + 1
        record = VersionRecord(
            model=name,
            version=version,
            manifest=text,
            manifest_sha256=sha256,
            manifest_size=len(raw),
            job_id=job_id,
            created_at=now,
        )
        tx.models.add(record)
        tx.models.add_files(name, version, _files(manifest))
        detail = {"manifest_sha256": sha256, "job": job_id}
        tx.audit.add("model.register", f"{name}@{version}", detail)
        self._promote(tx, record, manifest, job, by=by)
        return VersionNumber(model=name, version=version, created=True)

    def _promote(
        self,
        tx: Transaction,
        record: VersionRecord,
        manifest: Manifest,
        job: JobRecord | None,
        *,
        by: str,
    ) -> None:
        """Move the aliases that a new version is due, and tell of it."""
        now = self._clock()
        promote = Promote() if job is None else job.spec.promote
        there = tx.models.aliases(record.model)
        verdict = promotion.decide(promote, manifest, first=record.version == 1, there=there)
        data: dict[str, Any] = {
            "model": record.model,
            "version": record.version,
            "change": "registered",
        }
        if verdict.aliases:
            data["aliases"] = list(verdict.aliases)
        tx.events.add("model", record.model, data, now)
        for alias in verdict.aliases:
            aliases.move(tx, record.model, alias, record.version, by=by, now=now)
        if job is not None and verdict.text is not None:
            line = LogLine(at=now, level=verdict.level, text=verdict.text)
            report = JobProgress(attempt=job.attempt, seq=max(0, job.seq), logs=(line,))
            job_history.record(tx, job, report, now)

    def annotate(self, name: str, version: int, note: VersionNote) -> ModelVersionView:
        """Replace what people wrote on a version.

        Raises:
            NotFound: there is no such version.
        """
        with self._uow() as tx:
            record = found(tx, name, version)
            noted = replace(record, tags=note.tags, note=note.note)
            if noted != record:
                tx.models.save(noted)
                data = {"model": name, "version": version, "change": "noted"}
                tx.events.add("model", name, data | {"tags": list(note.tags)}, self._clock())
                detail = {"tags": note.tags, "note": note.note}
                tx.audit.add("model.note", f"{name}@{version}", detail)
            return version_view(tx, noted)

    def get(self, name: str, version: int) -> ModelVersionView:
        """One version."""
        with self._uow.read() as tx:
            return version_view(tx, found(tx, name, version))

    def model(self, name: str) -> ModelView:
        """One model with its versions."""
        with self._uow.read() as tx:
            return model_view(tx, name)

    def page(self, after: str | None, limit: int) -> Sequence[ModelView]:
        """Models by name."""
        with self._uow.read() as tx:
            return [model_view(tx, name) for name in tx.models.names(after, limit)]

    def manifest(self, manifest_sha256: str) -> str | None:
        """A manifest's JSON, by digest.

        None when there is none, or its version was revoked or has no files any more.
        """
        with self._uow.read() as tx:
            record = tx.models.by_digest(manifest_sha256)
        if record is None or record.revoked or record.purged:
            return None
        return record.manifest

    def serves(self, sha256: str) -> bool:
        """Whether devices may fetch a file.

        Some version has it for them that is neither revoked nor purged.
        """
        with self._uow.read() as tx:
            return tx.models.serves(sha256)


def _known(
    tx: Transaction, name: str, sha256: str, job_id: str | None, now: datetime
) -> VersionRecord | None:
    """The version that this manifest, or this job, has made already."""
    same = tx.models.by_manifest(name, sha256)
    if same is None:
        return None if job_id is None else tx.models.by_job(name, job_id)
    if same.purged:
        tx.models.save(replace(same, purged=False, restored_at=now))
    return same


def _files(manifest: Manifest) -> dict[str, bool]:
    """Digest → whether devices fetch it."""
    files = {file.sha256: False for file in manifest.files()}
    for variant in manifest.variants:
        files[variant.file.sha256] = files[variant.golden.file.sha256] = True
    return files


def _check_parent(tx: Transaction, manifest: Manifest) -> None:
    parent = manifest.lineage.parent
    if parent is None:
        return
    name, _, number = parent.partition("@")
    if tx.models.get(name, int(number)) is None:
        text = f"there is no {parent}"
        msg = f"the manifest cannot be registered: lineage.parent: {text}"
        raise Invalid(msg, fields=[FieldError(field="lineage.parent", message=text)])


def _check_job(tx: Transaction, name: str, manifest: Manifest, job_id: str) -> JobRecord:
    job = tx.jobs.get(job_id)
    if job is None or job.lease_until is None:
        msg = f"{job_id} does not run any more, so it registers nothing"
        raise LeaseLost(msg)
    if job.spec.batch is not None:
        msg = f"{job_id} is batch inference and registers no model"
        raise Forbidden(msg)
    if name != job.spec.model_name:
        msg = f"{job_id} trains {job.spec.model_name!r} and may not register {name!r}"
        raise Forbidden(msg)
    if manifest.lineage.job not in {None, job_id}:
        msg = f"the manifest's lineage names {manifest.lineage.job}, but {job_id} registers it"
        raise Forbidden(msg)
    return job
