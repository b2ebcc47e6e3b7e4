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

    named: which of the digests a version that is not purged, or a job that is not over or
    ended after ``since``, names. lost: a version that was purged and named that digest.
    """

    def all(self) -> Holdings: ...
    def named(self, digests: Collection[str], since: datetime) -> AbstractSet[str]: ...
    def lost(self, sha256: str) -> Ref | None: ...


class Artifacts(Protocol):
    """Content-addressed files."""

    def exists(self, sha256: str) -> bool: ...
    def size(self, sha256: str) -> int: ...
    def leaves(self, sha256: str) -> Sequence[bytes]: ...
    def read_chunk(self, sha256: str, index: int) -> bytes: ...


class ArtifactShelf(Protocol):
    """The artifacts as a whole: what there is, and how it goes.

    delete: unless it was stored, or stored again, since ``before``; answers whether it is
    gone by this call. sweep: removes what uploads that were killed before then have left.
    """

    def exists(self, sha256: str) -> bool: ...
    def stored(self) -> Iterable[Artifact]: ...
    def delete(self, sha256: str, before: datetime) -> bool: ...
    def sweep(self, before: datetime) -> None: ...
