"""Letting simulated devices in: keys made here, certificates asked for over HTTPS, in parallel."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from orchestrator.client.errors import UnreachableError
from orchestrator.errors import Invalid, Unavailable, error_of
from orchestrator.simulator.identity import Folder, Record, serial_and_end
from orchestrator.simulator.profile import Kind
from schemas.device import Hardware
from schemas.enroll import Enrolled, EnrollPending, EnrollRequest, JoinToken
from schemas.errors import Problem

AGENT = "argosy-simulator"
_THREADS = 8
_TIMEOUT = 60.0
_ACCEPTED, _CREATED, _TOO_MANY, _AWAY = 202, 201, 429, 503
_LONGEST_WAIT = 60.0
_APPROVAL_SECONDS = 600.0
_ADDRESSES = 64
_MAX_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A device to be let in."""

    number: int
    kind: Kind
    token: str


def enroll_all(
    folder: Folder, server: str, newcomers: Sequence[Newcomer], tell: Callable[[int], None]
) -> None:
    """Enroll devices and keep their identities; each is written down as it is let in.

    Args:
        folder: where to.
        server: the platform's address.
        newcomers: who.
        tell: called with how many are done.

    Raises:
        ArgosyError: the server is not there, is not the one that a token pins, or refuses.
    """
    if not newcomers:
        return
    tokens = {one.token: _parsed(one.token) for one in newcomers}
    context = _trust(server, list(tokens.values()))
    pool = _Pool(server, context)
    done = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        asked = [threads.submit(_let_in, pool, folder, server, one) for one in newcomers]
        try:
            for one in as_completed(asked):
                one.result()
                done += 1
                tell(done)
        except BaseException:
            pool.stopped.set()
            for other in asked:
                other.cancel()
            raise
        finally:
            pool.close()


def _parsed(text: str) -> JoinToken:
    try:
        return JoinToken.parse(text)
    except ValueError as error:
        raise Invalid(str(error), hint="make one with `argosy token create`") from error


def check_roots(server: str, pem: bytes) -> None:
    """See that identities of an earlier run are of the platform that answers now.

    Raises:
        UnreachableError: nobody answers.
        Invalid: another one stands at that address, which would refuse every device.
    """
    there, kept = _ders(_roots(server)[1]), _ders(x509.load_pem_x509_certificates(pem))
    if not there & kept:
        detail = f"the devices that are kept were let in by another platform than {server} is now"
        raise Invalid(detail, hint="name another folder with --state, or delete the one there is")


def _roots(server: str) -> tuple[bytes, list[x509.Certificate]]:
    """The authorities that a server names: as PEM, and read."""
    with httpx.Client(verify=False, timeout=_TIMEOUT, trust_env=False) as anybody:  # noqa: S501 - the answer is checked against what is pinned
        try:
            pem = anybody.get(f"{server}/v1/trust/ca.pem").raise_for_status().content
            return pem, x509.load_pem_x509_certificates(pem)
        except httpx.HTTPError as error:
            raise UnreachableError(server) from error
        except ValueError as error:
            detail = f"{server} does not answer as an Argosy platform does"
            raise Invalid(detail) from error


def _ders(roots: Sequence[x509.Certificate]) -> set[bytes]:
    return {root.public_bytes(serialization.Encoding.DER) for root in roots}


def _trust(server: str, tokens: Sequence[JoinToken]) -> ssl.SSLContext:
    """TLS that trusts the authority which the tokens pin, and nothing else."""
    pem, roots = _roots(server)
    ders = _ders(roots)
    for token in tokens:
        digests = (hashlib.sha256(der).hexdigest() for der in ders)
        if not any(hmac.compare_digest(digest, token.ca_sha256) for digest in digests):
            detail = "the platform's certificate authority is not the one in the token"
            raise Invalid(detail, hint="is the token of another platform?")
    return ssl.create_default_context(cadata=pem.decode())


class _Pool:
    """HTTP clients, one for each thread.

    A server on loopback is asked from many loopback addresses, where the system has them: the
    devices stand for as many machines, and the limit of one address is not meant for a fleet.
    """

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self._server, self._context = server, context
        self._local = threading.local()
        self._clients: list[httpx.Client] = []
        self._loopback = _is_loopback(server)
        self.stopped = threading.Event()

    def client(self, number: int) -> httpx.Client:
        """The client of this thread for the device of that number."""
        place = number % _ADDRESSES if self._loopback else 0
        clients = self._local.__dict__.setdefault("clients", {})
        if place not in clients:
            address = f"127.0.{1 + place // 250}.{1 + place % 250}" if self._loopback else None
            transport = httpx.HTTPTransport(verify=self._context, local_address=address)
            clients[place] = httpx.Client(
                base_url=self._server, transport=transport, timeout=_TIMEOUT, trust_env=False
            )
            self._clients.append(clients[place])
        found: httpx.Client = clients[place]
        return found

    def close(self) -> None:
        """Close them all."""
        for client in self._clients:
            client.close()


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.version != 4 or not address.is_loopback:  # noqa: PLR2004 - IP version
        return False
    try:  # macOS has only the first one
        with socket.socket() as probe:
            probe.bind(("127.0.1.1", 0))
    except OSError:
        return False
    return True


def _let_in(pool: _Pool, folder: Folder, server: str, one: Newcomer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    hardware = Hardware(**one.kind.board.model_dump(), agent=AGENT)
    body = EnrollRequest(token=one.token, csr_pem=csr, hardware=hardware).model_dump_json()
    enrolled = _ask(pool, server, body.encode(), one.number)
    serial, end = serial_and_end(enrolled.certificate_pem)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    record = Record(
        number=one.number,
        device=enrolled.device,
        device_class=enrolled.device_class,
        serial=serial,
        server=server,
        broker=enrolled.broker,
        heartbeat_seconds=enrolled.heartbeat_seconds,
        expires=end,
    )
    folder.save(record, key_pem, enrolled.certificate_pem, enrolled.ca_pem)


def _ask(pool: _Pool, server: str, body: bytes, number: int) -> Enrolled:
    """Ask until there is an identity, as long as the server only puts it off."""
    deadline = time.monotonic() + _APPROVAL_SECONDS
    headers = {"content-type": "application/json"}
    failures = 0
    while True:
        try:
            answer = pool.client(number).post("/v1/enroll", content=body, headers=headers)
        except httpx.HTTPError as error:
            # The same request again is the same device, so a connection that broke costs nothing.
            failures += 1
            if failures > _MAX_FAILURES or pool.stopped.wait(failures):
                raise UnreachableError(server) from error
            continue
        failures = 0
        try:
            if answer.status_code == _CREATED:
                return Enrolled.model_validate_json(answer.content)
            if answer.status_code == _ACCEPTED:
                wait = EnrollPending.model_validate_json(answer.content).retry_seconds
            elif answer.status_code in {_TOO_MANY, _AWAY}:
                wait = float(answer.headers.get("retry-after", "5"))
            else:
                problem = Problem.model_validate_json(answer.content)
                raise error_of(problem.code, problem.detail, hint=problem.hint)
        except (ValidationError, ValueError) as error:
            detail = f"{server} does not answer as an Argosy platform does"
            raise Invalid(detail) from error
        if time.monotonic() + wait > deadline:
            detail = "a device was not let in within 10 minutes"
            raise Unavailable(detail, hint="approve them, or use a token that needs no approval")
        if pool.stopped.wait(min(wait, _LONGEST_WAIT)):
            detail = "stopped"
            raise Unavailable(detail)
