"""The registry: immutable, numbered, signed versions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from orchestrator.domain import promotion
from orchestrator.errors import Forbidden, Invalid, LeaseLost, NotFound, TooLarge
from orchestrator.services import job_history
from orchestrator.services.ports import Artifacts, Clock, Signer, Transaction, UnitOfWork
from orchestrator.services.records import JobRecord, VersionRecord
from schemas.errors import FieldError
from schemas.job import JobProgress, LogLine
from schemas.jobfile import Promote
from schemas.model import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ModelVersionView,
    ModelView,
    VersionNumber,
)
from schemas.transfer import leaves_digest


class ModelService:
    """What the API does with models.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        artifacts: where the files of the versions are.
        signer: signs each manifest once, when it is registered.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, artifacts: Artifacts, signer: Signer) -> None:
        self._uow = uow
        self._clock = clock
        self._artifacts = artifacts
        self._signer = signer

    def register(self, name: str, manifest: Manifest, job_id: str | None) -> VersionNumber:
        """Give a manifest the next number; the same manifest keeps the one it has.

        job_id: the job that registers, which makes one version of its own model however
        often it is tried.

        Raises:
            Forbidden, LeaseLost: the job's model is another, or the job was lost.
            Invalid: it belongs to another model, repeats an id, or a file is missing or
                is not what the manifest says.
            TooLarge: the manifest is.
        """
        self._check(name, manifest)
        text = manifest.model_dump_json()
        raw = text.encode()
        if len(raw) > MAX_MANIFEST_BYTES:
            msg = f"the manifest has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are allowed"
            raise TooLarge(msg)
        sha256 = hashlib.sha256(raw).hexdigest()
        with self._uow() as tx:
            job = None if job_id is None else _check_job(tx, name, manifest, job_id)
            known = tx.models.by_manifest(name, sha256) or (
                tx.models.by_job(name, job_id) if job_id is not None else None
            )
            if known is not None:
                return VersionNumber(model=name, version=known.version, created=False)
            # Signing is computation, not IO, so number and signature share a transaction.
            version = tx.models.last_version(name) + 1
            signed = self._signer.sign_manifest(name, version, raw).decode()
            record = VersionRecord(
                model=name,
                version=version,
                manifest=text,
                manifest_sha256=sha256,
                signed=signed,
                job_id=job_id,
                created_at=self._clock(),
            )
            tx.models.add(record)
            self._promote(tx, record, manifest, job)
        return VersionNumber(model=name, version=version, created=True)

    def _promote(
        self, tx: Transaction, record: VersionRecord, manifest: Manifest, job: JobRecord | None
    ) -> None:
        """Move the aliases that a new version is due, and tell of it."""
        now = self._clock()
        promote = Promote() if job is None else job.spec.promote
        verdict = promotion.decide(promote, manifest, first=record.version == 1)
        for alias in verdict.aliases:
            tx.models.set_alias(record.model, alias, record.version)
        data: dict[str, Any] = {"model": record.model, "version": record.version}
        if verdict.aliases:
            data["aliases"] = list(verdict.aliases)
        tx.events.add("model", record.model, data, now)
        if job is not None and verdict.text is not None:
            line = LogLine(at=now, level=verdict.level, text=verdict.text)
            report = JobProgress(attempt=job.attempt, seq=max(0, job.seq), logs=(line,))
            job_history.record(tx, job, report, now)

    def _check(self, name: str, manifest: Manifest) -> None:
        errors: list[FieldError] = []
        if manifest.model != name:
            text = f"is {manifest.model!r}, but it is registered as {name!r}"
            errors.append(FieldError(field="model", message=text))
        ids = [variant.id for variant in manifest.variants]
        if len(set(ids)) != len(ids):
            errors.append(FieldError(field="variants", message=f"ids repeat: {', '.join(ids)}"))
        for file in manifest.files():
            where, store = f"file {file.path}", self._artifacts
            if not store.exists(file.sha256):
                text = f"artifact {file.sha256} has not been uploaded"
            elif store.size(file.sha256) != file.size:
                text = f"has {store.size(file.sha256)} bytes, not {file.size}"
            elif leaves_digest(store.leaves(file.sha256)) != file.leaves_sha256:
                text = "leaves_sha256 is not that of its chunks"
            else:
                continue
            errors.append(FieldError(field=where, message=text))
        if errors:
            first = f"{errors[0].field}: {errors[0].message}"
            msg = f"the manifest cannot be registered: {first}"
            raise Invalid(msg, fields=errors)

    def get(self, name: str, version: int) -> ModelVersionView:
        """One version."""
        with self._uow.read() as tx:
            record = found(tx, name, version)
            aliases = tx.models.aliases(name)
        return ModelVersionView(
            model=name,
            version=version,
            manifest=Manifest.model_validate_json(record.manifest),
            manifest_sha256=record.manifest_sha256,
            aliases=tuple(sorted(a for a, v in aliases.items() if v == version)),
            revoked=record.revoked,
            created_at=record.created_at,
        )

    def model(self, name: str) -> ModelView:
        """One model with its versions."""
        with self._uow.read() as tx:
            return _model(tx, name)

    def page(self, after: str | None, limit: int) -> Sequence[ModelView]:
        """Models by name."""
        with self._uow.read() as tx:
            return [_model(tx, name) for name in tx.models.names(after, limit)]

    def signed_manifest(self, manifest_sha256: str) -> tuple[str, str] | None:
        """A manifest's JSON and its signature, by digest; None when there is none."""
        with self._uow.read() as tx:
            record = tx.models.by_digest(manifest_sha256)
        return None if record is None or record.revoked else (record.manifest, record.signed)


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


def _model(tx: Transaction, name: str) -> ModelView:
    versions = tx.models.versions(name)
    if not versions:
        msg = f"there is no model {name!r}"
        raise NotFound(msg, hint="`argosy model ls` lists them")
    return ModelView(name=name, versions=tuple(versions), aliases=dict(tx.models.aliases(name)))


def found(tx: Transaction, name: str, version: int) -> VersionRecord:
    """A version's record.

    Raises:
        NotFound: there is none; the message names those there are.
    """
    record = tx.models.get(name, version)
    if record is None:
        versions = tx.models.versions(name)
        there = ", ".join(f"{name}@{v}" for v in versions[:5])
        msg = f"there is no {name}@{version}" + (f"; there is {there}" if there else "")
        raise NotFound(msg, hint="`argosy model ls` lists the models")
    return record
