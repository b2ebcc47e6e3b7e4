"""Bare counts of a process that infers, in a file that it maps into its memory.

What is added there outlives a SIGKILL of the process, at the cost of an addition. The owner holds
a lock on the file (flock(2)), which the kernel lets go of when it ends, however it ends: a file
whose lock can be taken is that of a dead process.

Layout, in the machine's own order of bytes, as it never leaves the machine: a header of
``HEADER_BYTES`` (``_HEADER``), then records of ``RECORD_BYTES``: eight 64-bit numbers (``Field``),
and what the record is of in MessagePack.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec

from edge_client.slots import Slot
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

_HEADER = struct.Struct("=8s16s16s")


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


class LiveCounts:
    """Of one process: in memory alone until it has a file. Add under a lock of the caller's.

    words: add to ``words[at + Field.N]`` and its neighbours, where ``at`` is what ``claim`` gave.
    """

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, FILE_BYTES)
        self.words = memoryview(self._map).cast("Q")
        self._fd: int | None = None
        self._path: Path | None = None
        self._serial = 0

    def keep(self, path: Path, *, store: bytes, machine: bytes) -> None:
        """Go on in a file, with all that was counted.

        Raises:
            OSError: there is no room for it, or nothing can be written.
        """
        fd = _create(path)
        try:
            os.posix_fallocate(fd, 0, FILE_BYTES)  # a hole that cannot be filled ends a process
            mapped = mmap.mmap(fd, FILE_BYTES)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise
        mapped[HEADER_BYTES:] = self._map[HEADER_BYTES:]
        mapped[: _HEADER.size] = _HEADER.pack(MAGIC, store, machine)
        self._map, self.words = mapped, memoryview(mapped).cast("Q")
        self._fd, self._path = fd, path

    @property
    def kept(self) -> bool:
        """Whether the counts are in a file."""
        return self._fd is not None

    def belongs(self, store: bytes, machine: bytes) -> None:
        """Say of which telemetry file the counts are from now on."""
        self._map[: _HEADER.size] = _HEADER.pack(MAGIC, store, machine)

    def claim(self, subject: Subject, *, date: float, steady: float) -> tuple[int, int]:
        """A record for a subject: (its first word, its serial); serial 0 where all are taken."""
        meta = msgspec.msgpack.encode(_meta(subject))
        if len(meta) > RECORD_BYTES - META_AT:
            return SPARE, 0
        for at in range(HEADER_BYTES // 8, SPARE, WORDS):
            if self.words[at + Field.SERIAL] == 0:
                self._serial += 1
                for word in range(at + 1, at + WORDS):
                    self.words[word] = 0
                self._map[8 * at + META_AT : 8 * at + META_AT + len(meta)] = meta
                self.words[at + Field.META] = len(meta)
                self.mark(at, date=date, since=steady, last=steady)
                self.words[at + Field.SERIAL] = self._serial  # last: now it counts
                return at, self._serial
        return SPARE, 0

    def mark(self, at: int, *, date: float, since: float, last: float) -> None:
        """From when to when what is not in windows was counted."""
        self.words[at + Field.DATE] = max(0, int(date * 1000))
        self.words[at + Field.SINCE] = max(0, int(since * 1000))
        self.words[at + Field.LAST] = max(0, int(last * 1000))

    def release(self, at: int) -> None:
        """Free a record, all of which is in windows."""
        if at != SPARE:
            self.words[at + Field.SERIAL] = 0

    def totals(self, at: int) -> Totals:
        """What a record counts."""
        return _totals(self.words, at)

    def forget(self) -> None:
        """Remove the file: all of it is in windows."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Let go of the file, for whoever recovers what is in it; what comes is in memory alone."""
        if self._fd is None:
            return
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the mapping holds a descriptor of its own
        self.words = memoryview(bytearray(self._map)).cast("Q")
        self.abandon()

    def abandon(self) -> None:
        """In a child of the process: let go of the file, of which the parent keeps the lock."""
        if self._fd is not None:
            os.close(self._fd)
            with contextlib.suppress(BufferError):  # somebody adds at this moment: at exit, then
                self._map.close()
        self._fd = self._path = None


