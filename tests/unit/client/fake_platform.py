"""A FAKE platform for the tests of the SDK and the CLI: scripted answers, no decisions.

Bodies and answers are checked against ``schemas``. That the real API answers alike is
what the contract suite shows, not this.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestrator.domain.tagging import retagged
from schemas.api import Event, Health, Page, Stored
from schemas.budget import DeviceClassSpec, DeviceClassView
from schemas.dataset import DatasetProfile
from schemas.device import DeviceState, DeviceView
from schemas.device_why import DeviceWhy
from schemas.enroll import JoinToken, RevokeDevice, TokenCreated, TokenRequest, TokenView
from schemas.errors import PROBLEM_TYPE, Code, FieldError, Problem
from schemas.fleet import (
    DeviceTags,
    FleetShare,
    FleetSpec,
    FleetView,
    TagChange,
    TagMany,
    TagsChanged,
)
from schemas.ids import new_id
from schemas.job import AgentView, JobState, JobView, LogLine, MetricPoint
from schemas.jobfile import JobSpec
from schemas.measure import Accuracy, Benchmark, Golden, ModelFile
from schemas.model import (
    AliasChange,
    AliasRequest,
    CollectReport,
    CollectRequest,
    ComparedVariant,
    Comparison,
    Lineage,
    Manifest,
    ModelVersionView,
    ModelView,
    RevokeRequest,
    Variant,
    VersionNote,
)
from schemas.paired import Paired
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import (
    ExecutionView,
    Retried,
    RetryRequest,
    RolloutEdit,
    RolloutView,
    WaveView,
)
from schemas.selector import Facts, matches, parse
from schemas.telemetry import TelemetrySummary

T = TypeVar("T")
TOKEN = "arg_key_test"
_LEVELS = ("debug", "info", "warning", "error")


class RefusedError(Exception):
    def __init__(
        self,
        status: int,
        code: Code,
        detail: str,
        hint: str | None = None,
        errors: tuple[FieldError, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            title="refused",
            status=status,
            code=code,
            detail=detail,
            hint=hint,
            errors=errors,
            request_id="r-1",
        )


@dataclass
class State:
    """What the fake answers. A script's views are answered one a request, the last forever."""

    jobs: dict[str, list[JobView]] = field(default_factory=dict)
    metrics: dict[str, list[MetricPoint]] = field(default_factory=dict)
    logs: dict[str, list[LogLine]] = field(default_factory=dict)
    profiles: dict[str, DatasetProfile] = field(default_factory=dict)
    agents: list[AgentView] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    models: list[ModelView] = field(default_factory=list)
    versions: list[ModelVersionView] = field(default_factory=list)
    devices: list[DeviceView] = field(default_factory=list)
    tokens: list[TokenView] = field(default_factory=list)
    rollouts: dict[str, list[RolloutView]] = field(default_factory=dict)
    summaries: list[TelemetrySummary] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    device_classes: dict[str, DeviceClassView] = field(default_factory=dict)
    fleets: dict[str, FleetView] = field(default_factory=dict)
    whys: list[DeviceWhy] = field(default_factory=list)
    history: list[AliasChange] = field(default_factory=list)
    paired: Paired | None = None
    report: CollectReport | None = None
    ranges: bool = True
    served: dict[str, bytes] = field(default_factory=dict)  # in place of an artifact's bytes
    page_size: int = 2
    outages: int = 0
    lost_answers: int = 0
    lost_when: Callable[[str, str], bool] | None = None  # by method and path
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of acts
    unknown: set[str] = field(default_factory=set)  # keys of an act, to a platform from before
    outage_after: int | None = None
    submissions: dict[str, JobView] = field(default_factory=dict)
    events_per_connection: int = 1000
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


def _page(items: list[T], cursor: str | None, size: int) -> Page[T]:
    start = int(cursor or 0)
    end = start + size
    return Page(items=tuple(items[start:end]), next=str(end) if end < len(items) else None)


