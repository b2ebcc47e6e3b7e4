"""Windows in MessagePack, their roll-ups by hour, samples.

Windows that are there already move along and are added up; their devices are taken to have been
of the class that they are of now.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables
from orchestrator.domain import placing, rollup
from orchestrator.domain.rollup import HOUR_MS, ClassHour, DeviceHour, Kept, Sums
from schemas.base import MAX_INTEGER
from schemas.telemetry import MAX_BUCKET, MAX_CLASSES
from schemas.window import Window, pack, unpack

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_PORTION = 1000
MAX_START_MS = 10**14
"""As ``schemas.window`` has it."""

_KEY = ("device_id", "boot", "seq")
_SHARED = ("model", "version", "variant", "role", "n", "errors", "labelled", "correct")


def upgrade() -> None:
    op.drop_index("ix_windows_version", table_name="windows")
    op.rename_table("windows", "old_windows")
    _make_tables()
    connection = op.get_bind()
    devices = connection.execute(sa.text("SELECT id, device_class FROM devices"))
    classes = {device: its_class for device, its_class in devices}  # noqa: C416 - rows are no pairs to mypy
    by_class: dict[ClassHour, Sums] = {}
    rows = _all(connection, _old_windows("old_windows"))
    while portion := list(islice(rows, _PORTION)):
        by_device: dict[DeviceHour, Sums] = {}
        new = [_upgraded(row) for row in portion]
        for row, kept in new:
            head = (row["model"], row["version"], row["start_ms"] // HOUR_MS)
            tail = (row["role"], row["variant"])
            device = row["device_id"]
            its_class = classes.get(device, "default")
            by_device.setdefault(DeviceHour(*head, device, *tail), Sums()).add(kept)
            by_class.setdefault(ClassHour(*head, its_class, *tail), Sums()).add(kept)
        connection.execute(sa.insert(_new_windows("windows")), [row for row, _ in new])
        _merge(connection, _hours("device_hours", "device"), by_device)
    _merge(connection, _hours("class_hours", "device_class"), by_class)
    op.drop_table("old_windows")
    if connection.dialect.name == "postgresql":
        op.execute("ALTER INDEX IF EXISTS windows_pkey1 RENAME TO windows_pkey")


def downgrade() -> None:
    for index in ("ix_windows_version", "ix_windows_received"):
        op.drop_index(index, table_name="windows")
    op.rename_table("windows", "new_windows")
    op.create_table("windows", *_old_columns(), sa.PrimaryKeyConstraint(*_KEY))
    op.create_index("ix_windows_version", "windows", ["model", "version", "device_id"])
    connection = op.get_bind()
    rows = _all(connection, _new_windows("new_windows"))
    while portion := list(islice(rows, _PORTION)):
        old = [_downgraded(row) for row in portion]
        connection.execute(sa.insert(_old_windows("windows")), old)
    for name in ("new_windows", "device_hours", "class_hours", "samples", "sample_totals"):
        op.drop_table(name)


def _make_tables() -> None:
    op.create_table("windows", *_new_columns(), sa.PrimaryKeyConstraint(*_KEY))
    op.create_index("ix_windows_version", "windows", ["model", "version", "received_ms"])
    op.create_index("ix_windows_received", "windows", ["received_ms"])
    for name, member, length in (
        ("device_hours", "device", 32),
        ("class_hours", "device_class", 64),
    ):
        op.create_table(
            name,
            sa.Column("model", sa.String(length=64), nullable=False),
            sa.Column("version", _INT, nullable=False),
            sa.Column("hour", _INT, nullable=False),
            sa.Column(member, sa.String(length=length), nullable=False),
            sa.Column("role", sa.String(length=8), nullable=False),
            sa.Column("variant", sa.String(length=64), nullable=False),
            sa.Column("body", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("model", "version", "hour", member, "role", "variant"),
            sqlite_with_rowid=False,
        )
    op.create_table(
        "samples",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("boot", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("received_ms", _INT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*_KEY),
    )
    op.create_index("ix_samples_oldest", "samples", ["model", "stream", "received_ms"])
    op.create_index("ix_samples_received", "samples", ["received_ms"])
    op.create_table(
        "sample_totals",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("bytes", _INT, nullable=False),
        sa.PrimaryKeyConstraint("model", "stream"),
    )


def _old_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("boot", sa.String(length=32), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("start", _TIME, nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        *(sa.Column(name, _INT, nullable=False) for name in _SHARED[4:]),
        sa.Column("payload", sa.JSON(), nullable=False),
    ]


def _new_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("boot", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", _INT, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("start_ms", _INT, nullable=False),
        sa.Column("received_ms", _INT, nullable=False),
        sa.Column("n", _INT, nullable=False),
        sa.Column("errors", _INT, nullable=False),
        sa.Column("lost", _INT, nullable=False),
        sa.Column("labelled", _INT, nullable=False),
        sa.Column("correct", _INT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    ]


def _old_windows(name: str) -> sa.Table:
    return sa.Table(name, sa.MetaData(), *_old_columns())


def _new_windows(name: str) -> sa.Table:
    return sa.Table(name, sa.MetaData(), *_new_columns())


def _hours(name: str, member: str) -> sa.Table:
    keys = ("model", "version", "hour", member, "role", "variant")
    columns = [sa.Column(key, _INT if key in {"version", "hour"} else sa.String()) for key in keys]
    return sa.Table(name, sa.MetaData(), *columns, sa.Column("body", sa.LargeBinary()))


def _all(connection: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
    """Every row, in portions by key: a history may be larger than memory."""
    key = [table.c[name] for name in _KEY]
    query = sa.select(table).order_by(*key).limit(_PORTION)
    rows = connection.execute(query).mappings().all()
    while rows:
        yield from (dict(row) for row in rows)
        last = tuple(rows[-1][name] for name in _KEY)
        rows = connection.execute(query.where(sa.tuple_(*key) > last)).mappings().all()


def _merge(
    connection: sa.Connection,
    table: sa.Table,
    more: Mapping[DeviceHour, Sums] | Mapping[ClassHour, Sums],
) -> None:
    """Add to hours; a device's may have begun in the portion before."""
    rows: list[dict[str, Any]] = []
    for key, sums in more.items():
        its = [table.c[name] == value for name, value in key._asdict().items()]
        kept = connection.scalar(sa.select(table.c.body).where(*its))
        if kept is None:
            rows.append({**key._asdict(), "body": rollup.encode(sums)})
            continue
        sums.merge(rollup.decode(kept))
        body = rollup.encode(sums)
        connection.execute(sa.update(table).where(*its).values(body=body))
    for start in range(0, len(rows), _PORTION):
        connection.execute(sa.insert(table), rows[start : start + _PORTION])


