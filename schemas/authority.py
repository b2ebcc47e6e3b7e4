"""The certificate authorities: how they stand, and who knows which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Authored, UtcTime, Wire
from schemas.ids import Sha256

Count = Annotated[int, Field(ge=0)]


class RootView(Wire):
    """A root that is trusted, and the authority that issues below it.

    active: it issues to devices. key_held: its private key lies on the server; issuing goes
    on without it. cross_signed: the root before it vouches for it. issuing_expires_at: of
    the authority below it. known_by: active devices that said they trust it. issued: active
    devices whose newest certificate is of it.
    """

    sha256: Sha256
    name: str
    active: bool
    external: bool = False
    key_held: bool
    cross_signed: bool = False
    created_at: UtcTime
    expires_at: UtcTime
    issuing_expires_at: UtcTime
    known_by: Count
    issued: Count


class GateView(Wire):
    """Whether the broker keeps out who was revoked.

    broker: ours, or one that is run elsewhere. revoked: certificates that have not expired.
    proven_at: when canaries last showed that the broker refuses. trouble: what is not assured.
    """

    broker: Literal["embedded", "external"]
    revoked: Count
    proven_at: UtcTime | None
    told_at: UtcTime | None
    trouble: str | None


class AuthorityView(Wire):
    """The authorities as they stand.

    kind: who issues to devices: the platform, or a command. rotating: two roots are trusted.
    devices: active ones. unheard: those of them that never said which roots they trust. behind:
    those that are not known to trust the active root, or have a certificate of another:
    retiring the old one would lose them. problems: what somebody should do something about.
    """

    kind: Literal["embedded", "command"] = "embedded"
    rotating: bool
    roots: tuple[RootView, ...]
    devices: Count
    unheard: Count
    behind: Count
    behind_ids: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    gate: GateView
    problems: tuple[str, ...] = ()


class RetireRequest(Authored):
    """The old root is to be trusted no more. force: although devices are lost by it."""

    force: bool = False
