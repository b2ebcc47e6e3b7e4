"""A client for trust metadata (TUF specification 1.0, section 5), usable on its own.

Another program uses it with whatever brings it files::

    def fetch(name: str, limit: int) -> bytes | None:
        ...  # "timestamp.json", "3.root.json"; None: no such file; raises: try later

    client = MetadataClient(
        pinned_root,  # bytes that came by a channel which is trusted
        cache=MetadataCache(folder / "metadata"),
        floors=FileFloors(folder / "floors.json"),  # to be backed up; the cache need not be
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

import datetime as dt
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp

from edge_client.errors import MetadataUnavailableError
from edge_client.metadata_cache import Cache
from edge_client.metadata_floors import FloorStore, require_snapshot, with_root, with_top
from edge_client.metadata_rules import Delegation, Found
from edge_client.metadata_walk import Steps, Walk, check_root

MAX_ROLES = 8
"""Roles that the search for one target visits."""

_T = TypeVar("_T")

Fetch: TypeAlias = Callable[[str, int], bytes | None]


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
        check_root(root_json)
        self._root_json = root_json
        self._cache, self._floors, self._clock, self._fetch = cache, floors, clock, fetch
        self._walk: Walk | None = None

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
            TrustError: there is no such role.
            MetadataUnavailableError: nothing was refreshed yet.
        """
        trusted = self._last_walk().trusted
        return Delegation.of(trusted.root, trusted.targets, role)

    def refreshing(self) -> Steps[None]:
        """``refresh`` as a generator."""
        walk = Walk(self._root_json, self._cache, self._clock())
        trusted = walk.trusted
        yield from walk.roots()
        floors = self._floors.load()
        rooted = with_root(floors, trusted.root)
        if rooted != floors:
            if len(rooted.versions) < len(floors.versions):  # they begin anew
                walk.forget_online()
            self._floors.save(rooted, anew=frozenset())
        yield from walk.timestamp()
        rooted.require(Timestamp.type, trusted.timestamp.version)
        rooted.require(Snapshot.type, trusted.timestamp.snapshot_meta.version)
        yield from walk.snapshot()
        require_snapshot(rooted, trusted.snapshot)
        yield from walk.role(Targets.type, Root.type)
        top, anew = with_top(rooted, trusted.timestamp, trusted.snapshot, trusted.targets)
        if top != rooted:
            self._floors.save(top, anew=anew)
        walk.keep()
        self._walk = walk

    def finding(self, path: str) -> Steps[Found | None]:
        """``target`` as a generator, with the time until which the answer holds.

        Pre-order, depth first, in the order of the delegations (5.6.7).
        """
        walk = self._last_walk()
        walk.trusted.reference_time = self._clock()
        to_visit = [(Targets.type, Root.type)]
        seen: dict[str, Targets] = {}
        found = None
        while found is None and to_visit and len(seen) < MAX_ROLES:
            role, parent = to_visit.pop()
            if role in seen:
                continue
            seen[role] = yield from walk.role(role, parent)
            found = seen[role].targets.get(path)
            children, ends = _children(seen[role], path)
            to_visit = ([] if ends else to_visit) + [(child, role) for child in children[::-1]]
        floors = raised = self._floors.load()
        for role, targets in seen.items():
            raised = raised.raised(role, targets.version)
        if raised != floors:
            self._floors.save(raised, anew=frozenset())
        walk.keep()
        if found is None:
            return None
        return Found(found, min(walk.trusted.root.expires, *(t.expires for t in seen.values())))

    def _last_walk(self) -> Walk:
        if self._walk is None:
            msg = "no trust metadata was refreshed yet"
            raise MetadataUnavailableError(msg)
        return self._walk

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


def _children(targets: Targets, path: str) -> tuple[list[str], bool]:
    """The roles below that may sign ``path``; whether no other may be asked after them."""
    children: list[str] = []
    if targets.delegations is not None:
        for role, terminating in targets.delegations.get_roles_for_target(path):
            children.append(role)
            if terminating:
                return children, True
    return children, False
