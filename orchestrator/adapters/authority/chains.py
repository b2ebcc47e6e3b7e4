"""Paths from a certificate to a root that is trusted (RFC 5280, section 6); no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.adapters.authority.parts import path_length
from orchestrator.errors import Invalid
from schemas.enroll import MAX_CHAIN_BYTES

MAX_DEPTH = 6


def read_chain(pem: str) -> list[x509.Certificate]:
    """The certificates in a PEM text: the first is what the others vouch for.

    Raises:
        Invalid: there is none, too many, or something else.
    """
    try:
        if len(pem.encode()) > MAX_CHAIN_BYTES:
            msg = f"the certificates are larger than {MAX_CHAIN_BYTES} bytes"
            raise Invalid(msg)
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnicodeError, UnsupportedAlgorithm) as error:
        msg = "not certificates in PEM form"
        raise Invalid(msg) from error
    if len(found) > MAX_DEPTH:
        msg = f"a chain of {len(found)} certificates; at most {MAX_DEPTH} are looked at"
        raise Invalid(msg)
    return found


def path_to(
    leaf: x509.Certificate,
    between: Sequence[x509.Certificate],
    roots: Iterable[x509.Certificate],
) -> tuple[x509.Certificate, ...] | None:
    """The authorities from ``leaf`` to a root, the root last; None when there is no path.

    Signatures, names, basic constraints and path lengths count; dates do not, because one
    who renews may come late.
    """
    trusted = list(roots)
    path: list[x509.Certificate] = []
    current = leaf
    while len(path) < MAX_DEPTH:
        for root in trusted:
            if may_issue(root, len(path)) and issued_by(current, root):
                return (*path, root)
        above = next(
            (
                c
                for c in between
                if c not in path and c != leaf and may_issue(c, len(path)) and issued_by(current, c)
            ),
            None,
        )
        if above is None:
            return None
        path.append(above)
        current = above
    return None


def may_issue(certificate: x509.Certificate, below: int) -> bool:
    """Whether a certificate is an authority's that may have so many authorities below it."""
    length = path_length(certificate)
    if length is not None and length < below:
        return False
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return usage.key_cert_sign


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate's name and key signed the other."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def is_for_clients(certificate: x509.Certificate) -> bool:
    """Whether a certificate is a TLS client's and no authority's."""
    if path_length(certificate) != -1:
        return False
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage
