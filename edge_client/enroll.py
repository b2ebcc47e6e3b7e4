"""Enrollment: from a join token to an identity, through a network nobody trusts.

The token pins the certificate authority and the trust root by their SHA-256. The authority is
fetched without verification and checked against the pin; then the server must show a TLS
certificate of that authority, or one that is valid for its name by the system's roots, before
the token is sent to it. The key is made here and never leaves.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import random
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edge_client import certificates
from edge_client.errors import (
    CertificateError,
    EnrollError,
    EnrollPendingError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from edge_client.https import Server, Via, get_unverified
from edge_client.identity import IdentityRecord, NewIdentity
from schemas.device import Hardware
from schemas.enroll import Enrolled, EnrollPending, EnrollRequest, JoinToken, fingerprint
from schemas.errors import Code

MAX_PEM_BYTES = 64 * 1024
MAX_PASTE = 4096
ACCEPTED = 202
AGAIN_SECONDS = 5.0
"""Between two questions, when the server does not say."""

_TOKEN = re.compile(r"(?<![A-Za-z0-9_.-])aj1\.tok_[^\s'\"]+")
_MADE = "make one with `argosy token create`"


@dataclass(frozen=True, slots=True)
class Pasted:
    """A join token, and the server that stood beside it."""

    token: JoinToken
    server: str | None


def parse_token(text: str) -> JoinToken:
    """Read a join token.

    Raises:
        UsageError: it is none.
    """
    try:
        return JoinToken.parse(text)
    except ValueError as error:
        raise UsageError(str(error), hint=_MADE) from error


def parse_pasted(text: str) -> Pasted:
    """Read a join token, or the whole command that it was shown in.

    Raises:
        UsageError: it holds no token, or more than one, or more than one server.
    """
    text = text.strip()
    if len(text) > MAX_PASTE:
        msg = f"not a join token: {len(text)} characters"
        raise UsageError(msg, hint=_MADE)
    tokens = sorted(set(_TOKEN.findall(text)))
    if tokens == [text] or not tokens:
        return Pasted(parse_token(text), None)
    if len(tokens) > 1:
        msg = f"there are {len(tokens)} join tokens in what was given; give one"
        raise UsageError(msg)
    servers = _servers(text)
    if len(servers) > 1:
        msg = f"there are {len(servers)} servers in what was given: {', '.join(sorted(servers))}"
        raise UsageError(msg, hint="give the token alone, and --server")
    return Pasted(parse_token(tokens[0]), next(iter(servers), None))


def _servers(text: str) -> set[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        msg = f"what was given cannot be read as a command: {error}"
        raise UsageError(msg, hint="give the token alone, and --server") from error
    found = {word.removeprefix("--server=") for word in words if word.startswith("--server=")}
    return found | {b for a, b in pairwise(words) if a == "--server"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How to wait for an operator.

    seconds: how long. tell: called with each new thing that the server says. sleep, clock: of
    steady seconds. draw: 0..1, so that a fleet does not ask at once.
    """

    seconds: float
    tell: Callable[[EnrollPending], None]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random


