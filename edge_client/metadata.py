"""A client for trust metadata (TUF specification 1.0, section 5), usable on its own.

Another program uses it with whatever brings it files::

    def fetch(name: str, limit: int) -> bytes | None:
        ...  # "timestamp.json", "3.root.json"; None: no such file; raises: try later

    client = MetadataClient(
        pinned_root,  # bytes that came by a channel which is trusted
        cache=MetadataCache(folder),
        floors=FileFloors(folder / "floors.json"),
        fetch=fetch,
    )
    client.refresh()
    wanted = client.target("models/digits/3/manifest.json")  # a TargetFile, or None
    if wanted is not None:
        wanted.verify_length_and_hashes(data)

``TrustError`` says that something must not be believed, and why; ``MetadataUnavailableError``
that it is to be tried again; ``JournalError`` that the floors cannot be kept, without which
nothing is believed. A program with a loop of its own drives ``refreshing`` and ``finding``
instead: generators that yield what is wanted and are sent the file, or None.

The rules are those of python-tuf's ``TrustedMetadataSet``, the IO-free part of its
``ngclient.Updater``. The Updater itself is not used because it reads the system's clock, writes
files without fsync and before what follows them was verified, and has no floor beyond
its cache: wiping the folder would let any older version pass. Files are always asked for by
version (consistent snapshots), so that a publication in the middle of a walk does no harm.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tuf.api.exceptions import EqualVersionNumberError
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edge_client.errors import MetadataUnavailableError
from edge_client.metadata_cache import Cache
from edge_client.metadata_floors import FloorStore, require_snapshot, with_root, with_top
from edge_client.metadata_rules import HOSTILE, Delegation, Found, refusals, refuse
from schemas.errors import DeviceCause
from schemas.trust import MAX_METADATA_BYTES

MAX_NEW_ROOTS = 32
"""Roots that one refresh asks for; a device that missed more goes on at the next."""

MAX_KEPT_ROOTS = 1024
MAX_ROLES = 8
"""Roles that the search for one target visits."""

MAX_TIMESTAMP_BYTES = 16 * 1024

_ROLE = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_TIMESTAMP, _SNAPSHOT = "timestamp.json", "snapshot.json"

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be brought: its name, and its length at most, in bytes."""

    name: str
    limit: int


Steps: TypeAlias = Generator[Wanted, bytes | None, _T]
Fetch: TypeAlias = Callable[[str, int], bytes | None]


def check_root(root_json: bytes) -> None:
    """See that a root to be pinned is one, and signed by enough of its own keys.

    Raises:
        TrustError: it is not.
    """
    _pinned(root_json)


