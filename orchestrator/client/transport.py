"""HTTP: one request, one typed answer or one error that says what to do."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.client.errors import (
    AnswerError,
    InterruptedAnswerError,
    Invalid,
    ProfileError,
    UnreachableError,
    refusal,
)
from orchestrator.client.profile import Profile, is_loopback
from schemas.errors import PROBLEM_TYPE, Code, Problem

T = TypeVar("T")
Params = Mapping[str, str | int | Sequence[str] | None]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
IDLE_SECONDS = 2.0
"""A connection that was idle for longer is not used again: the server ends its own after 5 s, and a
request that crosses with that end has no answer."""

UPLOAD_SECONDS = 120.0
"""Of one piece, or of the answer after the last."""

MAX_PROBLEM_BYTES = 256 * 1024
_PIECE = 64 * 1024


class Transport:
    """A connection to one platform.

    Args:
        profile: where it is, and the token.
        http: replaces the network; for tests.
    """

    def __init__(self, profile: Profile, http: httpx.BaseTransport | None = None) -> None:
        self.url = profile.url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {profile.token}", "Accept": "application/json"}
        self._verify = _trust(profile)
        self._http = http
        self._client = self._make(READ_SECONDS)

    def _make(self, read_seconds: float) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers=self._headers,
            verify=self._verify,
            transport=self._http,
            timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
            # A proxy set for the web does not lead to this machine itself.
            trust_env=not is_loopback(self.url),
        )

    def get(self, path: str, answer: type[T], params: Params | None = None) -> T:
        """Ask; ``answer`` is the type of what comes back."""
        return self._call("GET", path, answer, params=_present(params))

    def raw(self, path: str, params: Params | None = None) -> bytes:
        """Ask for a file, byte for byte."""
        return self._send("GET", path, params=_present(params)).content

    def post(
        self,
        path: str,
        answer: type[T],
        body: BaseModel | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Ask for a change."""
        content = None if body is None else body.model_dump_json()
        kind = {} if body is None else {"Content-Type": "application/json"}
        headers = {**kind, **(headers or {})}
        return self._call("POST", path, answer, content=content, headers=headers)

    def put(self, path: str, answer: type[T], source: Path) -> T:
        """Send a file, in pieces."""
        with source.open("rb") as file:
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(source.stat().st_size),
            }
            return self._call(
                "PUT",
                path,
                answer,
                content=iter(lambda: file.read(_PIECE), b""),
                headers=headers,
                timeout=httpx.Timeout(UPLOAD_SECONDS, connect=CONNECT_SECONDS),
            )

    def patch(
        self,
        path: str,
        answer: type[T],
        body: BaseModel,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Change what is named; nothing is said of what is None."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        content = body.model_dump_json(exclude_none=True)
        return self._call("PATCH", path, answer, content=content, headers=headers)

    def replace(self, path: str, answer: type[T], body: BaseModel) -> T:
        """Put something in the place of what is there."""
        headers = {"Content-Type": "application/json"}
        return self._call("PUT", path, answer, content=body.model_dump_json(), headers=headers)

    def delete(self, path: str, answer: type[T]) -> T | None:
        """Take something away; None where the platform says nothing more of it."""
        response = self._send("DELETE", path)
        return _parsed(response, answer) if response.content else None

    def _call(self, method: str, path: str, answer: type[T], **options: Any) -> T:
        return _parsed(self._send(method, path, **options), answer)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with _network_errors(self.url):
            response = self._client.request(method, path, **options)
        _refuse(response)
        return response

    @contextmanager
    def stream(
        self, path: str, params: Params, headers: Mapping[str, str], read_seconds: float
    ) -> Iterator[httpx.Response]:
        """Open an answer that goes on, on a connection of its own."""
        with (
            _network_errors(self.url),
            self._make(read_seconds) as client,
            client.stream("GET", path, params=_present(params), headers=dict(headers)) as response,
        ):
            if response.is_error:
                response.read()
            _refuse(response)
            yield response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _parsed(response: httpx.Response, answer: type[T]) -> T:
    try:
        # A newer platform may say more than is known here, inside a spec too.
        return TypeAdapter(answer).validate_json(response.content, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        asked = f"{response.request.method} {response.request.url.path}"
        detail = f"the answer of {asked} is not understood: {where} {first['msg']}"
        raise AnswerError(detail) from error


def _present(params: Params | None) -> dict[str, str | list[str]]:
    given = {key: value for key, value in (params or {}).items() if value is not None}
    return {
        key: str(value) if isinstance(value, str | int) else [str(one) for one in value]
        for key, value in given.items()
    }


def _trust(profile: Profile) -> ssl.SSLContext | bool:
    if profile.url.startswith("http://"):
        return False
    if profile.ca is None:
        return ssl.create_default_context()
    try:
        if profile.ca.startswith("-----BEGIN"):
            return ssl.create_default_context(cadata=profile.ca)
        return ssl.create_default_context(cafile=profile.ca)
    except (OSError, ValueError) as error:
        place = "the CA" if profile.ca.startswith("-----BEGIN") else profile.ca
        detail = f"{place} is not a readable PEM certificate"
        raise ProfileError(detail, hint="take ca.pem from the platform's home folder") from error


def _refuse(response: httpx.Response) -> None:
    if not response.is_error and not response.is_redirect:
        return
    problem = _problem(response)
    if problem is None:
        code = {401: Code.UNAUTHENTICATED, 403: Code.FORBIDDEN, 404: Code.NOT_FOUND}.get(
            response.status_code, Code.INTERNAL
        )
        target = f"{response.request.method} {response.request.url.path}"
        problem = Problem(
            title="refused",
            status=response.status_code,
            code=code,
            detail=f"{target} was answered {response.status_code} {response.reason_phrase}",
            hint="is this address really an Argosy platform?",
        )
    raise refusal(problem)


def _problem(response: httpx.Response) -> Problem | None:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind != PROBLEM_TYPE or len(response.content) > MAX_PROBLEM_BYTES:
        return None
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        detail = f"{str(error.object)[:80]!r} is not UTF-8 text"
        raise Invalid(detail, hint="check the terminal's encoding") from None
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if "certificate verify failed" in str(error).lower():
            detail = f"the certificate of {url} is not signed by the CA in the credentials"
            hint = "sign in again with `argosy login`, or take ca.pem from the platform's home"
            raise ProfileError(detail, hint=hint) from error
        raise UnreachableError(url) from error
    except httpx.TimeoutException as error:
        detail = f"{url} took the request and did not answer in time"
        raise InterruptedAnswerError(detail) from error
    except httpx.TransportError as error:
        detail = f"the connection to {url} broke: {error or type(error).__name__}"
        raise InterruptedAnswerError(detail) from error
