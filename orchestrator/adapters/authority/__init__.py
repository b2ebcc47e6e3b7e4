"""Certificates: who issues them, who is trusted, who was revoked (RFC 5280)."""

from orchestrator.adapters.authority.embedded import CertificateAuthority
from orchestrator.adapters.authority.issued import CANARY, Canary, Issued, RevokedSerial
from orchestrator.adapters.authority.parts import utc_now

__all__ = ["CANARY", "Canary", "CertificateAuthority", "Issued", "RevokedSerial", "utc_now"]
