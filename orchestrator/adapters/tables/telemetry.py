"""The tables of telemetry: windows, their roll-ups, and samples.

Times are milliseconds and hours since 1970: thousands of rows are written in a second, and whole
numbers cost a third of dates.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Index, LargeBinary, String, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class Blob(TypeDecorator[bytes]):
    """Bytes as they are: both drivers take them without a ``memoryview`` around each."""

    impl = LargeBinary
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """None: nothing is to be done."""
        return None


class WindowRow(Base):
    """A telemetry window, stored once per (device, boot, seq).

    The index by version ends with the time of receipt, so that rows are appended to it, and not
    put in at a place for each device. The one by device is put in at such places, and makes a bare
    insertion of rows take 1.6 times as long: without it a verdict on some hundred devices would
    read what a hundred thousand told, for neither of the others leads to a device's last hour.
    """

    __tablename__ = "windows"
    __table_args__ = (
        Index("ix_windows_version", "model", "version", "received_ms"),
        Index("ix_windows_received", "received_ms"),
        Index("ix_windows_device", "device_id", "start_ms"),
    )

    device_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    boot: Mapped[bytes] = mapped_column(Blob(16), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    variant: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(8))
    start_ms: Mapped[int]
    received_ms: Mapped[int]
    n: Mapped[int]
    errors: Mapped[int]
    lost: Mapped[int]
    labelled: Mapped[int]
    correct: Mapped[int]
    body: Mapped[bytes] = mapped_column(Blob)


class DeviceHourRow(Base):
    """What a device did in an hour with a variant (``domain.rollup``).

    The hour comes before the device, so that those who report at the same time stand together.
    """

    __tablename__ = "device_hours"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's form

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device: Mapped[str] = mapped_column(String(32), primary_key=True)
    role: Mapped[str] = mapped_column(String(8), primary_key=True)
    variant: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(Blob)


class ClassHourRow(Base):
    """What the devices of a class did in an hour with a variant (``domain.rollup``)."""

    __tablename__ = "class_hours"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's form

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_class: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(8), primary_key=True)
    variant: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(Blob)


class SampleRow(Base):
    """An input that a device gave away; ``body`` is the message as it came."""

    __tablename__ = "samples"
    __table_args__ = (
        Index("ix_samples_oldest", "model", "stream", "received_ms"),
        Index("ix_samples_received", "received_ms"),
    )

    device_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    boot: Mapped[bytes] = mapped_column(Blob(16), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    variant: Mapped[str] = mapped_column(String(64))
    stream: Mapped[str] = mapped_column(String(16))
    received_ms: Mapped[int]
    body: Mapped[bytes] = mapped_column(Blob)


class SampleTotalRow(Base):
    """How many bytes of samples are kept of a model's stream; changed with the rows."""

    __tablename__ = "sample_totals"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    stream: Mapped[str] = mapped_column(String(16), primary_key=True)
    bytes: Mapped[int]