def read_file(path: Path) -> Left | None:
    """What a process counted; None where it is no whole file of this kind."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES + 1)
    except OSError:
        return None
    if len(raw) != FILE_BYTES:
        return None
    magic, store, machine = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        return None
    words = memoryview(raw).cast("Q")
    records = []
    for at in range(HEADER_BYTES // 8, SPARE, WORDS):
        record = _record(raw, words, at)
        if record is not None:
            records.append(record)
    return Left(store=store, machine=machine, records=tuple(records))


@contextlib.contextmanager
def owned(path: Path) -> Iterator[bool]:
    """Take a dead process's file; False where its process lives, or there is none."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield _same(fd, path)
    finally:
        os.close(fd)


def files(folder: Path) -> list[tuple[bytes, Path]]:
    """(boot, path) of the processes that left something, the oldest of too many left out."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(ValueError):
                boot = bytes.fromhex(path.name)
                if len(boot) == 16:  # noqa: PLR2004 - bytes of a boot id
                    found.append((boot, path))
    return sorted(found)[:MAX_FILES]


def live_processes(folder: Path, *, but: bytes | None = None) -> dict[bytes, dict[str, Totals]]:
    """What each living process counted of each model file, by boot and SHA-256.

    Args:
        folder: with the files.
        but: a boot to leave out, the caller's own.
    """
    found: dict[bytes, dict[str, Totals]] = {}
    for boot, path in files(folder):
        if boot == but or not _held(path):
            continue
        left = read_file(path)
        by_file: dict[str, Totals] = {}
        for record in () if left is None else left.records:
            if record.subject.role == "active":
                sha256 = record.subject.slot.sha256
                by_file[sha256] = _sum(by_file.get(sha256, Totals()), record.totals)
        found[boot] = by_file
    return found


def live_counts(folder: Path, *, but: bytes | None = None) -> dict[str, tuple[int, int]]:
    """(n, errors) of each model file by all living processes, since each of them began with it."""
    found: dict[str, Totals] = {}
    for by_file in live_processes(folder, but=but).values():
        for sha256, totals in by_file.items():
            found[sha256] = _sum(found.get(sha256, Totals()), totals)
    return {sha256: (totals.n, totals.errors) for sha256, totals in found.items()}


def _create(path: Path) -> int:
    """Make a file and lock it; one that was taken for dead in between is made again."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _same(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _held(path: Path) -> bool:
    """Whether its process lives."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _meta(subject: Subject) -> Meta:
    slot = subject.slot
    return Meta(
        subject.role, slot.model, slot.version, slot.variant, slot.sha256, slot.manifest_sha256,
        subject.provider, subject.wanted,
    )  # fmt: skip


def _record(raw: bytes, words: memoryview, at: int) -> Record | None:
    size = words[at + Field.META]
    if words[at + Field.SERIAL] == 0 or size > RECORD_BYTES - META_AT:
        return None
    try:
        start = 8 * at + META_AT
        meta = msgspec.msgpack.decode(raw[start : start + size], type=Meta)
    except msgspec.DecodeError:
        return None  # a power cut tore it
    slot = Slot(
        model=meta.model,
        version=meta.version,
        variant=meta.variant,
        sha256=meta.sha256,
        manifest_sha256=meta.manifest_sha256,
    )
    subject = Subject(slot=slot, role=meta.role, provider=meta.provider, wanted=meta.wanted)
    return Record(
        serial=words[at + Field.SERIAL],
        subject=subject,
        totals=_totals(words, at),
        since=words[at + Field.SINCE] / 1000,
        last=words[at + Field.LAST] / 1000,
        date=words[at + Field.DATE] / 1000,
    )


def _totals(words: memoryview, at: int) -> Totals:
    return Totals(
        n=words[at + Field.N],
        errors=words[at + Field.ERRORS],
        rejected=words[at + Field.REJECTED],
        shed=words[at + Field.SHED],
    )


def _sum(a: Totals, b: Totals) -> Totals:
    return Totals(
        n=a.n + b.n,
        errors=a.errors + b.errors,
        rejected=a.rejected + b.rejected,
        shed=a.shed + b.shed,
    )