class MetadataClient:
    """Trust metadata from a pinned root on. Used from one thread."""

    def __init__(
        self,
        root_json: bytes,
        *,
        cache: Cache,
        floors: FloorStore,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        fetch: Fetch | None = None,
    ) -> None:
        """Put together; nothing is read or asked for yet.

        Args:
            root_json: the pinned root.
            cache: holds what was brought before; nothing rests on it.
            floors: hold the least versions; everything rests on them.
            clock: the time, with a zone.
            fetch: brings a file, for ``refresh`` and ``target``.

        Raises:
            TrustError: the root is malformed, or not signed by enough of its keys.
        """
        self._pinned = root_json
        check_root(root_json)
        self._cache, self._floors, self._clock, self._fetch = cache, floors, clock, fetch
        self._trusted: TrustedMetadataSet | None = None

    def refresh(self) -> None:
        """Bring the top roles up to date, asking ``fetch``.

        Raises:
            TrustError: what came must not be believed; what was believed before stands.
            MetadataUnavailableError: a file is missing.
            JournalError: the floors cannot be kept.
        """
        self._drive(self.refreshing())

    def target(self, path: str) -> TargetFile | None:
        """What the roles that may sign ``path`` say of it, as of the last refresh.

        Returns:
            Length and hashes; None when no role lists it.

        Raises:
            TrustError, MetadataUnavailableError, JournalError: as ``refresh``.
        """
        found = self._drive(self.finding(path))
        return None if found is None else found.file

    def delegated(self, role: str) -> Delegation:
        """Reads documents of a role to which ``targets`` delegates outside of the snapshot.

        Raises:
            TrustError: nothing was refreshed yet, or there is no such role.
        """
        trusted = self._require_trusted()
        return Delegation.of(trusted.root, trusted.targets, role)

    def refreshing(self) -> Steps[None]:
        """``refresh`` as a generator; an answer above its limit is refused here."""
        now = self._clock()
        trusted = _pinned(self._pinned)
        trusted.reference_time = now
        yield from self._walk_roots(trusted)
        floors = self._floors.load()
        rooted = with_root(floors, trusted.root)
        if rooted != floors:
            if len(rooted.versions) < len(floors.versions):  # they begin anew: 5.3.11
                self._forget(_TIMESTAMP, _SNAPSHOT)
            self._floors.save(rooted, anew=frozenset())
        fresh: dict[str, bytes] = {}
        yield from self._take_timestamp(trusted, fresh)
        rooted.require(Timestamp.type, trusted.timestamp.version)
        rooted.require(Snapshot.type, trusted.timestamp.snapshot_meta.version)
        yield from self._take_snapshot(trusted, fresh)
        require_snapshot(rooted, trusted.snapshot)
        yield from self._take_role(trusted, Targets.type, Root.type, fresh)
        top, anew = with_top(rooted, trusted.timestamp, trusted.snapshot, trusted.targets)
        if top != rooted:
            self._floors.save(top, anew=anew)
        self._keep(fresh)
        self._trusted = trusted

    def finding(self, path: str) -> Steps[Found | None]:
        """``target`` as a generator, with the time until which the answer holds.

        Pre-order, depth first, in the order of the delegations (specification 5.6.7).
        """
        trusted = self._require_trusted()
        trusted.reference_time = self._clock()
        floors, fresh = self._floors.load(), dict[str, bytes]()
        to_visit, visited = [(Targets.type, Root.type)], list[str]()
        found = None
        while found is None and to_visit and len(visited) < MAX_ROLES:
            role, parent = to_visit.pop()
            if role in visited:
                continue
            targets = yield from self._take_role(trusted, role, parent, fresh)
            visited.append(role)
            found = targets.targets.get(path)
            children, ends = _children(targets, path)
            to_visit = ([] if ends else to_visit) + [(child, role) for child in children[::-1]]
        seen = [trusted[role] for role in visited]
        raised = floors
        for role, signed in zip(visited, seen, strict=True):
            raised = raised.raised(role, signed.version)
        if raised != floors:
            self._floors.save(raised, anew=frozenset())
        self._keep(fresh)
        if found is None:
            return None
        return Found(found, min(trusted.root.expires, *(signed.expires for signed in seen)))

    def _walk_roots(self, trusted: TrustedMetadataSet) -> Steps[None]:
        """From the pinned root to the newest, each signed by the one before (5.3)."""
        asked = 0
        for _ in range(MAX_KEPT_ROOTS):
            name = f"{trusted.root.version + 1}.{Root.type}.json"
            kept = self._cache.read(name)
            if kept is not None:
                with contextlib.suppress(*HOSTILE):
                    trusted.update_root(kept)
                    continue
            if asked >= MAX_NEW_ROOTS:
                break
            asked += 1
            data = yield Wanted(name, MAX_METADATA_BYTES)
            if data is None:
                return
            with refusals(name, trusted.reference_time):
                trusted.update_root(_bounded(name, data, MAX_METADATA_BYTES))
            self._keep({name: data})
        msg = f"there are more roots than {MAX_NEW_ROOTS} to catch up with; it goes on from here"
        raise MetadataUnavailableError(msg)

    def _take_timestamp(self, trusted: TrustedMetadataSet, fresh: dict[str, bytes]) -> Steps[None]:
        kept = self._cache.read(_TIMESTAMP)
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                trusted.update_timestamp(kept)
        data = yield from _want(_TIMESTAMP, MAX_TIMESTAMP_BYTES)
        with (
            refusals(_TIMESTAMP, trusted.reference_time),
            contextlib.suppress(EqualVersionNumberError),
        ):
            trusted.update_timestamp(data)
            fresh[_TIMESTAMP] = data

    def _take_snapshot(self, trusted: TrustedMetadataSet, fresh: dict[str, bytes]) -> Steps[None]:
        meta, kept = trusted.timestamp.snapshot_meta, self._cache.read(_SNAPSHOT)
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                trusted.update_snapshot(kept, trusted=True)
                meta.verify_length_and_hashes(kept)
                return
        name, limit = f"{meta.version}.{_SNAPSHOT}", _limit(meta.length)
        data = yield from _want(name, limit)
        with refusals(name, trusted.reference_time):
            trusted.update_snapshot(data)
        fresh[_SNAPSHOT] = data

    def _take_role(
        self, trusted: TrustedMetadataSet, role: str, parent: str, fresh: dict[str, bytes]
    ) -> Steps[Targets]:
        if trusted.contains(role, parent):
            return _as_targets(trusted[role])
        meta = trusted.snapshot.meta.get(f"{role}.json")
        if meta is None or not _ROLE.fullmatch(role):
            refuse(DeviceCause.BAD_SIGNATURE, f"the snapshot lists no file of the role {role[:80]}")
        kept = self._cache.read(f"{role}.json")
        if kept is not None:
            with contextlib.suppress(*HOSTILE):
                return trusted.update_delegated_targets(kept, role, parent)
        name = f"{meta.version}.{role}.json"
        data = yield from _want(name, _limit(meta.length))
        with refusals(name, trusted.reference_time):
            targets = trusted.update_delegated_targets(data, role, parent)
        fresh[f"{role}.json"] = data
        return targets

    def _keep(self, files: dict[str, bytes]) -> None:
        """Keep what was verified. Without room for it, it is asked for again."""
        for name, data in files.items():
            try:
                self._cache.write(name, data)
            except OSError as error:
                log.warning("the metadata file %s could not be kept: %s", name, error)

    def _forget(self, *names: str) -> None:
        for name in names:
            try:
                self._cache.remove(name)
            except OSError as error:
                msg = f"the metadata file {name} could not be removed: {error}"
                raise MetadataUnavailableError(msg) from error

    def _drive(self, steps: Steps[_T]) -> _T:
        fetch = self._fetch
        if fetch is None:
            msg = "this client was given nothing that fetches"
            raise MetadataUnavailableError(msg)
        try:
            wanted = next(steps)
            while True:
                wanted = steps.send(fetch(wanted.name, wanted.limit))
        except StopIteration as end:
            value: _T = end.value
            return value

    def _require_trusted(self) -> TrustedMetadataSet:
        if self._trusted is None:
            msg = "no metadata was refreshed yet"
            raise MetadataUnavailableError(msg)
        return self._trusted