def _upgraded(row: Mapping[str, Any]) -> tuple[dict[str, Any], Kept]:
    payload = row["payload"]
    start_ms, received_ms = _ms(row["start"]), _ms(row["received_at"])
    window = Window(
        about=0,
        seq=row["seq"],
        start_ms=start_ms,
        synced=False,
        length_ms=round(payload.get("seconds", 0) * 1000),
        n=row["n"],
        errors=row["errors"],
        latency=_sparse(payload.get("latency_us", {}), MAX_BUCKET),
        confidence=[_count(share) for share in payload.get("confidence", ())],
        classes=_sparse(payload.get("classes", {}), MAX_CLASSES - 1),
        cpu_ms=_count((payload.get("cpu_seconds") or 0) * 1000),
        rss_mib=_count((payload.get("rss_mb") or 0) * (1e6 / 2**20)),
        labelled=row["labelled"],
        correct=row["correct"],
        dropped=_count(payload.get("dropped", 0)),
    )
    kept = Kept(window, placing.provider(payload.get("provider") or placing.OTHER))
    new = {name: row[name] for name in (*_SHARED, "device_id", "seq")} | {
        "boot": bytes.fromhex(row["boot"]),
        "start_ms": start_ms,
        "received_ms": received_ms,
        "lost": 0,
        "body": msgspec.msgpack.encode(kept),
    }
    return new, kept


def _sparse(counts: Mapping[str, int], most: int) -> list[int]:
    """Counts by bucket; devices could send any whole numbers, and windows have bounds now."""
    found: dict[int, int] = {}
    for name, count in counts.items():
        bucket = min(max(0, int(name)), most)
        found[bucket] = _count(found.get(bucket, 0) + count)
    return pack(found)


def _count(value: float) -> int:
    return MAX_INTEGER if value >= MAX_INTEGER else max(0, round(value))


def _downgraded(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = msgspec.msgpack.decode(row["body"], type=Kept)
    window = kept.window
    start = datetime.fromtimestamp(row["start_ms"] / 1000, UTC)
    payload = {
        **{name: row[name] for name in _SHARED},
        "start": start.isoformat(),
        "seconds": window.length_ms / 1000,
        "latency_us": _named(unpack(window.latency, MAX_BUCKET)),
        "confidence": window.confidence,
        "classes": _named(unpack(window.classes, 9_999)),
        "provider": kept.provider,
        "rss_mb": window.rss_mib * 2**20 / 1e6 or None,
        "cpu_seconds": window.cpu_ms / 1000,
        "dropped": window.dropped,
    }
    return {name: row[name] for name in (*_SHARED, "device_id", "seq")} | {
        "boot": bytes(row["boot"]).hex(),
        "start": start,
        "received_at": datetime.fromtimestamp(row["received_ms"] / 1000, UTC),
        "payload": json.loads(json.dumps(payload)),
    }


def _named(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(key): count for key, count in counts.items()}


def _ms(at: datetime) -> int:
    return min(max(0, round(at.timestamp() * 1000)), MAX_START_MS)