def enroll(
    token: JoinToken,
    url: str,
    key: ec.EllipticCurvePrivateKey,
    csr_pem: str,
    *,
    hardware: Hardware,
    waiting: Waiting,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> NewIdentity:
    """Get an identity from a server.

    Args:
        token: pins whom to believe.
        url: the server's, as ``https.parse_server`` returns it.
        key: the device's.
        csr_pem: the request for it.
        hardware: what the device is.
        waiting: for an operator's approval.
        now: tells the date.

    Raises:
        ServerError: the server cannot be reached, refuses, or is not the pinned one.
        CertificateError, EnrollError: what it answers is not to be believed.
        EnrollPendingError: nobody approved the device in time.
    """
    roots = _fetch_roots(url)
    pinned = _pinned(roots, token)
    certificates.check_time(certificates.life_of(pinned), now(), "the platform's authority")
    server = Server(url, certificates.to_pem([pinned]))
    body = EnrollRequest(token=str(token), csr_pem=csr_pem, hardware=hardware)
    pending, answer = _ask(server, body.model_dump_json(), key, waiting)
    try:
        enrolled = Enrolled.model_validate_json(answer)
    except ValidationError as error:
        raise _not_argosy(url) from error
    if pending is not None and enrolled.device != pending.device:
        msg = f"the server approved {pending.device}, and answered with {enrolled.device}"
        raise EnrollError(msg, hint="ask the operator which devices were approved")
    believed = _check_answer(enrolled, token, server.via or Via.NOTHING, key, now())
    return NewIdentity(
        record=IdentityRecord(
            device=enrolled.device,
            device_class=enrolled.device_class,
            broker=enrolled.broker,
            heartbeat_seconds=enrolled.heartbeat_seconds,
            server=url,
            token=token.id,
        ),
        key_pem=certificates.key_pem(key),
        certificate_pem=enrolled.certificate_pem.encode(),
        ca_pem=certificates.to_pem(believed),
        root_json=enrolled.root_json.encode(),
    )


def _fetch_roots(url: str) -> list[x509.Certificate]:
    pem = get_unverified(f"{url}/v1/trust/ca.pem", limit=MAX_PEM_BYTES)
    return _roots(pem, "the server's /v1/trust/ca.pem")


def _roots(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return certificates.read_certificates(pem, what)
    except CertificateError as error:
        raise EnrollError(str(error), hint="is this an Argosy server?") from error


def _pinned(roots: list[x509.Certificate], token: JoinToken) -> x509.Certificate:
    for root in roots:
        if hmac.compare_digest(certificates.digest(root), token.ca_sha256):
            return root
    msg = "the server's certificate authority is not the one in the token"
    raise EnrollError(msg, hint="wrong server, or somebody is in between; nothing was sent")


def _ask(
    server: Server, body: str, key: ec.EllipticCurvePrivateKey, waiting: Waiting
) -> tuple[EnrollPending | None, bytes]:
    """Ask until there is an answer. A server that was heard once may be away for a while."""
    until = waiting.clock() + waiting.seconds
    pending: EnrollPending | None = None
    while True:
        try:
            answer = server.post("/v1/enroll", body)
            if answer.status != ACCEPTED:
                return pending, answer.data
            pending = _pending(server.url, answer.data, key, pending, waiting)
            pause = pending.retry_seconds
        except RefusedError as error:
            if error.code not in {Code.TOO_MANY, Code.UNAVAILABLE}:
                raise
            if waiting.clock() >= until:
                raise
            pause = error.retry_after or AGAIN_SECONDS
        except UnreachableError:
            if pending is None or waiting.clock() >= until:
                raise
            pause = pending.retry_seconds
        left = until - waiting.clock()
        if left <= 0:
            raise _not_yet(pending)
        waiting.sleep(min(left, pause * (0.75 + waiting.draw() / 2)))


def _pending(
    url: str,
    data: bytes,
    key: ec.EllipticCurvePrivateKey,
    before: EnrollPending | None,
    waiting: Waiting,
) -> EnrollPending:
    try:
        pending = EnrollPending.model_validate_json(data)
    except ValidationError as error:
        raise _not_argosy(url) from error
    if pending.fingerprint != fingerprint(certificates.spki_sha256(key)):
        msg = "the server waits for the approval of another key than this device's"
        raise EnrollError(msg, hint="see who answers at --server")
    if before is None or before.device != pending.device:
        waiting.tell(pending)
    return pending


def _not_yet(pending: EnrollPending | None) -> EnrollPendingError:
    who = "the device" if pending is None else pending.device
    hint = "give the same command again: it goes on with the same key"
    return EnrollPendingError(f"nobody has approved {who} yet", hint=hint)


def _not_argosy(url: str) -> EnrollError:
    return EnrollError(f"{url} did not answer as an Argosy server does")


def _check_answer(
    enrolled: Enrolled,
    token: JoinToken,
    via: Via,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> list[x509.Certificate]:
    """Check what is to be kept. Returns the roots that are believed.

    Other roots than the pinned one, as during a rotation, are believed only from a server
    that the pinned one vouches for; the device learns the rest later, over MQTT.
    """
    root = hashlib.sha256(enrolled.root_json.encode()).hexdigest()
    if not hmac.compare_digest(root, token.root_sha256):
        msg = "the server's trust root is not the one in the token"
        raise EnrollError(msg, hint="make a new token, and see who answers at --server")
    roots = _roots(enrolled.ca_pem.encode(), "the server's list of authorities")
    pinned = _pinned(roots, token)
    chain = certificates.read_certificates(enrolled.certificate_pem.encode(), "the certificate")
    certificates.check_issued(chain, roots, key=key, device=enrolled.device, now=now)
    return roots if via in {Via.PINNED, Via.LOOPBACK} else [pinned]
