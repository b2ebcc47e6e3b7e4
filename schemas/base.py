"""The two kinds of model: what programs send, and what people write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


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


def _as_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        msg = "needs a time zone, as in 2026-01-31T12:00:00Z"
        raise ValueError(msg)
    return value.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""A point in time with a zone, normalized to UTC."""
