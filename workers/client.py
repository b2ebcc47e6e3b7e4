"""The orchestrator's HTTP API, as far as the workers need it."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from schemas.api import Stored
from schemas.errors import Code, Problem
from schemas.job import (
    AgentOutcome,
    ClaimRequest,
    Heartbeat,
    HeartbeatReply,
    JobClaim,
    JobProgress,
)
from schemas.model import Manifest, VersionNumber
from workers.errors import ApiError, ApiUnavailableError, LeaseLostError, RefusedError, UsageError
from workers.settings import Connection

Answer = TypeVar("Answer", bound=BaseModel)

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
MAX_ANSWER = 8 * 1024**2
SERVER_ERROR = 500
NO_CONTENT = 204
TOO_MANY = 429

PATIENCE = 1800.0
"""Seconds for which a driver offers what it made to a server that is away."""


def backoff(attempt: int, chance: float, *, base: float = 0.2, cap: float = 5.0) -> float:
    """Seconds to wait before try ``attempt`` + 1: exponential with full jitter.

    attempt: from 1. chance: 0..1, drawn by the caller.
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 30))
    return ceiling * (0.5 + 0.5 * chance)


class Api:
    """One connection to the orchestrator.

    Every request but ``claim`` is repeated on transport errors, 429 and 5xx: each is
    idempotent by its content. A claim that was lost on the way runs out by itself.

    Args:
        connection: where, and with which token.
        tries: how often to ask, at least, before ``ApiUnavailableError``.
        patience: seconds for which ``upload`` and ``register`` are tried on: they carry
            what hours of training made.
        wait: how to wait between tries.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        tries: int = 6,
        patience: float = 0.0,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tries = tries
        self._patience = patience
        self._clock = clock
        self._wait = wait or threading.Event().wait
        self._http = httpx.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}", "User-Agent": "argosy-worker"},
            timeout=TIMEOUT,
            verify=_trust(connection.ca),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def claim(self, agent: str) -> JobClaim | None:
        """A job to run, or None when there is none."""
        response = self._send("POST", "/v1/worker/claim", ClaimRequest(agent=agent), tries=1)
        return None if response.status_code == NO_CONTENT else _read(response, JobClaim)

    def heartbeat(self, claim: JobClaim) -> HeartbeatReply:
        """Keep the lease; says whether to cancel."""
        body = Heartbeat(attempt=claim.attempt, lease=claim.lease)
        # One try: the next heartbeat is the retry.
        path = f"/v1/worker/jobs/{claim.id}/heartbeat"
        return _read(self._send("POST", path, body, tries=1), HeartbeatReply)

    def outcome(self, job: str, outcome: AgentOutcome) -> None:
        """Say how a driver ended that did not say so itself."""
        self._send("POST", f"/v1/worker/jobs/{job}/outcome", outcome)

    def progress(self, job: str, progress: JobProgress) -> HeartbeatReply:
        """A driver's report."""
        # One try: the reporter repeats it, and looks at its lease in between.
        path = f"/v1/jobs/{job}/progress"
        return _read(self._send("POST", path, progress, tries=1), HeartbeatReply)

    def upload(self, sha256: str, path: Path) -> Stored:
        """Store a file under its hash."""

        def request() -> httpx.Response:
            with path.open("rb") as file:
                return self._http.put(
                    f"/v1/artifacts/{sha256}",
                    content=file,
                    headers={"Content-Length": str(path.stat().st_size)},
                    timeout=UPLOAD_TIMEOUT,
                )

        return _read(self._retry(request, self._tries, self._patience), Stored)

    def register(self, manifest: Manifest) -> VersionNumber:
        """Make a version of a model; the same manifest twice gives the same number."""
        path = f"/v1/models/{manifest.model}/versions"
        return _read(self._send("POST", path, manifest, patience=self._patience), VersionNumber)

    def _send(
        self,
        method: str,
        path: str,
        body: BaseModel,
        *,
        tries: int | None = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        content = body.model_dump_json().encode()
        headers = {"Content-Type": "application/json"}

        def request() -> httpx.Response:
            return self._http.request(method, path, content=content, headers=headers)

        return self._retry(request, tries or self._tries, patience)

    def _retry(
        self, request: Callable[[], httpx.Response], tries: int, patience: float
    ) -> httpx.Response:
        problem = "no answer"
        until = self._clock() + patience
        attempt = 0
        while attempt < tries or self._clock() < until:
            if attempt > 0:
                self._wait(backoff(attempt, random.random()))  # noqa: S311 - jitter, no secret
            attempt += 1
            try:
                response = request()
            except httpx.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < SERVER_ERROR and response.status_code != TOO_MANY:
                    return _checked(response)
                problem = f"it answered {response.status_code}"
        msg = f"cannot use {self._http.base_url}: {problem} ({attempt} tries)"
        raise ApiUnavailableError(msg, "check that the server runs")


def _trust(ca: str | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        if ca.startswith("-----BEGIN"):
            return ssl.create_default_context(cadata=ca)
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        msg = f"cannot use the CA certificate {ca[:200]}: {error}"
        raise UsageError(msg, "give the path of a PEM file") from error


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    problem = _problem(response)
    kind = LeaseLostError if problem.code is Code.LEASE_LOST else RefusedError
    message = f"{response.request.method} {response.request.url.path}: {problem.detail}"
    raise kind(
        message,
        status=response.status_code,
        code=problem.code,
        hint=problem.hint,
    )


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content[:MAX_ANSWER])
    except ValidationError:
        return Problem(
            title="refused",
            status=response.status_code,
            code=Code.INTERNAL,
            detail=f"answered {response.status_code} without saying why",
        )


def _read(response: httpx.Response, kind: type[Answer]) -> Answer:
    content: Any = response.content
    if len(content) > MAX_ANSWER:
        msg = f"{response.request.url.path}: the answer has {len(content)} bytes"
        raise ApiError(msg)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"{response.request.url.path}: not a {kind.__name__}: {where}: {first['msg']}"
        raise ApiError(msg, "check that this is an Argosy server of the same version") from error