def _pinned(root_json: bytes) -> TrustedMetadataSet:
    with refusals("the pinned root", None):
        root = _bounded("the pinned root", root_json, MAX_METADATA_BYTES)
        return TrustedMetadataSet(root, EnvelopeType.METADATA)


def _want(name: str, limit: int) -> Steps[bytes]:
    data = yield Wanted(name, limit)
    if data is None:
        msg = f"there is no {name}"
        raise MetadataUnavailableError(msg)
    return _bounded(name, data, limit)


def _bounded(name: str, data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        refuse(DeviceCause.BAD_SIGNATURE, f"{name} is larger than {limit} bytes")
    return data


def _limit(length: int | None) -> int:
    return MAX_METADATA_BYTES if length is None else min(length, MAX_METADATA_BYTES)


def _children(targets: Targets, path: str) -> tuple[list[str], bool]:
    """The roles below that may sign ``path``; whether no other may be asked after them."""
    children: list[str] = []
    if targets.delegations is not None:
        for role, terminating in targets.delegations.get_roles_for_target(path):
            children.append(role)
            if terminating:
                return children, True
    return children, False


def _as_targets(signed: object) -> Targets:
    if not isinstance(signed, Targets):
        refuse(DeviceCause.BAD_SIGNATURE, "a role is delegated to that signs no targets")
    return signed
