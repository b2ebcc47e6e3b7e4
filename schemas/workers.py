"""How many workers: a number, or a range that a job can live with."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, WithJsonSchema, model_serializer, model_validator

from schemas.base import Authored

MAX_WORKERS = 512


class WorkerRange(Authored):
    """From ``min`` to ``max`` workers; written as ``2`` or ``2..8``."""

    min: Annotated[int, Field(ge=1, le=MAX_WORKERS)]
    max: Annotated[int, Field(ge=1, le=MAX_WORKERS)]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(\d{1,6})\s*(?:\.\.\s*(\d{1,6})\s*)?", value)
            if found is None:
                msg = "must be a number, or a range as in 2..8"
                raise ValueError(msg)
            return {"min": int(found[1]), "max": int(found[2] or found[1])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            msg = f"{self.min}..{self.max} is an empty range"
            raise ValueError(msg)
        return self

    @model_serializer
    def _write(self) -> int | str:
        return self.min if self.min == self.max else f"{self.min}..{self.max}"

    def __str__(self) -> str:
        return str(self._write())

    @property
    def elastic(self) -> bool:
        """Whether the number may change as the job runs."""
        return self.min < self.max


Workers = Annotated[
    WorkerRange,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS},
                {"type": "string", "pattern": r"^\d+(\.\.\d+)?$"},
            ],
            "title": "Workers",
        }
    ),
]
