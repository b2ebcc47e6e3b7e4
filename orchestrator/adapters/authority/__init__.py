"""Certificates: who issues them, who is trusted, who was revoked (RFC 5280)."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from orchestrator.adapters.authority.anchors import read_anchors
from orchestrator.adapters.authority.embedded import CertificateAuthority
from orchestrator.adapters.authority.external import CommandAuthority
from orchestrator.adapters.authority.issued import Canary, Issued, RevokedSerial
from orchestrator.clock import utc_now

__all__ = [
    "Canary",
    "CertificateAuthority",
    "CommandAuthority",
    "Issued",
    "RevokedSerial",
    "open_authority",
]


def open_authority(
    folder: Path,
    clock: Callable[[], datetime] = utc_now,
    *,
    command: Path | None = None,
    roots: Path | None = None,
) -> CertificateAuthority:
    """Open the authority of a folder; its files are there, or are made.

    Args:
        folder: of the platform's own authority.
        clock: tells the time; timezone-aware.
        command: the program that issues to devices in its place.
        roots: a PEM file with that program's roots; given if the program is.

    Raises:
        Unavailable: one of its files is missing or damaged.
        Invalid: ``roots`` is not what it must be.
    """
    own = CertificateAuthority.open_or_create(folder, clock)
    if command is None or roots is None:
        return own
    anchors = read_anchors(roots)
    authority = CommandAuthority(folder, own.trusted, clock, command=command, anchors=anchors)
    authority.settle()
    return authority
