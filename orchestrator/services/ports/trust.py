"""Who signs, and who issues certificates."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from datetime import datetime
from typing import Protocol

from schemas.rollout import Assignment


class Signer(Protocol):
    """Signs what devices trust."""

    @property
    def root_json(self) -> str: ...
    @property
    def targets_json(self) -> str: ...
    def root_sha256(self) -> str: ...
    def sign_manifest(self, model: str, version: int, manifest: bytes) -> bytes: ...
    def sign_assignment(
        self, assignment: Assignment, *, manifest_size: int, sequence: int, expires: datetime
    ) -> bytes: ...


class IssuedCertificate(Protocol):
    """A device's certificate."""

    @property
    def pem(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def spki_sha256(self) -> str: ...
    @property
    def expires(self) -> datetime: ...


class Authority(Protocol):
    """The certificate authority."""

    @property
    def pem(self) -> str: ...
    def ca_sha256(self) -> str: ...
    def issue_device(self, csr_pem: str, device_id: str, days: int) -> IssuedCertificate: ...
