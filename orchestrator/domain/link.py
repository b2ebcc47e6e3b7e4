"""Links to files: who signed one, and whether it still holds. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

KEY_BYTES = 32
LIFETIME_SECONDS = 600


class Verdict(StrEnum):
    """What is to be made of a link."""

    GOOD = "good"
    FORGED = "forged"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Link:
    """One device's right to one file. expires: seconds since 1970."""

    sha256: str
    device: str
    expires: int


def link_text(link: Link) -> bytes:
    """What is signed; its first line keeps it apart from whatever else the key may sign."""
    return f"argosy file link v1\n{link.sha256}\n{link.device}\n{link.expires}\n".encode()


def sign(key: bytes, link: Link) -> str:
    """The signature, in hex: HMAC with SHA-256 (RFC 2104) of ``link_text``."""
    return hmac.new(key, link_text(link), hashlib.sha256).hexdigest()


def judge(key: bytes, link: Link, signature: str, now: float) -> Verdict:
    """Whether a link holds at ``now``, in seconds since 1970.

    The signature comes first: who cannot make one learns nothing about times.
    """
    # As bytes: what is no ASCII cannot be compared as text.
    if not hmac.compare_digest(sign(key, link).encode(), signature.encode()):
        return Verdict.FORGED
    # One that holds for longer than any that is given out was made by another program's clock.
    if not now < link.expires <= now + 2 * LIFETIME_SECONDS:
        return Verdict.EXPIRED
    return Verdict.GOOD


def path_of(link: Link, signature: str) -> str:
    """The path and the query that a device asks for."""
    query = f"device={link.device}&expires={link.expires}&signature={signature}"
    return f"/v1/files/{link.sha256}?{query}"
