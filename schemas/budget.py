"""Budgets of variants, and classes of devices that carry them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Authored, PlainText, UtcTime, Wire
from schemas.ids import Name


class Budget(Authored):
    """What a variant may cost at most on the devices of a class; unset means unlimited.

    max_latency_ms: median of single inferences. max_size_mb: of the file, in MB (10⁶ bytes).
    max_rss_mb: the growth of the process by loading and running it, in MiB.
    """

    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    max_rss_mb: Annotated[float, Field(gt=0)] | None = None

    def merged(self, other: Budget) -> Budget:
        """This budget; where it leaves a limit open, the other's."""
        mine = self.model_dump(exclude_none=True)
        return Budget.model_validate({**other.model_dump(exclude_none=True), **mine})


class DeviceClassSpec(Authored):
    """What an operator says of a class of devices. note: for people."""

    budget: Budget = Budget()
    note: Annotated[PlainText, StringConstraints(max_length=2000)] = ""


class DeviceClassView(Wire):
    """A device class, as the API shows it. devices: enrolled in it."""

    name: Name
    spec: DeviceClassSpec
    devices: int = 0
    updated_at: UtcTime | None = None
