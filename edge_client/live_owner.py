"""Bare counts of a process that infers, in a file that it maps into its memory.

What is added there outlives a SIGKILL of the process, at the cost of an addition. The owner holds
a lock on the file (flock(2)), which the kernel lets go of when it ends, however it ends: a file
whose lock can be taken is that of a dead process.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from pathlib import Path

import msgspec

from edge_client.live_layout import (
    FILE_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    META_AT,
    OWN,
    RECORD_BYTES,
    SPARE,
    WORDS,
    Field,
    Meta,
    Totals,
    same_file,
    totals_at,
)
from edge_client.tally import Subject


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
        mapped[: HEADER.size] = HEADER.pack(MAGIC, store, machine)
        self._map, self.words = mapped, memoryview(mapped).cast("Q")
        self._fd, self._path = fd, path
        OWN.add(path.name)

    @property
    def kept(self) -> bool:
        """Whether the counts are in a file."""
        return self._fd is not None

    def belongs(self, store: bytes, machine: bytes) -> None:
        """Say of which telemetry file the counts are from now on."""
        self._map[: HEADER.size] = HEADER.pack(MAGIC, store, machine)

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
        return totals_at(self.words, at)

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
        if self._path is not None:
            OWN.discard(self._path.name)
        self._fd = self._path = None


def _create(path: Path) -> int:
    """Make a file and lock it; one that was taken for dead in between is made again."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if same_file(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _meta(subject: Subject) -> Meta:
    slot = subject.slot
    return Meta(
        subject.role, slot.model, slot.version, slot.variant, slot.sha256, slot.manifest_sha256,
        subject.provider, subject.wanted,
    )  # fmt: skip
