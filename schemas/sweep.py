"""Several trainings of one job file, of which the best is registered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Authored
from schemas.lineage import Choice

MAX_TRIALS = 256

SweptKey = Annotated[
    str, StringConstraints(pattern=r"^(config|training)\.[A-Za-z_][\w.]*$|^seed$", max_length=109)
]


class Span(Authored):
    """A range of a swept number. log: drawn evenly over its logarithm. whole: integers."""

    min: float
    max: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min < self.max or (self.log and self.min <= 0):
            msg = "needs min < max, and min > 0 where log is true"
            raise ValueError(msg)
        return self


class Sweep(Authored):
    """Several trainings, of which the best is registered. ``{key: [values]}`` is a grid.

    space: by key of the job file (``config.lr``), the values to try, or a span to draw
    from. method: every combination (grid), ``trials`` drawn at random, or ASHA, which ends
    the worse of them early, the first after ``grace_epochs``, keeping one in ``reduction``
    (Li et al., 2018, arXiv 1810.05934). parallel: trials at once.
    """

    space: Annotated[
        dict[SweptKey, Annotated[tuple[Choice, ...], Field(min_length=1, max_length=64)] | Span],
        Field(min_length=1, max_length=16),
    ]
    method: Literal["grid", "random", "asha"] = "grid"
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    grace_epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
    reduction: Annotated[int, Field(ge=2, le=16)] = 3

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and value and not set(value) & set(cls.model_fields):
            return {"space": value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        combinations = 1
        for values in self.space.values():
            if isinstance(values, Span):
                if self.method == "grid":
                    msg = "a grid needs lists of values; method random or asha draws from spans"
                    raise ValueError(msg)
            else:
                combinations *= len(values)
        if self.method == "grid" and self.trials is not None:
            msg = "a grid tries every combination; leave trials out, or use method random"
            raise ValueError(msg)
        if self.method == "grid" and combinations > MAX_TRIALS:
            msg = f"the grid has {combinations} combinations, more than {MAX_TRIALS}"
            raise ValueError(msg)
        if self.method != "grid" and self.trials is None:
            msg = "method random and asha need trials"
            raise ValueError(msg)
        return self
