"""Tables of model versions, their files and their aliases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class ModelVersionRow(Base):
    """A registered version: its manifest, byte for byte as its hash is signed.

    restored_at: when its files came back after they had been collected. take_back: it was revoked,
    and whoever serves it is to get another version, take_back_to, or what it served before.
    """

    __tablename__ = "model_versions"
    # What stands is read at every tick, without the manifests.
    __table_args__ = (
        Index(
            "ix_model_versions_standing",
            "revoked",
            "purged",
            "model",
            "version",
            "manifest_sha256",
            "manifest_size",
        ),
        Index(
            "ix_model_versions_take_back",
            "model",
            "version",
            sqlite_where=text("take_back"),
            postgresql_where=text("take_back"),
        ),
    )

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    manifest: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(64), index=True)
    manifest_size: Mapped[int] = mapped_column(server_default="0")
    job_id: Mapped[str | None] = mapped_column(String(32))
    revoked: Mapped[bool] = mapped_column(default=False)
    revoked_reason: Mapped[str | None] = mapped_column(Text)
    purged: Mapped[bool] = mapped_column(default=False, server_default=false())
    tags: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    created_at: Mapped[datetime]
    restored_at: Mapped[datetime | None]
    take_back: Mapped[bool] = mapped_column(default=False, server_default=false())
    take_back_to: Mapped[int | None]


class VersionFileRow(Base):
    """A file that a version names. served: devices fetch it."""

    __tablename__ = "version_files"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model", "version"], ["model_versions.model", "model_versions.version"]
        ),
        Index("ix_version_files_sha256", "sha256"),
    )

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    served: Mapped[bool]


class AliasRow(Base):
    """A name that points at one version of a model and may move."""

    __tablename__ = "aliases"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]


class AliasChangeRow(Base):
    """One move of an alias. version: None when it was removed."""

    __tablename__ = "alias_changes"
    __table_args__ = (Index("ix_alias_changes_alias", "model", "alias", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(String(64))
    alias: Mapped[str] = mapped_column(String(64))
    version: Mapped[int | None]
    before: Mapped[int | None]
    by: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
