"""First contact with a platform: whom to trust, before a token is sent.

A platform beyond loopback has a certificate of its own authority, which no system knows. The
authority's certificate is then fetched without trust and held against a SHA-256 that came by
another way; only over a connection that it vouches for is anything else sent.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.client.errors import AnswerError, ProfileError, UnreachableError
from orchestrator.client.profile import is_loopback

MAX_CA_BYTES = 64 * 1024
_SECONDS = 10.0
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate. sha256: of its DER form, in hex."""

    pem: str
    sha256: str


def roots_in(pem: str) -> list[Root]:
    """The certificates of a PEM text, in their order.

    Raises:
        ProfileError: there is none, or one is damaged.
    """
    blocks = _BLOCK.findall(pem) if len(pem) <= MAX_CA_BYTES else []
    try:
        digests = [hashlib.sha256(ssl.PEM_cert_to_DER_cert(one)).hexdigest() for one in blocks]
    except ValueError:
        digests = []
    if not digests:
        detail = "that is no certificate authority in PEM form"
        raise ProfileError(detail, hint="take ca/ca.pem from the platform's home folder")
    return [Root(block + "\n", digest) for block, digest in zip(blocks, digests, strict=True)]


def read_digest(text: str) -> str:
    """A SHA-256 as people write it, with or without colons.

    Raises:
        ProfileError: it is none.
    """
    plain = text.strip().lower().replace(":", "").removeprefix("sha256")
    if not _SHA256.fullmatch(plain):
        detail = f"{text!r} is not a SHA-256: 64 hexadecimal digits"
        raise ProfileError(detail, hint="`argosy up` shows that of its authority")
    return plain


def read_ca(path: Path) -> str:
    """The certificates of a file, as PEM text.

    Raises:
        ProfileError: it cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CA_BYTES + 1)
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        raise ProfileError(detail) from error
    return "".join(root.pem for root in roots_in(raw.decode("ascii", "replace")))


def is_known(url: str) -> bool:
    """Whether the system's own authorities vouch for an address; plain HTTP needs none.

    Raises:
        UnreachableError: nothing answers there.
    """
    if url.startswith("http://"):
        return True
    try:
        _fetch(url, "/v1/health", ssl.create_default_context())
    except httpx.ConnectError as error:
        if _is_distrust(error):
            return False
        raise UnreachableError(url) from error
    except httpx.TransportError as error:
        raise UnreachableError(url) from error
    return True


def offered_roots(url: str) -> list[Root]:
    """The authorities that a platform says are its own: not to be trusted for that.

    Raises:
        UnreachableError, AnswerError, ProfileError: it does not answer with any.
    """
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        return roots_in(_fetch(url, "/v1/trust/ca.pem", blind))
    except httpx.TransportError as error:
        raise UnreachableError(url) from error


def vouched_roots(url: str, root: Root) -> str:
    """All authorities of the platform, over a connection that one of them vouches for.

    Raises:
        ProfileError: the platform's certificate is not of that authority.
        UnreachableError, AnswerError: it does not answer.
    """
    try:
        text = _fetch(url, "/v1/trust/ca.pem", ssl.create_default_context(cadata=root.pem))
    except httpx.ConnectError as error:
        if _is_distrust(error):
            detail = f"the certificate of {url} is not signed by the authority {root.sha256}"
            hint = "the address may lead elsewhere, or its certificate lacks that name"
            raise ProfileError(detail, hint=hint) from error
        raise UnreachableError(url) from error
    except httpx.TransportError as error:
        raise UnreachableError(url) from error
    return "".join(one.pem for one in roots_in(text))


def vouching_root(url: str, roots: list[Root]) -> Root:
    """The one of some roots that vouches for an address: what a person must then confirm.

    Raises:
        ProfileError: none does.
        UnreachableError, AnswerError: it does not answer.
    """
    for root in roots[:-1]:
        try:
            vouched_roots(url, root)
        except ProfileError:
            continue
        return root
    vouched_roots(url, roots[-1])
    return roots[-1]


def _fetch(url: str, path: str, context: ssl.SSLContext) -> str:
    with (
        httpx.Client(verify=context, timeout=_SECONDS, trust_env=not is_loopback(url)) as client,
        client.stream("GET", url + path) as answer,
    ):
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > MAX_CA_BYTES:
                break
    if answer.is_error or answer.is_redirect or len(body) > MAX_CA_BYTES:
        detail = f"GET {path} was answered {answer.status_code} with {len(body)} bytes"
        raise AnswerError(detail)
    return body.decode("utf-8", "replace")


def _is_distrust(error: httpx.ConnectError) -> bool:
    return "certificate verify failed" in str(error).lower()
