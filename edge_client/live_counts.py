"""What the processes of a device count, read from their files.

A file whose lock can be taken is that of a dead process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_client.live_layout import (
    FILE_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_FILES,
    META_AT,
    NOTHING,
    OWN,
    RECORD_BYTES,
    SPARE,
    WORDS,
    Field,
    Left,
    Meta,
    Record,
    Totals,
    same_file,
    totals_at,
)
from edge_client.slots import Slot
from edge_client.tally import Subject


def read_file(path: Path) -> Left | None:
    """What a process counted; None where it is no whole file of this kind."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES + 1)
    except OSError:
        return None
    if len(raw) != FILE_BYTES:
        return None
    magic, store, machine = HEADER.unpack_from(raw)
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
        yield same_file(fd, path)
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


def live_records(folder: Path) -> dict[tuple[bytes, int], Record]:
    """What other living processes count of what serves, by boot and serial.

    A record only grows; it goes with its process, or once it was idle, and then for good.
    """
    found: dict[tuple[bytes, int], Record] = {}
    for boot, path in files(folder):
        if path.name in OWN or not _held(path):
            continue
        left = read_file(path)
        for record in () if left is None else left.records:
            if record.subject.role == "active":
                found[boot, record.serial] = record
    return found


def live_counts(folder: Path) -> dict[str, tuple[int, int]]:
    """(n, errors) of each model file by other living processes, since each began with it."""
    found: dict[str, Totals] = {}
    for record in live_records(folder).values():
        sha256 = record.subject.slot.sha256
        found[sha256] = _sum(found.get(sha256, NOTHING), record.totals)
    return {sha256: (totals.n, totals.errors) for sha256, totals in found.items()}


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
        totals=totals_at(words, at),
        since=words[at + Field.SINCE] / 1000,
        last=words[at + Field.LAST] / 1000,
        date=words[at + Field.DATE] / 1000,
    )


def _sum(a: Totals, b: Totals) -> Totals:
    return Totals(
        n=a.n + b.n,
        errors=a.errors + b.errors,
        rejected=a.rejected + b.rejected,
        shed=a.shed + b.shed,
    )
