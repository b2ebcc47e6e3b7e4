"""Who signs, and who issues certificates."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.rollout import Assignment
from schemas.trust import TrustView


@dataclass(frozen=True, slots=True, order=True)
class Standing:
    """A version that devices may install: neither revoked nor purged.

    length: bytes of its manifest.
    """

    model: str
    version: int
    manifest_sha256: str
    length: int


class Signer(Protocol):
    """Signs what devices trust.

    root_json: the newest root; root_of: any version of it, by the hash that a token pins.
    metadata: a metadata file by name. publish: bring the metadata to what stands;
    level-triggered, cheap when nothing changed. releases: whether it signs versions by
    itself, because it holds the release keys. accept: take metadata that was signed
    elsewhere. fault: why devices can install nothing any more, or None. director_keys: the
    ids of the keys that sign assignments now.
    """

    @property
    def root_json(self) -> str: ...
    def root_sha256(self) -> str: ...
    def root_of(self, sha256: str) -> str | None: ...
    def metadata(self, name: str) -> bytes | None: ...
    def publish(self, stands: Sequence[Standing]) -> None: ...
    def published(self, model: str, version: int) -> bool: ...
    def releases(self) -> bool: ...
    def accept(self, files: Mapping[str, bytes], stands: Sequence[Standing]) -> None: ...
    def status(self) -> TrustView: ...
    def fault(self) -> str | None: ...
    def director_keys(self) -> tuple[str, ...]: ...
    def sign_assignment(
        self, assignment: Assignment, *, manifest_size: int, sequence: int, expires: datetime
    ) -> bytes: ...


class IssuedCertificate(Protocol):
    """A device's certificate, in ``pem`` followed by the authorities that issued it.

    serial: lower-case hex. spki_sha256: of the public key's DER form. root_sha256: of the root
    that the chain ends at.
    """

    @property
    def pem(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def spki_sha256(self) -> str: ...
    @property
    def expires(self) -> datetime: ...
    @property
    def root_sha256(self) -> str: ...


class Authority(Protocol):
    """The certificate authority.

    pem: the roots to trust, one after the other. ca_sha256: of the root that new join tokens
    pin. root_of: whether a root, by its SHA-256, is still trusted. spki_of_csr: judges a
    request as ``issue_device`` does. verify_old: what a certificate of ours said of its
    device, expired or not; refused when it is not ours or another device's. crl_pem: the
    revocation lists.
    """

    @property
    def pem(self) -> str: ...
    @property
    def crl_pem(self) -> str: ...
    def ca_sha256(self) -> str: ...
    def root_of(self, sha256: str) -> bool: ...
    def spki_of_csr(self, csr_pem: str) -> str: ...
    def issue_device(self, csr_pem: str, device_id: str, days: int) -> IssuedCertificate: ...
    def verify_old(self, certificate_pem: str, device_id: str) -> IssuedCertificate: ...
