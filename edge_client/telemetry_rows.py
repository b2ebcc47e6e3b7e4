"""Windows as rows of the telemetry file: its tables, and what is written and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from edge_client.live_layout import NOTHING, Totals
from schemas.window import About, Window

SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, boot BLOB NOT NULL, machine BLOB NOT NULL,
  steady REAL NOT NULL, date REAL NOT NULL, about BLOB NOT NULL, body BLOB NOT NULL,
  dropped INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS store (
  id INTEGER PRIMARY KEY CHECK (id = 1), name BLOB NOT NULL, lost INTEGER NOT NULL,
  n INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO store VALUES (1, randomblob(16), 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON windows BEGIN
  UPDATE store SET n = n + 1, bytes = bytes + length(NEW.about) + length(NEW.body); END;
CREATE TRIGGER IF NOT EXISTS fewer AFTER DELETE ON windows BEGIN
  UPDATE store SET n = n - 1, bytes = bytes - length(OLD.about) - length(OLD.body); END;
CREATE TABLE IF NOT EXISTS processes (boot BLOB PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS marks (
  boot BLOB NOT NULL, serial INTEGER NOT NULL, n INTEGER NOT NULL, errors INTEGER NOT NULL,
  rejected INTEGER NOT NULL, shed INTEGER NOT NULL, PRIMARY KEY (boot, serial));
CREATE TABLE IF NOT EXISTS clocks (
  machine BLOB PRIMARY KEY, offset REAL NOT NULL, error REAL NOT NULL, at REAL NOT NULL);
"""

_encoder = msgspec.msgpack.Encoder()
_window = msgspec.msgpack.Decoder(Window)
_about = msgspec.msgpack.Decoder(About)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A window to be written. window: numbered and dated when it is known how.

    steady, date: when it began, in seconds of the machine's steady clock and of the device's.
    serial, totals: the record of the live counts that it is of (0: none), as far as it goes.
    """

    about: About
    window: Window
    machine: bytes
    steady: float
    date: float
    serial: int = 0
    totals: Totals = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A window on the disk. about: in MessagePack. size: bytes of both."""

    id: int
    about: bytes
    window: Window
    size: int
    machine: bytes
    steady: float
    date: float


def pack(value: About | Window) -> bytes:
    """As it stands in a row, in MessagePack.

    Raises:
        OverflowError: a number in it is larger than any that can be written.
    """
    return _encoder.encode(value)


def read_row(row: tuple[Any, ...]) -> Waiting:
    """A window from id, about, body, machine, steady and date.

    Raises:
        msgspec.MsgspecError, TypeError, ValueError: it is damaged.
    """
    about, body = bytes(row[1]), bytes(row[2])
    _about.decode(about)
    return Waiting(
        id=row[0],
        about=about,
        window=_window.decode(body),
        machine=bytes(row[3]),
        steady=float(row[4]),
        date=float(row[5]),
        size=len(about) + len(body),
    )