def _scripted(scripts: dict[str, list[T]], key: str) -> T:
    script = scripts.get(key)
    if script is None:
        raise RefusedError(404, Code.NOT_FOUND, f"there is no {key}", "list what there is")
    return script.pop(0) if len(script) > 1 else script[0]


def _problem(problem: Problem) -> JSONResponse:
    return JSONResponse(
        problem.model_dump(mode="json"), status_code=problem.status, media_type=PROBLEM_TYPE
    )


def make_app(state: State) -> FastAPI:  # noqa: C901, PLR0915 - a list of routes
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, proceed: Any) -> Any:
        state.seen.append((request.method, request.url.path, dict(request.query_params)))
        if state.outage_after is not None:
            state.outage_after -= 1
            if state.outage_after < 0:
                state.outage_after, state.outages = None, 1
        if state.outages > 0:
            state.outages -= 1
            return _problem(
                Problem(title="no", status=503, code=Code.UNAVAILABLE, detail="starting up")
            )
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            detail = "the token is not known"
            return _problem(
                Problem(title="no", status=401, code=Code.UNAUTHENTICATED, detail=detail)
            )
        answer = await proceed(request)
        lost = state.lost_when is not None and state.lost_when(request.method, request.url.path)
        if state.lost_answers > 0 or lost:
            state.lost_answers -= 0 if lost else 1
            answer.headers["content-length"] = "100000"  # and the connection breaks off
        return answer

    @app.exception_handler(RefusedError)
    def refused(_request: Request, error: RefusedError) -> JSONResponse:
        return _problem(error.problem)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        problem = Problem(
            title="invalid", status=422, code=Code.INVALID, detail=f"{fault['loc']}: {fault['msg']}"
        )
        return _problem(problem)

    @app.get("/v1/health")
    def health() -> Health:
        return Health(ok=True, version="0", parts={"database": "ok"})

    @app.post("/v1/jobs", status_code=201)
    def submit(spec: JobSpec, idempotency_key: Annotated[str | None, Header()] = None) -> JobView:
        if idempotency_key in state.submissions:
            return state.submissions[idempotency_key]
        if spec.onnx is not None and spec.onnx.file not in state.artifacts:
            raise RefusedError(422, Code.INVALID, "the model was not uploaded")
        if spec.code is not None and spec.code.sha256 not in state.artifacts:
            raise RefusedError(422, Code.INVALID, "the code was not uploaded")
        view = job_view(spec=spec)
        state.jobs[view.id] = [view]
        if idempotency_key is not None:
            state.submissions[idempotency_key] = view
        return view

    @app.put("/v1/artifacts/{sha256}")
    async def upload(sha256: str, request: Request) -> Stored:
        body = await request.body()
        if hashlib.sha256(body).hexdigest() != sha256:
            raise RefusedError(422, Code.DIGEST_MISMATCH, "other bytes than announced")
        created = sha256 not in state.artifacts
        state.artifacts[sha256] = body
        return Stored(sha256=sha256, size=len(body), created=created)

    @app.get("/v1/agents")
    def agents(cursor: str | None = None) -> Page[AgentView]:
        return _page(state.agents, cursor, state.page_size)

    @app.get("/v1/jobs")
    def jobs(
        cursor: str | None = None,
        project: str | None = None,
        name: str | None = None,
        states: Annotated[tuple[JobState, ...], Query(alias="state")] = (),
    ) -> Page[JobView]:
        found = [
            view
            for view in (script[0] for script in state.jobs.values())
            if (not states or view.state in states)
            and project in {None, view.spec.project}
            and name in {None, view.name}
        ]
        return _page(found, cursor, state.page_size)

    @app.get("/v1/jobs/{job}")
    def job(job: str) -> JobView:
        return _scripted(state.jobs, job)

    @app.get("/v1/jobs/{job}/metrics")
    def metrics(
        job: str, cursor: int = -1, trial: int | None = None, points: int | None = None
    ) -> Page[MetricPoint]:
        rest = [
            p for p in state.metrics.get(job, []) if p.epoch > cursor and trial in {None, p.trial}
        ]
        items = tuple(rest if points else rest[: state.page_size])
        more = len(rest) > len(items)
        return Page(items=items, next=str(items[-1].epoch) if more else None)

    @app.get("/v1/jobs/{job}/profile")
    def profile(job: str) -> DatasetProfile:
        if job not in state.profiles:
            raise RefusedError(404, Code.NOT_FOUND, f"{job} has no dataset profile")
        return state.profiles[job]

    @app.get("/v1/jobs/{job}/logs")
    def logs(
        job: str,
        cursor: int = 0,
        search: str = "",
        level: str = "debug",
        tail: int | None = None,
    ) -> Page[LogLine]:
        every = state.logs.get(job, [])
        wanted = [
            (number, line)
            for number, line in enumerate(every, 1)
            if number > cursor
            and search in line.text
            and _LEVELS.index(line.level) >= _LEVELS.index(level)
        ]
        page = wanted[-tail:] if tail else wanted[: state.page_size]
        last = page[-1][0] if len(page) == state.page_size and not tail else len(every)
        return Page(items=tuple(line for _, line in page), next=str(last))

    @app.post("/v1/jobs/{job}/cancel")
    def cancel(job: str) -> JobView:
        view = _scripted(state.jobs, job)
        if view.state is JobState.SUCCEEDED:
            raise RefusedError(
                409, Code.ILLEGAL_TRANSITION, f"{job} has ended", "nothing to cancel"
            )
        return view

    @app.get("/v1/models")
    def models(cursor: str | None = None) -> Page[ModelView]:
        return _page(state.models, cursor, state.page_size)

    @app.get("/v1/models/{name}")
    def model(name: str) -> ModelView:
        found = [m for m in state.models if m.name == name]
        if not found:
            raise RefusedError(404, Code.NOT_FOUND, f"there is no model {name}")
        return found[0]

    @app.get("/v1/models/{name}/versions/{number}")
    def version(name: str, number: int) -> ModelVersionView:
        return _version(state, name, number)

    _registry(app, state)

    @app.get("/v1/devices")
    def devices(
        cursor: str | None = None,
        states: Annotated[list[str] | None, Query(alias="state")] = None,
        where: str = "*",
    ) -> Page[DeviceView]:
        selector = parse(where)
        wanted = [
            d
            for d in state.devices
            if (not states or d.state in states)
            and matches(selector, Facts(id=d.id, device_class=d.device_class, tags=d.tags))
        ]
        return _page(wanted, cursor, state.page_size)

    @app.get("/v1/devices/{device}")
    def device(device: str) -> DeviceView:
        return _scripted({d.id: [d] for d in state.devices}, device)

    @app.get("/v1/devices/{device}/why")
    def why(device: str) -> DeviceWhy:
        return _scripted({d.device: [d] for d in state.whys}, device)

    @app.put("/v1/devices/{device}/tags")
    def tag(device: str, request: DeviceTags) -> DeviceView:
        found = _scripted({d.id: [d] for d in state.devices}, device)
        changed = found.model_copy(update={"tags": request.tags})
        state.devices = [changed if d.id == device else d for d in state.devices]
        return changed

    @app.patch("/v1/devices/tags")
    def retag_many(asked: TagMany) -> TagsChanged:
        selector, changed = parse(asked.where), {}
        there = [
            d
            for d in state.devices
            if matches(selector, Facts(id=d.id, device_class=d.device_class, tags=d.tags))
        ]
        for d in there:
            tags = retagged(d.tags, asked.add, asked.remove)
            if tags != d.tags:
                changed[d.id] = d.model_copy(update={"tags": tags})
        if asked.at_most is not None and len(changed) > asked.at_most:
            raise RefusedError(409, Code.CONFLICT, f"{len(changed)} would change")
        if not asked.dry_run:
            state.devices = [changed.get(d.id, d) for d in state.devices]
        return TagsChanged(matched=len(there), changed=len(changed), dry_run=asked.dry_run)

    @app.patch("/v1/devices/{device}/tags")
    def retag(device: str, change: TagChange) -> DeviceView:
        found = _scripted({d.id: [d] for d in state.devices}, device)
        tags = retagged(found.tags, change.add, change.remove)
        changed = found.model_copy(update={"tags": tags})
        state.devices = [changed if d.id == device else d for d in state.devices]
        return changed

    @app.get("/v1/fleets")
    def fleets(cursor: str | None = None) -> Page[FleetView]:
        return _page(list(state.fleets.values()), cursor, state.page_size)

    @app.get("/v1/fleets/{name}")
    def fleet(name: str) -> FleetView:
        return _scripted({name: [view] for name, view in state.fleets.items()}, name)

    @app.put("/v1/fleets/{name}")
    def set_fleet(name: str, spec: FleetSpec) -> FleetView:
        share = FleetShare(device_class="cam", presence="ONLINE", devices=3)
        state.fleets[name] = FleetView(
            name=name, spec=spec, devices=3, members=(share,), created_at=NOW, updated_at=NOW
        )
        return state.fleets[name]

    @app.delete("/v1/fleets/{name}")
    def delete_fleet(name: str) -> FleetView:
        found = fleet(name)
        if found.rollouts:
            raise RefusedError(409, Code.CONFLICT, f"fleet {name} is the target of what runs")
        return state.fleets.pop(name)

    @app.post("/v1/devices/{device}/{act}")
    def decide(device: str, act: str, request: RevokeDevice | None = None) -> DeviceView:
        found = _scripted({d.id: [d] for d in state.devices}, device)
        changes: dict[str, Any] = {
            "approve": {"state": DeviceState.ACTIVE},
            "reject": {"state": DeviceState.REVOKED},
            "revoke": {
                "state": DeviceState.REVOKED,
                "revoke_reason": request.reason if request else "",
            },
            "clear-alert": {"clone_suspected_at": None},
        }[act]
        if act == "approve" and found.state is DeviceState.REVOKED:
            raise RefusedError(409, Code.CONFLICT, f"{device} was revoked or rejected")
        changed = found.model_copy(update=changes)
        state.devices = [changed if d.id == device else d for d in state.devices]
        return changed

    @app.post("/v1/tokens/{token}/revoke")
    def revoke_token(token: str) -> TokenView:
        found = _scripted({t.id: [t] for t in state.tokens}, token)
        changed = found.model_copy(update={"revoked": True})
        state.tokens = [changed if t.id == token else t for t in state.tokens]
        return changed

    @app.post("/v1/tokens", status_code=201)
    def create_token(request: TokenRequest) -> TokenCreated:
        view = token_view(request)
        state.tokens.append(view)
        text = str(JoinToken(view.id, "s" * 43, "0" * 64, "1" * 64))
        return TokenCreated(token=text, view=view, server="https://platform.example:8420")

    @app.get("/v1/tokens")
    def tokens(cursor: str | None = None) -> Page[TokenView]:
        return _page(state.tokens, cursor, state.page_size)

    @app.post("/v1/rollouts", status_code=201)
    def create_rollout(spec: RolloutSpec) -> RolloutView:
        view = rollout_view(spec=spec, state=RolloutState.DRAFT)
        state.rollouts[view.id] = [view]
        return view

    @app.get("/v1/rollouts")
    def rollouts(cursor: str | None = None) -> Page[RolloutView]:
        return _page([script[0] for script in state.rollouts.values()], cursor, state.page_size)

    @app.get("/v1/rollouts/{rollout}")
    def rollout(rollout: str) -> RolloutView:
        return _scripted(state.rollouts, rollout)

    @app.patch("/v1/rollouts/{rollout}")
    def edit_rollout(rollout: str, change: RolloutEdit) -> RolloutView:
        view = _scripted(state.rollouts, rollout)
        named = {name: getattr(change, name) for name in change.model_fields_set}
        spec = view.spec.model_copy(update={n: v for n, v in named.items() if v is not None})
        return view.model_copy(update={"spec": spec, "revision": view.revision + 1})

    @app.get("/v1/rollouts/{rollout}/executions")
    def executions(
        rollout: str,
        states: Annotated[list[ExecState] | None, Query(alias="state")] = None,
        wave: int | None = None,
        cursor: str | None = None,
    ) -> Page[ExecutionView]:
        each = [e for w in _scripted(state.rollouts, rollout).waves for e in w.executions]
        wanted = [e for e in each if e.state in (states or list(ExecState))]
        return _page([e for e in wanted if wave in (None, e.wave)], cursor, state.page_size)

    @app.post("/v1/rollouts/{rollout}/retry")
    def retry(rollout: str, request: RetryRequest) -> Retried:
        view = _scripted(state.rollouts, rollout)
        return Retried(devices=len(request.devices) or 3, rollout=view)

    @app.post("/v1/rollouts/{rollout}/{action}")
    async def act(rollout: str, action: str, request: Request) -> RolloutView:
        state.bodies.append(json.loads(await request.body() or b"{}"))
        for key in sorted(state.unknown & state.bodies[-1].keys()):
            fault = FieldError(field=key, message="Extra inputs are not permitted")
            said = f"{fault.field}: {fault.message}"
            raise RefusedError(422, Code.INVALID, said, errors=(fault,))
        if action not in {"start", "pause", "resume", "promote", "rollback", "abort"}:
            raise RefusedError(404, Code.NOT_FOUND, f"there is no action {action}")
        to = {"pause": RolloutState.PAUSED, "abort": RolloutState.ABORTED}
        view = _scripted(state.rollouts, rollout)
        return view.model_copy(update={"state": to.get(action, RolloutState.RUNNING)})

    @app.get("/v1/telemetry/summary")
    def summary(
        model: str, version: int, by: str | None = None, cursor: str | None = None
    ) -> Page[TelemetrySummary]:
        rows = [s for s in state.summaries if (s.model, s.version) == (model, version)]
        wanted = [s for s in rows if (s.device is not None) == (by == "device")]
        return _page(wanted, cursor, state.page_size)

    @app.get("/v1/events")
    async def events(
        subject: str | None = None,
        after: int | None = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        start = int(last_event_id) if last_event_id else after or 0
        return StreamingResponse(_stream(state, subject, start), media_type="text/event-stream")

    return app


def _version(state: State, name: str, number: int) -> ModelVersionView:
    found = [v for v in state.versions if (v.model, v.version) == (name, number)]
    if not found:
        raise RefusedError(404, Code.NOT_FOUND, f"there is no {name}@{number}")
    return found[0]


def _changed(state: State, view: ModelVersionView, **fields: Any) -> ModelVersionView:
    new = view.model_copy(update=fields)
    state.versions[state.versions.index(view)] = new
    return new


def _registry(app: FastAPI, state: State) -> None:  # noqa: C901 - a list of routes
    @app.get("/v1/artifacts/{sha256}")
    def download(sha256: str, range_: Annotated[str, Header(alias="range")] = "") -> Response:
        if sha256 not in state.artifacts:
            raise RefusedError(404, Code.NOT_FOUND, f"there is no artifact {sha256}")
        body = state.served.get(sha256, state.artifacts[sha256])
        if range_ and state.ranges:
            start = int(range_.removeprefix("bytes=").removesuffix("-"))
            told = {"content-range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return Response(body[start:], 206, told)
        return Response(body)

    @app.put("/v1/models/{name}/versions/{number}/note")
    def note(name: str, number: int, note: VersionNote) -> ModelVersionView:
        view = _version(state, name, number)
        return _changed(state, view, tags=note.tags, note=note.note)

    @app.post("/v1/models/{name}/versions/{number}/revoke")
    def revoke(name: str, number: int, request: RevokeRequest) -> ModelVersionView:
        view = _version(state, name, number)
        return _changed(state, view, revoked=True, revoked_reason=request.reason)

    @app.get("/v1/models/{name}/compare")
    def compare(
        name: str,
        a: int,
        b: int,
        variant_a: str | None = None,
        variant_b: str | None = None,
        split: str = "test",
    ) -> Comparison:
        sides = []
        for number, wanted in ((a, variant_a), (b, variant_b)):
            view = _version(state, name, number)
            chosen = view.manifest.variant(wanted) if wanted else view.manifest.variants[0]
            if chosen is None:
                raise RefusedError(404, Code.NOT_FOUND, f"{name}@{number} has no {wanted}")
            own = tuple(m for m in view.measured if m.variant == chosen.id)
            side = ComparedVariant(model=name, version=number, variant=chosen, measured=own)
            sides.append(side)
        why = None if state.paired else "b was not measured on that set"
        return Comparison(a=sides[0], b=sides[1], split=split, paired=state.paired, unpaired=why)

    @app.put("/v1/models/{name}/aliases/{alias}")
    def set_alias(name: str, alias: str, request: AliasRequest) -> ModelView:
        view = next(m for m in state.models if m.name == name)
        at = view.aliases.get(alias)
        if request.expected not in {None, at}:
            raise RefusedError(409, Code.CONFLICT, f"{alias} is at {at}", "look at its history")
        new = view.model_copy(update={"aliases": {**view.aliases, alias: request.version}})
        state.models[state.models.index(view)] = new
        return new

    @app.delete("/v1/models/{name}/aliases/{alias}")
    def remove_alias(name: str, alias: str) -> ModelView:
        view = next(m for m in state.models if m.name == name)
        if alias not in view.aliases:
            raise RefusedError(404, Code.NOT_FOUND, f"{name} has no alias {alias}")
        left = {k: v for k, v in view.aliases.items() if k != alias}
        return view.model_copy(update={"aliases": left})

    @app.get("/v1/models/{name}/aliases/{alias}/history")
    def history(name: str, alias: str, cursor: str | None = None) -> Page[AliasChange]:
        return _page([c for c in state.history if c.alias == alias], cursor, state.page_size)

    @app.post("/v1/artifacts/collect")
    def collect(request: CollectRequest) -> CollectReport:
        report = state.report or CollectReport(dry_run=True, purged=(), artifacts=0, bytes=0)
        return report.model_copy(update={"dry_run": request.dry_run})

    @app.get("/v1/device-classes")
    def device_classes(cursor: str | None = None) -> Page[DeviceClassView]:
        return _page([*state.device_classes.values()], cursor, state.page_size)

    @app.get("/v1/device-classes/{name}")
    def device_class(name: str) -> DeviceClassView:
        if name not in state.device_classes:
            raise RefusedError(404, Code.NOT_FOUND, f"there is no device class {name}")
        return state.device_classes[name]

    @app.put("/v1/device-classes/{name}")
    def set_device_class(name: str, spec: DeviceClassSpec) -> DeviceClassView:
        state.device_classes[name] = DeviceClassView(name=name, spec=spec, updated_at=NOW)
        return state.device_classes[name]

    @app.delete("/v1/device-classes/{name}")
    def remove_device_class(name: str) -> DeviceClassView:
        if name not in state.device_classes:
            raise RefusedError(404, Code.NOT_FOUND, f"there is no device class {name}")
        return state.device_classes.pop(name)


async def _stream(state: State, subject: str | None, after: int) -> AsyncIterator[str]:
    yield ": hello\n\n"
    sent, last = 0, after
    while sent < state.events_per_connection:
        for event in [e for e in state.events if e.id > last]:
            last = event.id
            if subject in {None, event.subject}:
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
                sent += 1
                if sent >= state.events_per_connection:
                    return
        await asyncio.sleep(0.01)


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def job_view(state: JobState = JobState.QUEUED, **fields: Any) -> JobView:
    spec = fields.pop("spec", None) or JobSpec.model_validate(
        {"name": "digits", "task": "a.b:C", "stop": {"target": 0.95, "max_epochs": 5}}
    )
    base: dict[str, Any] = {"id": new_id("job"), "attempt": 1, "epoch": 0, "created_at": NOW}
    return JobView(**{**base, "name": spec.name, "state": state, "spec": spec, **fields})


def token_view(request: TokenRequest) -> TokenView:
    return TokenView(
        id=new_id("tok"),
        device_class=request.device_class or "default",
        tags=request.tags,
        max_uses=request.max_uses,
        uses=0,
        approval=request.approval,
        keys=len(request.keys),
        device=request.device,
        note=request.note,
        expires_at=NOW,
        revoked=False,
        created_at=NOW,
    )


def rollout_view(state: RolloutState = RolloutState.RUNNING, **fields: Any) -> RolloutView:
    spec = fields.pop("spec", None) or RolloutSpec(model="digits", version=1)
    waves = tuple(
        WaveView(index=i, state=WaveState.PENDING, size=w.count or 4)
        for i, w in enumerate(spec.waves)
    )
    base: dict[str, Any] = {"id": new_id("rol"), "waves": waves, "created_at": NOW}
    return RolloutView(**{**base, "spec": spec, "state": state, **fields})


def model_file(state: State, path: str, data: bytes) -> ModelFile:
    """An artifact of the fake, as a manifest names it."""
    sha256 = hashlib.sha256(data).hexdigest()
    state.artifacts[sha256] = data
    return ModelFile(path=path, size=len(data), sha256=sha256, leaves_sha256="0" * 64)


def variant(state: State, name: str = "fp32", **fields: Any) -> Variant:
    """A variant with figures; its bytes are its name's, repeated."""
    golden = Golden(file=model_file(state, f"golden-{name}.npz", b"PK"), samples=1, tolerance=0.1)
    accuracy = Accuracy(
        value=0.974, n=401, low=0.953, high=0.986, split="test", set_sha256="1" * 64
    )
    bench = Benchmark(
        host="a laptop", provider="CPUExecutionProvider", batch=1, runs=100, p50_ms=0.5,
        p95_ms=0.7, p99_ms=0.9, load_ms=12,
    )  # fmt: skip
    base: dict[str, Any] = {
        "id": name, "precision": "fp32", "scheme": "none", "opset": 17, "golden": golden,
        "file": model_file(state, f"{name}.onnx", name.encode() * 1000),
        "accuracy": (accuracy,), "benchmarks": (bench,),
    }  # fmt: skip
    return Variant(**{**base, **fields})


def version_view(state: State, version: int = 1, **fields: Any) -> ModelVersionView:
    """A version of ``digits``, among those that the fake has."""
    manifest = Manifest.model_validate(
        {
            "model": "digits",
            "signature": {
                "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 8, 8]}],
                "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [-1, 10]}],
            },
            "labels": list("0123456789"),
            "variants": fields.pop("variants", None) or (variant(state),),
            "rejected": fields.pop("rejected", ()),
            "budgets": fields.pop("budgets", {}),
            "lineage": fields.pop("lineage", Lineage()),
            "weights": fields.pop("weights", None),
            "preprocess": fields.pop("preprocess", ()),
        }
    )
    sha256 = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    view = ModelVersionView(
        model="digits", version=version, manifest=manifest, manifest_sha256=sha256,
        created_at=NOW, **fields,
    )  # fmt: skip
    state.versions.append(view)
    numbers = tuple(sorted((v.version for v in state.versions), reverse=True))
    state.models = [ModelView(name="digits", versions=numbers, aliases={"champion": numbers[0]})]
    return view


@contextmanager
def serve(state: State) -> Iterator[str]:
    """Serve the fake on a free port of this machine; yield its address."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(state), log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(5)
        sock.close()
