"""Identifiers: how they are made, and what each may look like.

An id is ``<kind>_<16 characters>``: 48 bits of milliseconds, so that ids sort by
age, then 32 random bits, in Crockford's base 32 in lower case. Ids are topic
levels, file names and URL segments, so nothing else is ever accepted as one.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Literal

from pydantic import StringConstraints

Kind = Literal["job", "dev", "tok", "rol", "exe", "exp", "key", "agent"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BODY = "[0-9a-hjkmnp-tv-z]{16}"
_RANDOM_BITS = 32
_BODY_LENGTH = 16


def new_id(kind: Kind, *, now_ms: int | None = None, entropy: int | None = None) -> str:
    """Make an id.

    Args:
        kind: the prefix.
        now_ms: milliseconds since 1970; the clock is read when it is left out.
        entropy: 32 random bits; drawn from the system when left out.
    """
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    low = secrets.randbits(_RANDOM_BITS) if entropy is None else entropy & (2**_RANDOM_BITS - 1)
    number = (ms << _RANDOM_BITS) | low
    body = "".join(_ALPHABET[(number >> (5 * i)) & 31] for i in reversed(range(_BODY_LENGTH)))
    return f"{kind}_{body}"


JobId = Annotated[str, StringConstraints(pattern=f"^job_{_BODY}$")]
DeviceId = Annotated[str, StringConstraints(pattern=f"^dev_{_BODY}$")]
TokenId = Annotated[str, StringConstraints(pattern=f"^tok_{_BODY}$")]
RolloutId = Annotated[str, StringConstraints(pattern=f"^rol_{_BODY}$")]
ExecutionId = Annotated[str, StringConstraints(pattern=f"^exe_{_BODY}$")]
ExperimentId = Annotated[str, StringConstraints(pattern=f"^exp_{_BODY}$")]
KeyId = Annotated[str, StringConstraints(pattern=f"^key_{_BODY}$")]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A model, variant, device class or alias: a DNS label (RFC 1123)."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hex; the address of an artifact."""

BootId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""One start of a device's agent, as 128 random bits in hex."""


def device_id_pattern() -> str:
    """The regular expression that every device id matches."""
    return f"dev_{_BODY}"
