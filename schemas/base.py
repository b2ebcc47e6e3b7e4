"""The two kinds of model: what programs send, and what people write."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime
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
    if not MINYEAR < value.year < MAXYEAR:
        # Beyond them a shift to another zone has no result, here or at whoever shows it.
        msg = f"needs a year from {MINYEAR + 1} to {MAXYEAR - 1}"
        raise ValueError(msg)
    return value.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""A point in time with a zone, normalized to UTC."""

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A whole number that fits into 64 bits."""

VersionNo = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""The number of a model version."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text; refused if a database or a peer could not hold it.

    Raises:
        ValueError: it has NUL or half of a surrogate pair.
    """
    found = _UNSTORABLE.search(text)
    if found is not None:
        msg = f"has a character that cannot be stored: {found[0]!r}"
        raise ValueError(msg)
    return text


Line = Annotated[str, AfterValidator(lambda text: _UNSTORABLE.sub("", text))]
"""Text from a log or an error.

What no database or peer can hold is taken out: NUL, and halves of surrogate pairs.
"""

PlainText = Annotated[str, AfterValidator(storable)]
"""Text that a person wrote; refused where ``Line`` would take something out."""


def at_most(limit: float) -> AfterValidator:
    """A figure that is cut down to a limit: too large to be true, but no reason to fail."""
    return AfterValidator(lambda value: min(value, limit))
