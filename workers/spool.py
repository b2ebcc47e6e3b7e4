"""Epochs on their way from Ray Train's controller to the driver: a file of JSON lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.job import MetricPoint

log = logging.getLogger(__name__)


class Spool:
    """Lines of JSON from the controller's process to the driver's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> tuple[MetricPoint, ...]:
        """What was added since the last call.

        A line still being written waits; one that is no point is left out.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return ()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return tuple(point for line in whole.splitlines() if (point := _point(line)) is not None)

    def add(self, point: MetricPoint) -> None:
        """Append one point, whole."""
        line = point.model_dump_json().encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def _point(line: bytes) -> MetricPoint | None:
    try:
        return MetricPoint.model_validate_json(line)
    except ValidationError as error:
        log.warning("an epoch's metrics are left out: %s", error.errors()[0]["msg"])
        return None


def point_of(metrics: Mapping[str, Any], epoch: int) -> MetricPoint:
    """One epoch's metrics as they travel."""
    values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
    return MetricPoint(epoch=epoch, at=datetime.now(UTC), values=values)
