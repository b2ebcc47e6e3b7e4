"""Enrollment: from a join token to an identity, through a network nobody trusts.

The token pins the certificate authority and the trust root by their SHA-256. The CA is
fetched once without verification, checked against the pin, and is from then on all
that is trusted for TLS. The key is made here and never leaves.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from edge_client.errors import EnrollAuthError, EnrollError, TrustError, UsageError
from edge_client.identity import IdentityRecord, NewIdentity
from edge_client.trust import Trust
from schemas.device import Hardware
from schemas.enroll import Enrolled, EnrollRequest, JoinToken
from schemas.errors import Code, Problem

MAX_PEM_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 8 * 1024**2
TIMEOUT_SECONDS = 20.0

_AUTH = frozenset(
    {
        Code.TOKEN_INVALID,
        Code.TOKEN_EXPIRED,
        Code.TOKEN_SPENT,
        Code.UNAUTHENTICATED,
        Code.FORBIDDEN,
        Code.REVOKED,
    }
)
_HINTS = {
    Code.TOKEN_SPENT: "make a new token: `argosy token create`",
    Code.TOKEN_EXPIRED: "make a new token: `argosy token create`",
    Code.TOKEN_INVALID: "is it a token of this server? make a new one: `argosy token create`",
}


def parse_token(text: str) -> JoinToken:
    """Read a join token.

    Raises:
        UsageError: it is none.
    """
    try:
        return JoinToken.parse(text)
    except ValueError as error:
        raise UsageError(str(error), hint="make one with `argosy token create`") from error


def parse_server(url: str) -> str:
    """Check a server's address, and return it without a slash at its end.

    Raises:
        UsageError: it is no http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        msg = f"{url!r} is not a server's address"
        raise UsageError(msg, hint="it looks like https://argosy.example.org:8420")
    return url.rstrip("/")


def enroll(
    token: JoinToken,
    server: str,
    *,
    hardware: Hardware,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> NewIdentity:
    """Get an identity from a server.

    Raises:
        EnrollError: the server cannot be reached, refuses, or is not the pinned one.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    ca_pem = _fetch_ca(server)
    ca = _check_ca(ca_pem, token)
    body = EnrollRequest(token=str(token), csr_pem=_csr(key), hardware=hardware)
    with _client(server, ca_pem) as client:
        answer = _send(client, "POST", f"{server}/v1/enroll", body.model_dump_json())
    try:
        enrolled = Enrolled.model_validate_json(answer)
    except ValidationError as error:
        raise _not_argosy(server) from error
    _check_answer(enrolled, token, ca, key, now())
    return NewIdentity(
        record=IdentityRecord(
            device=enrolled.device,
            device_class=enrolled.device_class,
            broker=enrolled.broker,
            heartbeat_seconds=enrolled.heartbeat_seconds,
            server=server,
        ),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate_pem=enrolled.certificate_pem.encode(),
        ca_pem=ca.public_bytes(serialization.Encoding.PEM),
        root_json=enrolled.root_json.encode(),
        targets_json=enrolled.targets_json.encode(),
    )


def _fetch_ca(server: str) -> bytes:
    url = f"{server}/v1/trust/ca.pem"
    # Nothing secret is sent, and what comes is checked against the token's pin.
    with httpx.Client(verify=False, timeout=TIMEOUT_SECONDS) as client:  # noqa: S501 - see above
        return _send(client, "GET", url, limit=MAX_PEM_BYTES)


def _check_ca(pem: bytes, token: JoinToken) -> x509.Certificate:
    try:
        ca = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        msg = "the server's /v1/trust/ca.pem is not a certificate"
        raise EnrollError(msg, hint="is this an Argosy server?") from error
    if hashlib.sha256(ca.public_bytes(serialization.Encoding.DER)).hexdigest() != token.ca_sha256:
        msg = "the server's certificate authority is not the one in the token"
        raise EnrollError(msg, hint="wrong server, or somebody is in between; nothing was sent")
    return ca


def _client(server: str, ca_pem: bytes) -> httpx.Client:
    if server.startswith("http:"):
        return httpx.Client(timeout=TIMEOUT_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode("ascii", errors="strict"))
    return httpx.Client(verify=context, timeout=TIMEOUT_SECONDS)


def _send(
    client: httpx.Client,
    method: str,
    url: str,
    body: str | None = None,
    *,
    limit: int = MAX_ANSWER_BYTES,
) -> bytes:
    headers = {} if body is None else {"content-type": "application/json"}
    try:
        with client.stream(method, url, content=body, headers=headers) as response:
            data = bytearray()
            for part in response.iter_bytes():
                data += part
                if len(data) > limit:
                    msg = f"the answer of {url} is larger than {limit} bytes"
                    raise EnrollError(msg)
    except httpx.HTTPError as error:
        msg = f"cannot reach {url}: {error or type(error).__name__}"
        raise EnrollError(msg, hint="check --server, and that the server is up") from error
    if response.is_success:
        return bytes(data)
    raise _refused(url, response.status_code, bytes(data))


def _refused(url: str, status: int, data: bytes) -> EnrollError:
    try:
        problem = Problem.model_validate_json(data)
    except ValidationError:
        msg = f"{url} answered with status {status}"
        return EnrollError(msg, hint="is this an Argosy server?")
    kind = EnrollAuthError if problem.code in _AUTH else EnrollError
    hint = problem.hint or _HINTS.get(problem.code)
    return kind(f"the server refused: {problem.detail}", hint=hint)


def _not_argosy(server: str) -> EnrollError:
    return EnrollError(f"{server} did not answer as an Argosy server does")


def _csr(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "argosy-device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _check_answer(
    enrolled: Enrolled,
    token: JoinToken,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> None:
    root = enrolled.root_json.encode()
    if hashlib.sha256(root).hexdigest() != token.root_sha256:
        msg = "the server's trust root is not the one in the token"
        raise EnrollError(msg, hint="make a new token, and see who answers at --server")
    _check_ca(enrolled.ca_pem.encode(), token)
    try:
        Trust(root, enrolled.targets_json.encode())
    except TrustError as error:
        msg = f"the server's delegations do not hold: {error}"
        raise EnrollError(msg) from error
    _check_certificate(enrolled, ca, key, now)


def _check_certificate(
    enrolled: Enrolled, ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(enrolled.certificate_pem.encode())
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        msg = "the certificate was not issued by the pinned authority"
        raise EnrollError(msg) from error
    if certificate.public_key() != key.public_key():
        msg = "the certificate is for another key than this device's"
        raise EnrollError(msg)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [enrolled.device]:
        msg = "the certificate names another device"
        raise EnrollError(msg)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        msg = f"the certificate is not valid at {now:%Y-%m-%d %H:%M} UTC"
        raise EnrollError(msg, hint="set this device's clock")
