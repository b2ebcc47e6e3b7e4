"""The least versions of trust metadata that a device still accepts.

They are kept apart from the metadata itself, so that whoever wipes the cache or puts an old copy
of it back gains nothing. They rise only with what was verified whole, and begin anew where
TUF says so: when a newer root takes a key of ``timestamp`` or ``snapshot`` out
(specification 1.0, 5.3.11). Whoever had that key may have raised the versions beyond all
bounds, and nobody else could ever pass them; the new root, which the old key cannot
sign, ends that. The same holds for the sequence of ``director`` documents, whose keys are
named by ``targets``. A key that is added takes nothing back, and changes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from edge_client.errors import JournalError, TrustError
from edge_client.files import read_limited, write_atomic
from schemas.errors import DeviceCause
from schemas.trust import DIRECTOR_ROLE

_ONLINE = (Timestamp.type, Snapshot.type)
_LIMIT = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Versions by role; and, for the online roles, the ids of the keys they were reached under."""

    versions: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, role: str) -> int:
        """The least version of a role; 0 where none was seen."""
        return self.versions.get(role, 0)

    def require(self, role: str, version: int) -> None:
        """Refuse a version below the floor.

        Raises:
            TrustError: it is older than what was believed before.
        """
        if version < self.of(role):
            msg = f"{role} is at version {version}, but {self.of(role)} was believed before"
            raise TrustError(DeviceCause.BELOW_FLOOR, msg)

    def raised(self, role: str, version: int) -> Floors:
        """These, with a role at ``version`` at least."""
        if version <= self.of(role):
            return self
        return replace(self, versions={**self.versions, role: version})


FLOORS: TypeAdapter[Floors] = TypeAdapter(Floors)


class FloorStore(Protocol):
    """Where floors are kept."""

    def load(self) -> Floors:
        """The floors; empty ones at first.

        Raises:
            JournalError: they cannot be read, so that nothing may be believed.
        """

    def save(self, floors: Floors, *, anew: frozenset[str]) -> None:
        """Replace them, on the disk when it returns.

        anew: roles whose floors, if kept elsewhere, are to be forgotten.

        Raises:
            JournalError: they could not be written; then the old ones stand.
        """


class FileFloors:
    """Floors in a file of their own, for programs that keep no journal."""

    def __init__(self, path: Path) -> None:
        """Use a file, which need not be there yet."""
        self._path = path

    def load(self) -> Floors:
        """Read the file."""
        try:
            return FLOORS.validate_json(read_limited(self._path, _LIMIT))
        except FileNotFoundError:
            return Floors()
        except (OSError, ValidationError) as error:
            msg = f"the floors in {self._path} cannot be read: {str(error).splitlines()[0]}"
            raise JournalError(msg, hint="restore the file; without it old metadata passes") from (
                error
            )

    def save(self, floors: Floors, *, anew: frozenset[str]) -> None:
        """Replace the file."""
        kept = {role: n for role, n in floors.versions.items() if role not in anew}
        body = FLOORS.dump_json(replace(floors, versions=kept))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(self._path, body, mode=0o600)
        except OSError as error:
            msg = f"the floors in {self._path} could not be written: {error}"
            raise JournalError(msg) from error


def with_root(floors: Floors, root: Root) -> Floors:
    """The floors under a root that was verified from the pinned one on.

    Raises:
        TrustError: the root is older than one that was believed before.
    """
    floors.require(Root.type, root.version)
    keys = {role: tuple(sorted(root.roles[role].keyids)) for role in _ONLINE}
    newer = root.version > floors.of(Root.type)
    if newer and any(_taken_out(floors, role, keys[role]) for role in _ONLINE):
        return Floors(versions={Root.type: root.version}, keys={**floors.keys, **keys})
    return replace(floors.raised(Root.type, root.version), keys={**floors.keys, **keys})


def require_snapshot(floors: Floors, snapshot: Snapshot) -> None:
    """Refuse a snapshot that takes back a role which was believed before.

    Raises:
        TrustError: it lists an older version of it, or does not list it at all.
    """
    floors.require(Snapshot.type, snapshot.version)
    for role in floors.versions:
        if role in {Root.type, DIRECTOR_ROLE, *_ONLINE}:
            continue
        meta = snapshot.meta.get(f"{role}.json")
        if meta is None:
            msg = f"the snapshot lists {role} no more, which was believed before"
            raise TrustError(DeviceCause.BELOW_FLOOR, msg)
        floors.require(role, meta.version)


def with_top(
    floors: Floors, timestamp: Timestamp, snapshot: Snapshot, targets: Targets
) -> tuple[Floors, frozenset[str]]:
    """The floors once all top roles were verified.

    Returns:
        The floors, and the roles whose floors begin anew.
    """
    keys = _director_keys(targets)
    newer = targets.version > floors.of(Targets.type)
    anew = newer and _taken_out(floors, DIRECTOR_ROLE, keys)
    for signed in (timestamp, snapshot, targets):
        floors = floors.raised(signed.type, signed.version)
    floors = replace(floors, keys={**floors.keys, DIRECTOR_ROLE: keys})
    return floors, frozenset({DIRECTOR_ROLE} if anew else ())


def _director_keys(targets: Targets) -> tuple[str, ...]:
    roles = None if targets.delegations is None else targets.delegations.roles
    found = (roles or {}).get(DIRECTOR_ROLE)
    return () if found is None else tuple(sorted(found.keyids))


def _taken_out(floors: Floors, role: str, keys: tuple[str, ...]) -> bool:
    return not set(floors.keys.get(role, ())) <= set(keys)
