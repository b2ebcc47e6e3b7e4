"""The server's HTTPS routes, as a device calls them before it has, or without, MQTT.

The server's certificate may be from the roots that the device trusts, or be valid for the host
by the system's roots, as behind a proxy. One of the two must hold before anything is sent.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from edge_client.errors import (
    NotAdmittedError,
    RefusedError,
    ServerError,
    UnreachableError,
    UsageError,
)
from schemas.errors import Code, Problem

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 8 * 1024**2
TIMEOUT_SECONDS = 20.0
WHOLE_SECONDS = 60.0
"""An answer that trickles is given up after this long."""

MAX_RETRY_AFTER = 3600.0
_HTTP_OK = 200
_TOO_MANY, _UNAVAILABLE = 429, 503
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_ADMITTED = frozenset(
    {
        Code.TOKEN_INVALID,
        Code.TOKEN_EXPIRED,
        Code.TOKEN_SPENT,
        Code.UNAUTHENTICATED,
        Code.FORBIDDEN,
        Code.REVOKED,
        Code.REJECTED,
    }
)
_HINTS = {
    Code.TOKEN_SPENT: "make a new token: `argosy token create`",
    Code.TOKEN_EXPIRED: "make a new token: `argosy token create`",
    Code.TOKEN_INVALID: "is it a token of this server? make a new one: `argosy token create`",
}
# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED = 9, 10


class Via(StrEnum):
    """By what a connection can be believed."""

    PINNED = "pinned"
    SYSTEM = "system"
    LOOPBACK = "loopback"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """status: below 300."""

    status: int
    data: bytes


def parse_server(url: str, *, insecure_http: bool = False) -> str:
    """Check a server's address, and return it without a slash at its end.

    Raises:
        UsageError: it is no http or https URL, or http beyond this machine.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.query
        _ = parts.port
    except ValueError:
        usable = False
    if not usable or parts.username or parts.fragment:
        msg = f"{url!r} is not a server's address"
        raise UsageError(msg, hint="it looks like https://argosy.example.org:8420")
    if parts.scheme == "http" and not (is_loopback(url) or insecure_http):
        msg = f"{url} is not encrypted: whoever is on the way could read the join token"
        hint = "use https://, or --insecure-http on a network that you trust in full"
        raise UsageError(msg, hint=hint)
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """A server that is believed before anything is sent.

    Args:
        url: as ``parse_server`` returns it.
        roots_pem: authorities that count besides the system's.
    """

    def __init__(self, url: str, roots_pem: bytes) -> None:
        self.url = url
        self._roots = roots_pem
        self.via: Via | None = None
        if url.startswith("http:"):
            self.via = Via.LOOPBACK if is_loopback(url) else Via.NOTHING

    def post(self, path: str, body: str) -> Answer:
        """Send JSON.

        Raises:
            UnreachableError: nothing came back, or not all.
            RefusedError: the server said no.
            ServerError: it is not the one to trust, or no Argosy server.
        """
        return self._ask(path, body)

    def believed(self) -> ssl.SSLContext | bool:
        """What to check further connections with; if nobody knows yet, it is tried first.

        Raises:
            ServerError: as for ``post``.
        """
        if self.via is None:
            self._ask("/v1/health", None)
        return self._verify(self.via or Via.PINNED)

    def _ask(self, path: str, body: str | None) -> Answer:
        if self.via is not None:
            return _call(self.url + path, body, verify=self._verify(self.via))
        reasons: list[str] = []
        codes: set[int] = set()
        for via in (Via.PINNED, Via.SYSTEM):
            try:
                answer = _call(self.url + path, body, verify=self._verify(via))
            except _NotTrustedError as error:
                reasons.append(error.reason)
                codes.add(error.code)
                continue
            except RefusedError:
                self.via = via
                raise
            self.via = via
            return answer
        raise _not_trusted(self.url, reasons, codes)

    def _verify(self, via: Via) -> ssl.SSLContext | bool:
        if via in {Via.LOOPBACK, Via.NOTHING}:
            return False
        if via is Via.SYSTEM:
            return ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self._roots.decode("ascii", errors="strict"))
        return context


