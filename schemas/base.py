"""The two kinds of model: what programs send, and what people write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """A message between programs.

    Unknown fields are ignored, so that an older peer reads a newer one. Numbers
    must be finite: a NaN in a report is a fault of its sender.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Authored(BaseModel):
    """Something a person wrote (a job file, a rollout plan).

    Unknown fields are refused: a misspelt key must never be silently dropped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


MAX_INTEGER = 2**63 - 1
"""The largest whole number that every database and peer can hold."""


def _as_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        msg = "needs a time zone, as in 2026-01-31T12:00:00Z"
        raise ValueError(msg)
    return value.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""A point in time with a zone, normalized to UTC."""

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A whole number that fits into 64 bits."""

VersionNo = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""The number of a model version."""

Line = Annotated[str, AfterValidator(lambda text: text.replace("\x00", ""))]
"""Text from a log or an error; NUL, which PostgreSQL cannot hold, is taken out."""
