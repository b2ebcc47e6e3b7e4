"""How fast a rollout goes, when devices may take part in it, and how urgent it is."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.base import MAX_INTEGER, Authored, UtcTime

_CRON_FIELDS = 5


class Growth(Authored):
    """A rate that grows with success.

    Each time that so many devices more have succeeded (``after``), the rate is multiplied by
    ``factor``; up to ``max_per_minute``.
    """

    factor: Annotated[float, Field(gt=1, le=10)] = 2.0
    after: Annotated[int, Field(ge=1, le=MAX_INTEGER)] = 10
    max_per_minute: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class Pace(Authored):
    """How fast devices are offered a version.

    per_minute: offers; None for as fast as they can be sent. growth: of that rate. concurrent:
    devices of the rollout at work at once. jitter_seconds: each device waits a random part of it
    before it begins to download.
    """

    per_minute: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    growth: Growth | None = None
    concurrent: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    jitter_seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.growth is not None and self.per_minute is None:
            msg = "growth needs a rate to grow from: per_minute"
            raise ValueError(msg)
        return self


class Urgency(StrEnum):
    """Whether a device may put an update off.

    FORCED: it may not. SOFT: it may, up to ``max_deferral_seconds``. TIME_FORCED: it may until
    ``force_at``. DOWNLOAD_ONLY: it downloads, verifies and stages, and waits there for a word
    (``rollout activate``, or its own operator's).
    """

    FORCED = "forced"
    SOFT = "soft"
    TIME_FORCED = "time_forced"
    DOWNLOAD_ONLY = "download_only"


class Mode(Authored):
    """How urgent an update is. force_at: of TIME_FORCED."""

    urgency: Urgency = Urgency.FORCED
    force_at: UtcTime | None = None

    @model_validator(mode="after")
    def _time(self) -> Self:
        if (self.force_at is None) == (self.urgency is Urgency.TIME_FORCED):
            msg = "force_at belongs to time_forced, which needs it"
            raise ValueError(msg)
        return self


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"there is no time zone {name!r}; as in Europe/Berlin or UTC"
        raise ValueError(msg) from error
    return name


def _cron(text: str) -> str:
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))
        why = None if len(text.split()) == _CRON_FIELDS else "it has not five fields"
    except CronSimError as error:
        why = str(error)
    if why is not None:
        form = "minute, hour, day, month, weekday, as in '0 2 * * 1-5'"
        msg = f"{text!r} is no cron expression ({why}): {form}"
        raise ValueError(msg)
    return text


class WindowCovers(StrEnum):
    """What waits for a window: the switch to the new version alone, or the download too."""

    ACTIVATION = "activation"
    ALL = "all"


class MaintenanceWindow(Authored):
    """A span of time that comes again: begins by cron, lasts minutes.

    cron: five fields, as crontab(5) has them. A device judges by the server's time, which it keeps
    on its steady clock, in the zone that is named here; one that never learned it does not
    begin. Several windows: any of them.
    """

    cron: Annotated[str, StringConstraints(min_length=9, max_length=100), AfterValidator(_cron)]
    minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]
    timezone: Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)] = "UTC"
    covers: WindowCovers = WindowCovers.ACTIVATION
