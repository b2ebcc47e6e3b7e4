"""What devices can be asked for by beside their records: tags, and versions that sort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import DeviceRow, DeviceTagRow
from orchestrator.services.records import DeviceRecord
from schemas.selector_fields import version_key

_PORTION = 500

Change = tuple[DeviceRecord | None, DeviceRecord]
"""A device as it was, None when it is new, and as it is."""


class DeviceFacts:
    """Keeps ``device_tags`` and the keys of versions as records are, in the same transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, changes: Iterable[Change]) -> None:
        """Take over what changed; one statement of each kind for 500 devices."""
        changes = list(changes)
        tagged = [pair for pair in changes if _tags(pair[0]) != pair[1].tags]
        stale = [after.id for before, after in tagged if before is not None]
        for start in range(0, len(stale), _PORTION):
            portion = stale[start : start + _PORTION]
            gone = delete(DeviceTagRow).where(DeviceTagRow.device_id.in_(portion))
            self._session.execute(gone)
        rows = [
            {"tag": tag, "device_id": after.id}
            for _, after in tagged
            for tag in dict.fromkeys(after.tags)
        ]
        if rows:
            self._session.execute(insert(DeviceTagRow), rows)
        keys = list(_changed_keys(changes))
        if keys:
            self._session.execute(update(DeviceRow), keys)


def _tags(record: DeviceRecord | None) -> Sequence[str]:
    return () if record is None else record.tags


def _changed_keys(changes: Iterable[Change]) -> Iterator[dict[str, str | None]]:
    for before, after in changes:
        if before is not None and before.hardware is after.hardware:
            continue  # as in a heartbeat that tells nothing new
        keys = _keys(after)
        if keys != _keys(before):
            yield {"id": after.id, "ort_key": keys[0], "agent_key": keys[1]}


def _keys(record: DeviceRecord | None) -> tuple[str | None, str | None]:
    hardware = None if record is None else record.hardware
    if hardware is None:
        return None, None
    return version_key(hardware.ort), version_key(hardware.agent)