def get_unverified(url: str, *, limit: int) -> bytes:
    """Fetch what is checked against a pin afterwards; nothing secret is sent.

    Raises:
        ServerError: as for ``Server.post``.
    """
    return _call(url, None, verify=False, limit=limit).data


class _NotTrustedError(ServerError):
    def __init__(self, error: ssl.SSLCertVerificationError) -> None:
        self.reason, self.code = error.verify_message, error.verify_code
        super().__init__(self.reason)


def _not_trusted(url: str, reasons: list[str], codes: set[int]) -> ServerError:
    own, system = reasons
    msg = (
        f"the TLS certificate of {url} is neither of the platform's authority ({own})"
        f" nor valid by this system's roots ({system}); nothing was sent"
    )
    if codes & {_NOT_YET_VALID, _EXPIRED}:
        return ServerError(msg, hint="is this device's clock right? set it, then try again")
    return ServerError(msg, hint="is --server the name that the certificate is for?")


def _call(
    url: str, body: str | None, *, verify: ssl.SSLContext | bool, limit: int = MAX_ANSWER_BYTES
) -> Answer:
    import httpx  # noqa: PLC0415 - 6 MB that an agent which is connected does without

    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"content-type": "application/json"}
    try:
        with (
            httpx.Client(verify=verify, timeout=TIMEOUT_SECONDS) as client,
            client.stream(method, url, content=body, headers=headers) as response,
        ):
            data = b"".join(_limited(response, url, limit))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        cause = _verification(error)
        if cause is not None:
            raise _NotTrustedError(cause) from error
        msg = f"cannot reach {url}: {error or type(error).__name__}"
        raise UnreachableError(msg, hint="check --server, and that the server is up") from error
    if response.is_success:
        return Answer(response.status_code, data)
    raise refusal_of(url, response, data)


def _limited(response: httpx.Response, url: str, limit: int) -> Iterator[bytes]:
    size, until = 0, time.monotonic() + WHOLE_SECONDS
    for part in response.iter_bytes():
        size += len(part)
        if size > limit:
            msg = f"the answer of {url} is larger than {limit} bytes"
            raise ServerError(msg)
        if time.monotonic() > until:
            msg = f"{url} did not answer in {WHOLE_SECONDS:g} s"
            raise UnreachableError(msg)
        yield part


def _verification(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """What TLS said, under the layers of the HTTP library."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return found
        found = found.__cause__ or found.__context__
    return None


def refusal_of(url: str, response: httpx.Response, data: bytes) -> ServerError:
    """What an answer that is no success means. ``data``: its body."""
    status = response.status_code
    try:
        problem = Problem.model_validate_json(data)
    except ValidationError:
        if status in _REDIRECTS:
            msg = f"{url} points to {response.headers.get('location', 'another address')[:200]!r}"
            return ServerError(msg, hint="give that server's address as --server")
        msg = f"{url} answered with status {status}"
        if status >= 500 or status == _TOO_MANY:  # noqa: PLR2004 - a server's own errors
            return UnreachableError(msg, hint="the server, or a proxy before it, is not ready")
        return ServerError(msg, hint="is this an Argosy server?")
    kind = NotAdmittedError if problem.code in _NOT_ADMITTED else RefusedError
    return kind(
        f"the server refused: {problem.detail}",
        problem.code,
        hint=problem.hint or _HINTS.get(problem.code),
        retry_after=retry_after(response.headers.get("retry-after")),
    )


def retry_after(text: str | None) -> float | None:
    """Seconds (RFC 9110, 10.2.3); a date is not read."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 6:  # noqa: PLR2004 - digits
        return None
    return min(float(text), MAX_RETRY_AFTER)
