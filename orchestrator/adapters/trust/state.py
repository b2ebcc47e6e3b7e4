"""The metadata as a device would find it now, read from a folder or from the API."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from orchestrator.adapters.trust.documents import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    delegated_roles,
    file_name,
    has_bins,
    lifetime,
    read,
    verifies,
)
from orchestrator.adapters.trust.layout import standing_of
from orchestrator.errors import Invalid
from orchestrator.services.ports import Standing
from schemas.trust import MODELS_ROLE

Read = Callable[[str], bytes | None]
"""A metadata file by its name, or None where there is none."""


@dataclass(frozen=True, slots=True)
class State:
    """roots: every version, from 1. roles: targets, models and what they delegate to.

    unsound: roles whose signatures do not count under the present keys, as a crash in the
    middle of a change of keys can leave them.
    """

    roots: tuple[bytes, ...]
    root: Metadata[Root]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    roles: Mapping[str, Metadata[Targets]]
    unsound: frozenset[str] = frozenset()

    @property
    def targets(self) -> Targets:
        """The delegations to models and director."""
        return self.roles[TARGETS].signed

    @property
    def models(self) -> Targets:
        """The delegations to the roles of models, or to bins."""
        return self.roles[MODELS_ROLE].signed

    @property
    def bins(self) -> bool:
        """Whether manifests are spread over bins."""
        return has_bins(self.models)

    @property
    def signed_at(self) -> datetime:
        """When the timestamp was signed."""
        return self.timestamp.signed.expires - lifetime(TIMESTAMP)

    def leaves(self) -> list[str]:
        """The roles that list manifests."""
        return delegated_roles(self.models)

    def listed(self) -> frozenset[Standing]:
        """The versions that devices find."""
        found = (
            standing_of(path, target)
            for role in self.leaves()
            if role in self.roles
            for path, target in self.roles[role].signed.targets.items()
        )
        return frozenset(stand for stand in found if stand is not None)

    def versions(self) -> dict[str, int]:
        """Role → version, of every role that any snapshot has had."""
        known = {
            name.removesuffix(".json"): m.version for name, m in self.snapshot.signed.meta.items()
        }
        return known | {role: doc.signed.version for role, doc in self.roles.items()}

    def keyids(self) -> frozenset[str]:
        """The keys that any role has."""
        delegations = self.targets.delegations
        known = set(self.root.signed.keys)
        return frozenset(known | set(delegations.keys if delegations is not None else ()))

    def delegator(self, role: str) -> Root | Targets:
        """Who says which keys sign for a role."""
        if role in {TARGETS, SNAPSHOT, TIMESTAMP, ROOT}:
            return self.root.signed
        return self.targets if role == MODELS_ROLE else self.models


def read_state(read_file: Read) -> State:
    """Read the newest metadata, from root 1 up, checking what a device will.

    Where a role does not verify and its next version does, that is taken: a change of keys
    was cut off after its root was written.

    Raises:
        Invalid: a file is missing or damaged, or a root does not follow from the one before.
    """
    roots = _roots(read_file)
    root = read(roots[-1], Root, file_name(ROOT, len(roots)))
    timestamp = read(_need(read_file, "timestamp.json"), Timestamp, "timestamp.json")
    number = timestamp.signed.snapshot_meta.version
    name = file_name(SNAPSHOT, number)
    snapshot = read(_need(read_file, name), Snapshot, name)
    if snapshot.signed.version != number:
        msg = f"{name} is version {snapshot.signed.version}"
        raise Invalid(msg)
    unsound = {
        role
        for role, sound in (
            (SNAPSHOT, verifies(root.signed, SNAPSHOT, snapshot)),
            (TIMESTAMP, verifies(root.signed, TIMESTAMP, timestamp)),
        )
        if not sound
    }
    roles: dict[str, Metadata[Targets]] = {}
    meta = {name.removesuffix(".json"): m.version for name, m in snapshot.signed.meta.items()}

    def take(role: str, delegator: Root | Targets) -> None:
        roles[role], sound = _role(read_file, role, meta.get(role, 0), delegator)
        if not sound:
            unsound.add(role)

    take(TARGETS, root.signed)
    take(MODELS_ROLE, roles[TARGETS].signed)
    for role in delegated_roles(roles[MODELS_ROLE].signed):
        take(role, roles[MODELS_ROLE].signed)
    return State(tuple(roots), root, snapshot, timestamp, roles, frozenset(unsound))


def digest(raw: bytes) -> str:
    """SHA-256 in hex: how a join token names a root."""
    return hashlib.sha256(raw).hexdigest()


def follows(root: Metadata[Root], before: Metadata[Root]) -> bool:
    """Whether a root is signed by enough keys of its own and of the root before it."""
    return verifies(before.signed, ROOT, root) and verifies(root.signed, ROOT, root)


def _roots(read_file: Read) -> list[bytes]:
    first = _need(read_file, file_name(ROOT, 1))
    roots = [first]
    newest = read(first, Root, file_name(ROOT, 1))
    if not verifies(newest.signed, ROOT, newest):
        msg = f"{file_name(ROOT, 1)} is not signed by its own keys"
        raise Invalid(msg)
    while (raw := read_file(name := file_name(ROOT, len(roots) + 1))) is not None:
        following = read(raw, Root, name)
        if following.signed.version != len(roots) + 1 or not follows(following, newest):
            msg = f"{name} is not signed by enough keys of the root before it and of its own"
            raise Invalid(msg)
        roots.append(raw)
        newest = following
    return roots


def _role(
    read_file: Read, role: str, version: int, delegator: Root | Targets
) -> tuple[Metadata[Targets], bool]:
    first: Metadata[Targets] | None = None
    for number in (version, version + 1):
        raw = read_file(file_name(role, number)) if number else None
        if raw is None:
            continue
        document = read(raw, Targets, file_name(role, number))
        if document.signed.version == number and verifies(delegator, role, document):
            return document, True
        first = first or document
    if first is None:
        msg = f"{file_name(role, version)} is missing"
        raise Invalid(msg)
    return first, False


def _need(read_file: Read, name: str) -> bytes:
    raw = read_file(name)
    if raw is None:
        msg = f"{name} is missing"
        raise Invalid(msg)
    return raw
