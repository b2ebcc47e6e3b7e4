"""Versions as they are looked up and shown."""

from __future__ import annotations

from orchestrator.errors import Conflict, NotFound, Revoked
from orchestrator.services.ports import Transaction
from orchestrator.services.records import VersionRecord
from schemas.model import Manifest, ModelVersionView, ModelView


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


def usable(tx: Transaction, name: str, version: int) -> VersionRecord:
    """The record of a version that can be run: neither revoked nor without its files.

    Raises:
        NotFound, Revoked: there is none, or it was taken back.
        Conflict: its files were collected.
    """
    record = found(tx, name, version)
    if record.revoked:
        why = f": {record.revoked_reason}" if record.revoked_reason else ""
        msg = f"{name}@{version} was revoked{why}"
        raise Revoked(msg, hint=f"`argosy model get {name}` shows its versions")
    if record.purged:
        msg = f"the files of {name}@{version} were collected; only its record is left"
        raise Conflict(msg, hint=f"`argosy model get {name}` shows its versions")
    return record


def model_view(tx: Transaction, name: str) -> ModelView:
    """A model as the API shows it.

    Raises:
        NotFound: it has no version.
    """
    versions = tx.models.versions(name)
    if not versions:
        msg = f"there is no model {name!r}"
        raise NotFound(msg, hint="`argosy model ls` lists them")
    aliases = dict(sorted(tx.models.aliases(name).items()))
    return ModelView(name=name, versions=tuple(versions), aliases=aliases)


def version_view(tx: Transaction, record: VersionRecord) -> ModelVersionView:
    """A version as the API shows it."""
    aliases = tx.models.aliases(record.model)
    return ModelVersionView(
        model=record.model,
        version=record.version,
        manifest=Manifest.model_validate_json(record.manifest),
        manifest_sha256=record.manifest_sha256,
        aliases=tuple(sorted(a for a, v in aliases.items() if v == record.version)),
        revoked=record.revoked,
        revoked_reason=record.revoked_reason,
        purged=record.purged,
        tags=record.tags,
        note=record.note,
        measured=tuple(tx.measured.of_version(record.model, record.version)),
        created_at=record.created_at,
    )
