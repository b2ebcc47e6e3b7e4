"""Routes of telemetry and samples."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from orchestrator.services import samples as sampling
from orchestrator.services.records import SamplePage
from orchestrator.services.telemetry_queries import Bucket, By, Question
from schemas.access import Scope
from schemas.api import Page
from schemas.base import UtcTime, VersionNo
from schemas.ids import DeviceId, Name
from schemas.telemetry import FeatureView, SampleView, TelemetryPoint, TelemetrySummary

router = APIRouter(prefix="/v1/telemetry", tags=["telemetry"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.TELEMETRY_READ))]
_SAMPLES = [Depends(Needs(Scope.SAMPLES_READ))]


def question(
    model: Name,
    version: VersionNo,
    *,
    role: Literal["active", "shadow"] = "active",
    variant: Name | None = None,
    since: Annotated[UtcTime | None, Query()] = None,
    until: Annotated[UtcTime | None, Query()] = None,
    device: DeviceId | None = None,
    device_class: Name | None = None,
    tag: Name | None = None,
) -> Question:
    """What all questions have in common."""
    return Question(
        model=model,
        version=version,
        role=role,
        variant=variant,
        since=since,
        until=until,
        device=device,
        device_class=device_class,
        tag=tag,
    )


Asked = Annotated[Question, Depends(question)]


@router.get("/summary", dependencies=_READ, operation_id="get_telemetry_summary")
def summary(
    ctx: Ctx, asked: Asked, by: By | None = None, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None
) -> Page[TelemetrySummary]:
    """Figures of a version as its devices saw them, by variant, and by device, class or tag.

    Pages are of devices, with ``by=device``; anything else is one page.
    """
    items = tuple(ctx.telemetry.summary(asked, by, after=cursor, limit=limit))
    devices = {item.device for item in items}
    more = by == "device" and len(devices) == limit
    return Page(items=items, next=items[-1].device if more else None)


@router.get("/series", dependencies=_READ, operation_id="get_telemetry_series")
def series(ctx: Ctx, asked: Asked, bucket: Bucket = "1h") -> Page[TelemetryPoint]:
    """The same over time, by variant: by the minute, the hour or the day."""
    return Page(items=tuple(ctx.telemetry.series(asked, bucket)))


@router.get("/features", dependencies=_READ, operation_id="get_telemetry_features")
def features(ctx: Ctx, asked: Asked) -> Page[FeatureView]:
    """Input statistics of devices beside those of the training data."""
    return Page(items=tuple(ctx.telemetry.features(asked)))


@router.get("/samples", dependencies=_SAMPLES, operation_id="list_samples")
def samples(
    ctx: Ctx,
    model: Name,
    *,
    version: VersionNo | None = None,
    stream: Literal["uniform", "uncertain"] | None = None,
    inputs: bool = False,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
) -> Page[SampleView]:
    """Inputs that devices gave away, oldest first; their bytes too, if asked for.

    A page ends at ``limit`` or at 8 MiB. Each that holds inputs is written into the audit log.
    """
    after = sampling.from_cursor(cursor)
    asked = SamplePage(model=model, version=version, stream=stream, after=after, limit=limit)
    items, rest = ctx.samples.page(asked, inputs=inputs)
    return Page(items=tuple(items), next=None if rest is None else sampling.to_cursor(rest))
