"""Patches: what is kept of them, and who makes them."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from orchestrator.services.records import PatchRecord


class KeptPatches(Protocol):
    """The records of patches.

    bases: of the digests those of files that some version has for devices, and whose bytes
    were not collected. serves: whether a patch of that digest makes a file that devices may
    fetch. made: those that there are, the latest offered first. stale: those whose target no
    device may fetch any more; and of those that came to nothing, what was tried before then.
    """

    def get(self, target: str, base: str) -> PatchRecord | None: ...
    def put(self, record: PatchRecord) -> None: ...
    def remove(self, target: str, base: str) -> None: ...
    def of(self, target: str, bases: Collection[str]) -> Sequence[PatchRecord]: ...
    def bases(self, digests: Collection[str]) -> AbstractSet[str]: ...
    def serves(self, sha256: str) -> bool: ...
    def made(self) -> Sequence[PatchRecord]: ...
    def stale(self, tried_before: datetime, limit: int) -> Sequence[PatchRecord]: ...
    def offered(self, target: str, base: str, at: datetime) -> None: ...


class MadePatch(Protocol):
    """A patch that was just made, in a temporary file. size: bytes."""

    @property
    def sha256(self) -> str: ...
    @property
    def leaves_sha256(self) -> str: ...
    @property
    def size(self) -> int: ...
    def pieces(self) -> Iterator[bytes]: ...


class PatchMaker(Protocol):
    """Makes patches.

    make: the patch from a base to a target, for as long as the block lasts; None when it is
    not worth fetching. It asks ``going`` now and then, and raises GivenUp once that says no;
    NotFound where one of the files is not there.
    """

    def make(
        self, base: str, target: str, going: Callable[[], bool]
    ) -> AbstractContextManager[MadePatch | None]: ...


class GivenUp(Exception):  # noqa: N818 - said by who was asked to stop, and no error
    """The making of a patch was ended before it was done."""
