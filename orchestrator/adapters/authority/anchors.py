"""The roots of an authority that is run elsewhere, and the authorities below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from orchestrator.adapters.authority.chains import may_issue, read_chain
from orchestrator.adapters.authority.parts import sha256_of
from orchestrator.errors import Invalid
from orchestrator.services.ports.authority import RootFacts


def read_anchors(path: Path) -> tuple[x509.Certificate, ...]:
    """The roots of an external authority, and the authorities below them, from a PEM file.

    Raises:
        Invalid: the file cannot be read, or holds something else.
    """
    hint = "name a PEM file with its root and the authorities below it in ARGOSY_CA_ROOTS"
    try:
        found = read_chain(path.read_text("ascii"))
    except (OSError, UnicodeError) as error:
        msg = f"ARGOSY_CA_ROOTS: {path} cannot be read: {getattr(error, 'strerror', error)}"
        raise Invalid(msg, hint=hint) from error
    except Invalid as error:
        msg = f"ARGOSY_CA_ROOTS: {path}: {error.detail}"
        raise Invalid(msg, hint=hint) from error
    if not any(c.issuer == c.subject for c in found):
        msg = f"ARGOSY_CA_ROOTS: {path} holds no root (a certificate that signs itself)"
        raise Invalid(msg, hint=hint)
    if not all(may_issue(c, 0) for c in found):
        msg = f"ARGOSY_CA_ROOTS: {path} holds a certificate that is no authority's"
        raise Invalid(msg, hint=hint)
    return tuple(found)


def facts_of(root: x509.Certificate, between: Sequence[x509.Certificate]) -> RootFacts:
    """What is told of such a root."""
    ends = [c.not_valid_after_utc for c in (root, *between)]
    return RootFacts(
        sha256=sha256_of(root),
        name=root.subject.rfc4514_string(),
        active=True,
        external=True,
        key_held=False,
        cross_signed=False,
        created_at=root.not_valid_before_utc,
        expires_at=root.not_valid_after_utc,
        issuing_expires_at=min(ends),
    )
