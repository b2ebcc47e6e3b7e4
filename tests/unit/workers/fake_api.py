"""A small real HTTP server with the worker's part of the API, over a dict.

It keeps the contract of docs/architecture.md: schemas types both ways, leases,
problem documents, idempotent progress, artifacts by hash.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.api import Stored
from schemas.dataset import DatasetProfile
from schemas.errors import PROBLEM_TYPE, Code, Problem
from schemas.ids import new_id
from schemas.job import (
    TERMINAL_JOB_STATES,
    AgentOutcome,
    Capacity,
    ClaimRequest,
    Heartbeat,
    HeartbeatReply,
    JobCause,
    JobClaim,
    JobOrder,
    JobProgress,
    JobState,
    Live,
    LogLine,
    MetricPoint,
    Trial,
    Usage,
)
from schemas.jobfile import JobSpec
from schemas.model import Manifest, VersionNumber

AGENT_TOKEN = "arg_agent"
RETRYABLE = {JobCause.DRIVER_DIED, JobCause.LEASE_EXPIRED}


class RefusedRequestError(Exception):
    def __init__(self, status: int, code: Code, detail: str) -> None:
        self.problem = Problem(title=code, status=status, code=code, detail=detail)


class FakeJob:
    def __init__(self, spec: JobSpec) -> None:
        self.id = new_id("job")
        self.spec = spec
        self.state = JobState.QUEUED
        self.attempt = 0
        self.lease = ""
        self.token = ""
        self.cancel = False
        self.seqs: list[int] = []
        self.states: list[tuple[int, JobState]] = []
        self.metrics: list[MetricPoint] = []
        self.logs: list[LogLine] = []
        self.cause: JobCause | None = None
        self.detail: str | None = None
        self.version: int | None = None
        self.notice: str | None = None
        self.notices: list[str] = []
        self.live: list[Live] = []
        self.usage: dict[int, Usage] = {}
        self.profile: DatasetProfile | None = None
        self.trials: tuple[Trial, ...] = ()
        self.outcomes: list[AgentOutcome] = []
        self.heartbeats = 0


class FakeApi:
    """The server. changed: notified after every request that changed something."""

    def __init__(self, lease_seconds: float = 6.0) -> None:
        self.lease_seconds = lease_seconds
        self.jobs: dict[str, FakeJob] = {}
        self.artifacts: dict[str, bytes] = {}
        self.models: dict[str, list[Manifest]] = {}
        self.failures: list[int] = []
        self.requests: list[str] = []
        self.capacities: list[Capacity | None] = []
        self.changed = threading.Condition()
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def submit(self, spec: JobSpec) -> FakeJob:
        with self.changed:
            job = FakeJob(spec)
            self.jobs[job.id] = job
            return job

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        with self.changed:
            return bool(self.changed.wait_for(condition, seconds))

    def write_worker_json(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "worker.json").write_text(json.dumps({"url": self.url, "token": AGENT_TOKEN}))

    # -- routes ------------------------------------------------------------------

    def route(
        self, method: str, path: str, token: str, body: bytes
    ) -> tuple[int, BaseModel | bytes | None]:
        if method == "POST" and path == "/v1/worker/claim":
            return self._claim(token, ClaimRequest.model_validate_json(body))
        if found := re.fullmatch(r"/v1/worker/jobs/(\w+)/heartbeat", path):
            return self._heartbeat(self._job(found[1]), token, Heartbeat.model_validate_json(body))
        if found := re.fullmatch(r"/v1/worker/jobs/(\w+)/outcome", path):
            return self._outcome(self._job(found[1]), token, AgentOutcome.model_validate_json(body))
        if found := re.fullmatch(r"/v1/jobs/(\w+)/progress", path):
            return self._progress(self._job(found[1]), token, JobProgress.model_validate_json(body))
        if found := re.fullmatch(r"/v1/jobs/(\w+)/order", path):
            return self._order(self._job(found[1]), token)
        if found := re.fullmatch(r"/v1/artifacts/([0-9a-f]{64})", path):
            if method == "GET":
                return self._fetch(found[1], token)
            return self._store(found[1], token, body)
        if found := re.fullmatch(r"/v1/models/([a-z0-9-]+)/versions", path):
            return self._register(found[1], token, Manifest.model_validate_json(body))
        raise RefusedRequestError(404, Code.NOT_FOUND, f"no route {method} {path}")

    def _job(self, job_id: str) -> FakeJob:
        if job_id not in self.jobs:
            raise RefusedRequestError(404, Code.NOT_FOUND, f"no job {job_id}")
        return self.jobs[job_id]

    def _require(self, ok: object) -> None:
        if not ok:
            raise RefusedRequestError(401, Code.UNAUTHENTICATED, "the token is not valid here")

    def _claim(self, token: str, request: ClaimRequest) -> tuple[int, BaseModel | None]:
        self._require(token == AGENT_TOKEN)
        self.capacities.append(request.capacity)
        job = next((j for j in self.jobs.values() if j.state is JobState.QUEUED), None)
        if job is None:
            return 204, None
        job.state, job.attempt = JobState.RUNNING, job.attempt + 1
        job.lease, job.token = f"lease-{job.attempt}", f"arg_{job.id}_{job.attempt}"
        job.seqs = []
        return 200, JobClaim(
            id=job.id,
            attempt=job.attempt,
            spec=job.spec,
            lease=job.lease,
            lease_seconds=self.lease_seconds,
            job_token=job.token,
        )

    def _held(self, job: FakeJob, attempt: int) -> None:
        if job.attempt != attempt or job.state is JobState.QUEUED:
            raise RefusedRequestError(409, Code.LEASE_LOST, f"attempt {attempt} has no lease")

    def _heartbeat(self, job: FakeJob, token: str, beat: Heartbeat) -> tuple[int, BaseModel]:
        self._require(token == AGENT_TOKEN)
        self._held(job, beat.attempt)
        ended = job.state in TERMINAL_JOB_STATES
        self._held(job, job.attempt if beat.lease == job.lease and not ended else -1)
        job.heartbeats += 1
        return 200, self._reply(job)

    def _outcome(
        self, job: FakeJob, token: str, outcome: AgentOutcome
    ) -> tuple[int, BaseModel | None]:
        self._require(token == AGENT_TOKEN)
        self._held(job, outcome.attempt)
        if job.state in TERMINAL_JOB_STATES:
            return 200, None
        job.outcomes.append(outcome)
        if outcome.cancelled:
            job.state = JobState.CANCELLED
        elif outcome.cause in RETRYABLE and job.attempt < job.spec.max_attempts:
            job.state = JobState.QUEUED
        else:
            job.state, job.cause, job.detail = JobState.FAILED, outcome.cause, outcome.detail
        return 200, HeartbeatReply(cancel=False, lease_seconds=self.lease_seconds)

    def _progress(self, job: FakeJob, token: str, report: JobProgress) -> tuple[int, BaseModel]:
        self._require(token == job.token)
        self._held(job, report.attempt)
        if job.state not in TERMINAL_JOB_STATES and report.seq > max(job.seqs, default=-1):
            job.seqs.append(report.seq)
            job.metrics += report.metrics
            job.logs += report.logs
            self._told(job, report)
            if report.state is not None:
                job.state = report.state
                job.states.append((job.attempt, report.state))
                job.cause, job.detail, job.version = report.cause, report.detail, report.version
        return 200, self._reply(job)

    def _told(self, job: FakeJob, report: JobProgress) -> None:
        if report.notice is not None:
            job.notice = report.notice or None
            job.notices.append(report.notice)
        if report.live is not None:
            job.live.append(report.live)
        if report.usage is not None:
            job.usage[report.attempt] = report.usage
        if report.profile is not None:
            job.profile = report.profile
        if report.trials is not None:
            job.trials = report.trials

    def _order(self, job: FakeJob, token: str) -> tuple[int, BaseModel]:
        self._require(token == job.token)
        manifest = None
        if job.spec.batch is not None:
            name, _, number = job.spec.batch.model.partition("@")
            manifest = self.models[name][int(number) - 1]
        return 200, JobOrder(
            id=job.id,
            attempt=job.attempt,
            spec=job.spec,
            lease_seconds=self.lease_seconds,
            manifest=manifest,
        )

    def _reply(self, job: FakeJob) -> HeartbeatReply:
        return HeartbeatReply(cancel=job.cancel, lease_seconds=self.lease_seconds)

    def _fetch(self, sha256: str, token: str) -> tuple[int, bytes]:
        self._require(token in {j.token for j in self.jobs.values()})
        if sha256 not in self.artifacts:
            raise RefusedRequestError(404, Code.NOT_FOUND, f"no artifact {sha256}")
        return 200, self.artifacts[sha256]

    def _store(self, sha256: str, token: str, body: bytes) -> tuple[int, BaseModel]:
        self._require(token in {j.token for j in self.jobs.values()})
        if hashlib.sha256(body).hexdigest() != sha256:
            raise RefusedRequestError(400, Code.DIGEST_MISMATCH, "the bytes have another hash")
        created = sha256 not in self.artifacts
        self.artifacts[sha256] = body
        return 200, Stored(sha256=sha256, size=len(body), created=created)

    def _register(self, model: str, token: str, manifest: Manifest) -> tuple[int, BaseModel]:
        self._require(token in {j.token for j in self.jobs.values()})
        missing = [f.path for f in manifest.files() if f.sha256 not in self.artifacts]
        if missing:
            raise RefusedRequestError(409, Code.CONFLICT, f"not uploaded: {missing}")
        versions = self.models.setdefault(model, [])
        created = manifest not in versions
        if created:
            versions.append(manifest)
        number = versions.index(manifest) + 1
        return 201 if created else 200, VersionNumber(model=model, version=number, created=created)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed leaves a reset connection: nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    api: FakeApi
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.api.changed:
            self.api.requests.append(f"{self.command} {self.path}")
            if self.api.failures:
                self._answer(self.api.failures.pop(0), b"", "text/plain")
                return
            try:
                status, answer = self.api.route(self.command, self.path, token, body)
            except RefusedRequestError as error:
                self._answer(
                    error.problem.status, error.problem.model_dump_json().encode(), PROBLEM_TYPE
                )
                return
            except ValidationError as error:
                problem = Problem(
                    title="invalid", status=422, code=Code.INVALID, detail=str(error)[:500]
                )
                self._answer(422, problem.model_dump_json().encode(), PROBLEM_TYPE)
                return
            finally:
                self.api.changed.notify_all()
        if isinstance(answer, bytes):
            self._answer(status, answer, "application/octet-stream")
            return
        content = answer.model_dump_json().encode() if answer else b""
        self._answer(status, content, "application/json")

    do_POST = do_PUT = do_GET = _serve  # noqa: N815 - names that http.server calls

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
