"""The orchestrator's HTTP API, as far as the workers need it."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from schemas.api import Stored
from schemas.errors import Code, Problem
from schemas.job import (
    AgentOutcome,
    Capacity,
    ClaimRequest,
    Heartbeat,
    HeartbeatReply,
    JobClaim,
    JobOrder,
    JobProgress,
)
from schemas.measure import MAX_FILE_BYTES
from schemas.model import Manifest, VersionNumber
from workers.errors import ApiError, ApiUnavailableError, LeaseLostError, RefusedError, UsageError
from workers.settings import Connection

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=BaseModel)

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
TRANSFER_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
MAX_ANSWER = 8 * 1024**2
SERVER_ERROR = 500
NO_CONTENT = 204
TOO_MANY = 429

_CHANCE = random.Random()  # noqa: S311 - jitter, no secret; a task's own draws stay its own

PATIENCE = 1800.0
"""Seconds for which a driver offers what it made to a server that is away."""

TELL_SECONDS = 15.0
"""How often it says that it still tries."""


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

    def claim(self, agent: str, capacity: Capacity | None = None) -> JobClaim | None:
        """A job to run, or None when there is none. capacity: of the agent's cluster."""
        body = ClaimRequest(agent=agent, capacity=capacity)
        response = self._send("POST", "/v1/worker/claim", body, tries=1)
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

    def order(self, job: str) -> JobOrder:
        """What a driver is to do; its job's token is needed."""

        def request() -> httpx.Response:
            return self._http.get(f"/v1/jobs/{job}/order")

        return _read(self._retry(request, self._tries, self._patience), JobOrder)

    def artifact(self, sha256: str, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> int:
        """Fetch an artifact into a file, whole or not at all; its size in bytes.

        Raises:
            ApiError: it is larger than ``max_bytes``, or has another hash.
        """

        def request() -> httpx.Response:
            where = f"/v1/artifacts/{sha256}"
            plain = {"Accept-Encoding": "identity"}
            asked = self._http.stream("GET", where, headers=plain, timeout=TRANSFER_TIMEOUT)
            with asked as response:
                if response.is_success:
                    _save(response, sha256, path, max_bytes)
                else:
                    response.read()
                return response

        self._retry(request, self._tries, self._patience)
        return path.stat().st_size

    def upload(self, sha256: str, path: Path) -> Stored:
        """Store a file under its hash."""

        def request() -> httpx.Response:
            with path.open("rb") as file:
                return self._http.put(
                    f"/v1/artifacts/{sha256}",
                    content=file,
                    headers={"Content-Length": str(path.stat().st_size)},
                    timeout=TRANSFER_TIMEOUT,
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
        attempt, told = 0, self._clock()
        while attempt < tries or self._clock() < until:
            if attempt > 0:
                self._wait(backoff(attempt, _CHANCE.random()))
            attempt += 1
            try:
                response = request()
            except httpx.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < SERVER_ERROR and response.status_code != TOO_MANY:
                    return _checked(response)
                problem = f"it answered {response.status_code}"
            if patience > 0 and self._clock() - told >= TELL_SECONDS:
                told = self._clock()
                log.warning("cannot use the server: %s; trying again", problem)
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


def _save(response: httpx.Response, sha256: str, path: Path, max_bytes: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(response, file, sha256, max_bytes)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _copy(response: httpx.Response, file: IO[bytes], sha256: str, max_bytes: int) -> None:
    digest, size = hashlib.sha256(), 0
    for block in response.iter_raw():
        size += len(block)
        if size > max_bytes:
            msg = f"artifact {sha256} has more than {max_bytes} bytes"
            raise ApiError(msg)
        digest.update(block)
        file.write(block)
    if digest.hexdigest() != sha256:
        msg = f"artifact {sha256} came with other bytes: the server's copy is damaged"
        raise ApiError(msg, "upload it again")


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
