"""The former place of ``orchestrator.adapters.authority``."""

from orchestrator.adapters.authority import CertificateAuthority, Issued, RevokedSerial

__all__ = ["CertificateAuthority", "Issued", "RevokedSerial"]
