"""The file of bare counts of a process: where what is.

In the machine's own order of bytes, as it never leaves the machine: a header of ``HEADER_BYTES``
(``HEADER``), then records of ``RECORD_BYTES``: nine 64-bit numbers (``Field``), and what the record
is of in MessagePack (``Meta``).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec

from edge_client.tally import Subject
from schemas.window import Role

MAGIC = b"ARGOLIV1"
HEADER_BYTES = 4096
RECORD_BYTES = 1024
RECORDS = 64
WORDS = RECORD_BYTES // 8
META_AT = 8 * 9
ENDS = HEADER_BYTES + RECORDS * RECORD_BYTES
FILE_BYTES = ENDS + RECORD_BYTES
SPARE = ENDS // 8
"""The last record is nobody's: it takes what is counted where all others are taken."""
MAX_FILES = 1024

OWN: set[str] = set()
"""Names of this process's own files."""

HEADER = struct.Struct("=8s16s16s")


class Field(IntEnum):
    """Words of a record. SERIAL: 0 where it is free. SINCE: milliseconds of the steady clock."""

    SERIAL = 0
    N = 1
    ERRORS = 2
    REJECTED = 3
    SHED = 4
    SINCE = 5
    LAST = 6
    DATE = 7
    META = 8


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """What a record is of."""

    role: Role
    model: str
    version: int
    variant: str
    sha256: str
    manifest_sha256: str
    provider: str
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Since the record began."""

    n: int = 0
    errors: int = 0
    rejected: int = 0
    shed: int = 0

    def beyond(self, other: Totals) -> Totals:
        """What is here and not in ``other``, which a power cut may have left ahead."""
        names = ("n", "errors", "rejected", "shed")
        return Totals(
            **{name: max(0, getattr(self, name) - getattr(other, name)) for name in names}
        )

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""
        return not (self.n or self.errors or self.rejected or self.shed)


NOTHING = Totals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One subject of a process. since, last: steady seconds of what is not in windows yet."""

    serial: int
    subject: Subject
    totals: Totals
    since: float
    last: float
    date: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A file as it was read. store: of which telemetry file its counts are."""

    store: bytes
    machine: bytes
    records: tuple[Record, ...]


def totals_at(words: memoryview, at: int) -> Totals:
    """What the record at a word counts."""
    return Totals(
        n=words[at + Field.N],
        errors=words[at + Field.ERRORS],
        rejected=words[at + Field.REJECTED],
        shed=words[at + Field.SHED],
    )


def same_file(fd: int, path: Path) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False
