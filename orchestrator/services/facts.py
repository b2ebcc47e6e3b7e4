"""What selectors may ask of a device, from its record."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.services.records import DeviceRecord
from schemas.selector import Facts


def facts_of(record: DeviceRecord, now: datetime) -> Facts:
    """The facts of a device at a time, as ``adapters.selector_sql`` finds them in its row."""
    hardware, expires = record.hardware, record.certificate_expires_at
    about = Facts(
        id=record.id,
        device_class=record.device_class,
        tags=record.tags,
        presence=record.presence,
        models={one.model: one.version for one in record.active},
        last_seen=_seconds(record.last_seen_at, now),
        enrolled=(now - record.enrolled_at).total_seconds(),
        certificate=None if expires is None else (expires - now).total_seconds(),
    )
    if hardware is None:
        return about
    names = ("arch", "isa", "providers", "board", "cpus", "ram_mb", "ort", "agent")
    return replace(about, **{name: getattr(hardware, name) for name in names})


def _seconds(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else (now - at).total_seconds()
