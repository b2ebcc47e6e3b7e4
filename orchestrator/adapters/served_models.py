"""Which models devices serve, by model, in SQL: what their records say, to be asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import DeviceModelRow, DeviceRow
from schemas.device import ActiveModel

_PORTION = 500

Change = tuple[str, Sequence[ActiveModel], Sequence[ActiveModel]]
"""A device, what it served, and what it serves now."""


class ServedModels:
    """Keeps ``device_models`` as the records of devices are, in the same transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, changes: Iterable[Change], at: datetime) -> None:
        """Take over what changed; one statement for each model, kind and 500 devices."""
        gone: defaultdict[str, list[str]] = defaultdict(list)
        fresh: list[dict[str, object]] = []
        for device, before, after in changes:
            old, new = ({one.model: one for one in models} for models in (before, after))
            for model in {**old, **new}:
                if old.get(model) == new.get(model):
                    continue
                gone[model].append(device)
                if model in new:
                    fresh.append({"device_id": device, "since": at, **new[model].model_dump()})
        for model, devices in gone.items():
            for portion in _portions(devices):
                where = (DeviceModelRow.model == model, DeviceModelRow.device_id.in_(portion))
                self._session.execute(delete(DeviceModelRow).where(*where))
        if fresh:
            self._session.execute(insert(DeviceModelRow), fresh)

    def since(self, devices: Collection[str]) -> Mapping[str, Mapping[str, datetime]]:
        """Device → model → since when it serves what it does."""
        found: defaultdict[str, dict[str, datetime]] = defaultdict(dict)
        columns = (DeviceModelRow.device_id, DeviceModelRow.model, DeviceModelRow.since)
        for portion in _portions(sorted(devices)):
            query = select(*columns).where(DeviceModelRow.device_id.in_(portion))
            for device, model, at in self._session.execute(query):
                found[device][model] = at
        return found


def serves(model: str, version: int | None) -> ColumnElement[bool]:
    """Of a device: that it serves the model, in that version if one is given."""
    where = [DeviceModelRow.device_id == DeviceRow.id, DeviceModelRow.model == model]
    if version is not None:
        where.append(DeviceModelRow.version == version)
    return select(DeviceModelRow.device_id).where(*where).correlate(DeviceRow).exists()


def _portions(devices: Sequence[str]) -> Iterable[Sequence[str]]:
    return (devices[i : i + _PORTION] for i in range(0, len(devices), _PORTION))
