"""Files, and who needs which."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol

from orchestrator.domain.collect import Artifact, Holdings, Ref


class HoldingsView(Protocol):
    """What needs which files.

    named: which of the digests a version that is not purged, a patch for a file of one, or a
    job that is not over or ended after ``since``, names. lost: a version that was purged and
    named that digest.
    """

    def all(self) -> Holdings: ...
    def named(self, digests: Collection[str], since: datetime) -> AbstractSet[str]: ...
    def lost(self, sha256: str) -> Ref | None: ...


class ArtifactMarks(Protocol):
    """Which files somebody needs, or deletes, just now; on whatever server.

    Each mark is its owner's, is good until it ends or is released, and replaces the owner's
    earlier one. Who sets one kind looks for the other in the same writing transaction.
    count: how many of an owner's are good. prune: forgets those that have ended.
    """

    def hold(self, owner: str, digests: Collection[str], until: datetime) -> None: ...
    def condemn(self, owner: str, digests: Collection[str], until: datetime) -> None: ...
    def held(self, digests: Collection[str], now: datetime) -> AbstractSet[str]: ...
    def condemned(self, digests: Collection[str], now: datetime) -> AbstractSet[str]: ...
    def count(self, owner: str, now: datetime) -> int: ...
    def release(self, owner: str) -> None: ...
    def prune(self, now: datetime) -> None: ...


class Artifacts(Protocol):
    """Content-addressed files.

    exists: with ``anew`` by asking the place itself, whatever is remembered of it: another
    server may have deleted the file. read_into: a chunk, into 64 KiB of the caller's; answers
    its length.
    """

    def exists(self, sha256: str, *, anew: bool = False) -> bool: ...
    def size(self, sha256: str) -> int: ...
    def leaves(self, sha256: str) -> Sequence[bytes]: ...
    def read_chunk(self, sha256: str, index: int) -> bytes: ...
    def read_into(self, sha256: str, index: int, into: memoryview) -> int: ...


class ArtifactShelf(Protocol):
    """The artifacts as a whole: what there is, and how it goes.

    delete: unless it was stored, or stored again, since ``before``; answers whether it is
    gone by this call. sweep: removes what uploads that were killed before then have left.
    """

    def stored(self) -> Iterable[Artifact]: ...
    def delete(self, sha256: str, before: datetime) -> bool: ...
    def sweep(self, before: datetime) -> None: ...
