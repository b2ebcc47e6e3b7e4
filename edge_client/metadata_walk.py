"""One walk over trust metadata: file by file, each verified before the next is asked for.

The order and the rules are those of the TUF client workflow (specification 1.0, 5.3 to 5.6), as
python-tuf's ``TrustedMetadataSet`` has them. A walk asks for a file by yielding a ``Wanted``
and is sent its bytes, or None where there is no such file. What was kept of an earlier walk
is verified like what comes now; where it does not hold, it is asked for.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tuf.api.exceptions import EqualVersionNumberError
from tuf.api.metadata import Root, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edge_client.errors import MetadataUnavailableError
from edge_client.metadata_cache import Cache
from edge_client.metadata_rules import HOSTILE, refusals, refuse
from schemas.errors import DeviceCause
from schemas.trust import MAX_METADATA_BYTES

MAX_NEW_ROOTS = 32
"""Roots that one walk asks for; a device that missed more goes on at the next."""

MAX_KEPT_ROOTS = 1024
MAX_TIMESTAMP_BYTES = 16 * 1024
TIMESTAMP, SNAPSHOT = "timestamp.json", "snapshot.json"

_ROLE = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be brought: its name, and its length at most, in bytes."""

    name: str
    limit: int


Steps: TypeAlias = Generator[Wanted, bytes | None, _T]


def check_root(root_json: bytes) -> None:
    """See that a root to be pinned is one, and signed by enough of its own keys.

    Raises:
        TrustError: it is not.
    """
    _pinned(root_json)


class Walk:
    """The metadata that was verified in one walk; ``trusted`` holds it."""

    def __init__(self, root_json: bytes, cache: Cache, now: dt.datetime) -> None:
        """Begin at the pinned root. now: for expiry, which intermediate roots may have passed.

        Raises:
            TrustError: the root does not hold.
        """
        self.trusted = _pinned(root_json)
        self.trusted.reference_time = now
        self._cache = cache
        self._fresh: dict[str, bytes] = {}

    def roots(self) -> Steps[None]:
        """From the pinned root to the newest, each signed by the one before (5.3)."""
        asked = 0
        for _ in range(MAX_KEPT_ROOTS):
            name = f"{self.trusted.root.version + 1}.{Root.type}.json"
            kept = self._cache.read(name)
            if kept is not None:
                with contextlib.suppress(*HOSTILE):
                    self.trusted.update_root(kept)
                    continue
            if asked >= MAX_NEW_ROOTS:
                break
            asked += 1
            data = yield Wanted(name, MAX_METADATA_BYTES)
            if data is None:
                return
            with self._refusals(name):
                self.trusted.update_root(bounded(name, data, MAX_METADATA_BYTES))
            self._fresh[name] = data
            self.keep()  # it holds, whatever comes after it (5.3.8)
        msg = f"there are more than {MAX_NEW_ROOTS} new roots; the next refresh goes on from here"
        raise MetadataUnavailableError(msg)

    def timestamp(self) -> Steps[None]:
        """The newest timestamp, or the kept one when it is that (5.4)."""
        kept = self._cache.read(TIMESTAMP)
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                self.trusted.update_timestamp(kept)
        data = yield from _want(TIMESTAMP, MAX_TIMESTAMP_BYTES)
        with self._refusals(TIMESTAMP), contextlib.suppress(EqualVersionNumberError):
            self.trusted.update_timestamp(data)
            self._fresh[TIMESTAMP] = data

    def snapshot(self) -> Steps[None]:
        """The snapshot that the timestamp names (5.5)."""
        meta, kept = self.trusted.timestamp.snapshot_meta, self._cache.read(SNAPSHOT)
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                self.trusted.update_snapshot(kept, trusted=True)
                meta.verify_length_and_hashes(kept)
                return
        name = f"{meta.version}.{SNAPSHOT}"
        data = yield from _want(name, _limit(meta.length))
        with self._refusals(name):
            self.trusted.update_snapshot(data)
        self._fresh[SNAPSHOT] = data

    def role(self, role: str, parent: str) -> Steps[Targets]:
        """``targets``, or a role that ``parent`` delegates to, as the snapshot has it (5.6)."""
        if self.trusted.contains(role, parent):
            return _as_targets(self.trusted[role])
        meta = self.trusted.snapshot.meta.get(f"{role}.json")
        if meta is None or not _ROLE.fullmatch(role):
            refuse(DeviceCause.BAD_SIGNATURE, f"the snapshot lists no file of the role {role[:80]}")
        kept = self._cache.read(f"{role}.json")
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                return self.trusted.update_delegated_targets(kept, role, parent)
        name = f"{meta.version}.{role}.json"
        data = yield from _want(name, _limit(meta.length))
        with self._refusals(name):
            targets = self.trusted.update_delegated_targets(data, role, parent)
        self._fresh[f"{role}.json"] = data
        return targets

    def keep(self) -> None:
        """Keep what was verified. Without room for it, it is asked for again."""
        for name, data in self._fresh.items():
            try:
                self._cache.write(name, data)
            except OSError as error:
                log.warning("the metadata file %s could not be kept: %s", name, error)
        self._fresh.clear()

    def forget_online(self) -> None:
        """Remove what the online keys of an older root signed (5.3.11).

        Raises:
            MetadataUnavailableError: it could not be removed; try again.
        """
        for name in (TIMESTAMP, SNAPSHOT):
            try:
                self._cache.remove(name)
            except OSError as error:
                msg = f"the metadata file {name} could not be removed: {error}"
                raise MetadataUnavailableError(msg) from error

    def _refusals(self, name: str) -> contextlib.AbstractContextManager[None]:
        return refusals(name, self.trusted.reference_time)


def bounded(name: str, data: bytes, limit: int) -> bytes:
    """Give a file back.

    Raises:
        TrustError: it is larger than its limit.
    """
    if len(data) > limit:
        refuse(DeviceCause.BAD_SIGNATURE, f"{name} is larger than {limit} bytes")
    return data


def _pinned(root_json: bytes) -> TrustedMetadataSet:
    what = "the pinned root"
    with refusals(what, None):
        root = bounded(what, root_json, MAX_METADATA_BYTES)
        return TrustedMetadataSet(root, EnvelopeType.METADATA)


def _want(name: str, limit: int) -> Steps[bytes]:
    data = yield Wanted(name, limit)
    if data is None:
        msg = f"there is no {name}"
        raise MetadataUnavailableError(msg)
    return bounded(name, data, limit)


def _limit(length: int | None) -> int:
    return MAX_METADATA_BYTES if length is None else min(length, MAX_METADATA_BYTES)


def _as_targets(signed: object) -> Targets:
    if not isinstance(signed, Targets):
        refuse(DeviceCause.BAD_SIGNATURE, "a role is delegated to that signs no targets")
    return signed
