"""What is made of metadata that does not hold, and how documents of a role are read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, Self

from tuf.api.exceptions import (
    BadVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from edge_client.errors import TrustError
from schemas.errors import DeviceCause

HOSTILE = (RepositoryError, ValueError, TypeError, KeyError, AttributeError)
"""What python-tuf raises on bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """What metadata says of a target, and until when it says so."""

    file: TargetFile
    expires: dt.datetime


@dataclass(frozen=True, slots=True)
class Delegation:
    """A role to which ``targets`` delegates, as of the last refresh.

    expires: of the root and the targets, whichever comes first.
    """

    targets: Targets
    role: DelegatedRole
    expires: dt.datetime

    @classmethod
    def of(cls, root: Root, targets: Targets, role: str) -> Self:
        """The delegation to ``role``.

        Raises:
            TrustError: there is none.
        """
        roles = None if targets.delegations is None else targets.delegations.roles
        found = (roles or {}).get(role)
        if found is None:
            refuse(DeviceCause.BAD_SIGNATURE, f"the targets delegate to no role {role}")
        return cls(targets, found, min(root.expires, targets.expires))

    def read(self, raw: bytes, *, limit: int, now: dt.datetime) -> Targets:
        """Check a document of the role: size, form, signatures, expiry.

        Raises:
            TrustError: it must not be believed.
        """
        what = f"the {self.role.name} document"
        document = parse_targets(raw, limit, what)
        with refusals(what, now):
            self.targets.verify_delegate(self.role.name, document.signed_bytes, document.signatures)
        for name, expires in (("the delegation", self.expires), (what, document.signed.expires)):
            if now >= expires:
                refuse(DeviceCause.EXPIRED, expired(name, expires, now))
        return document.signed

    def may_sign(self, path: str) -> bool:
        """Whether the role is entitled to a target path."""
        return self.role.is_delegated_path(path)


def parse_targets(raw: bytes, limit: int, what: str) -> Metadata[Targets]:
    """Read a targets document, without believing it.

    Raises:
        TrustError: it is too large or malformed.
    """
    if len(raw) > limit:
        refuse(DeviceCause.BAD_SIGNATURE, f"{what} is larger than {limit} bytes")
    try:
        document = Metadata[Targets].from_bytes(raw)
    except HOSTILE as error:
        raise TrustError(DeviceCause.BAD_SIGNATURE, f"{what} is malformed") from error
    if not isinstance(document.signed, Targets):
        refuse(DeviceCause.BAD_SIGNATURE, f"{what} is a {document.signed.type} document")
    return document


@contextmanager
def refusals(what: str, now: dt.datetime | None) -> Iterator[None]:
    """Turn what python-tuf raises into a refusal with its cause.

    Raises:
        TrustError: ``what`` must not be believed.
    """
    try:
        yield
    except TrustError:
        raise
    except ExpiredMetadataError as error:
        clock = "" if now is None else f"; this device's clock says {now:%Y-%m-%d %H:%M} UTC"
        raise TrustError(DeviceCause.EXPIRED, f"{what}: {error}{clock}") from error
    except LengthOrHashMismatchError as error:
        raise TrustError(DeviceCause.DIGEST_MISMATCH, f"{what}: {error}") from error
    except BadVersionNumberError as error:
        raise TrustError(DeviceCause.BELOW_FLOOR, f"{what}: {error}") from error
    except HOSTILE as error:
        detail = str(error).partition("\n")[0] or "malformed"
        raise TrustError(DeviceCause.BAD_SIGNATURE, f"{what}: {detail[:300]}") from error


def expired(what: str, expires: dt.datetime, now: dt.datetime) -> str:
    """Says that something expired, and by which clock, as it may be the clock that is wrong."""
    return (
        f"{what} expired at {expires:%Y-%m-%d %H:%M} UTC; this device's clock says "
        f"{now:%Y-%m-%d %H:%M} UTC"
    )


def refuse(cause: DeviceCause, message: str) -> NoReturn:
    """Raise a ``TrustError``."""
    raise TrustError(cause, message)
