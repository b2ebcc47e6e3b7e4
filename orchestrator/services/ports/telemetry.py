"""What is kept of telemetry."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from orchestrator.services.records import DeviceTotals, WindowFigures, WindowRecord


class Telemetry(Protocol):
    """Telemetry windows.

    add_all: those that are not there yet.
    """

    def add(self, record: WindowRecord) -> bool: ...
    def add_all(self, records: Iterable[WindowRecord]) -> None: ...
    def totals(
        self, model: str, version: int, since: datetime | None = None
    ) -> Mapping[str, DeviceTotals]: ...
    def figures(self, model: str, version: int) -> Iterable[WindowFigures]: ...
