"""What has to be signed now, and the files that come of it. Pure but for the signatures."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from orchestrator.adapters.trust.documents import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    delegate,
    expiry,
    file_name,
    keys_of,
    lifetime,
    make_snapshot,
    make_timestamp,
    next_of,
    role_of,
    sign,
)
from orchestrator.adapters.trust.keys import Keyring
from orchestrator.adapters.trust.layout import Layout, lay_out
from orchestrator.adapters.trust.state import State
from orchestrator.services.ports import Standing
from schemas.trust import MODELS_ROLE

Files = dict[str, bytes]
"""Metadata files by name, in the order in which they are to be written."""

RENEW_BEFORE = timedelta(days=90)
"""Roles of a year are signed anew when less of it is left, while their keys are at hand."""


def expiring(signed: Root | Targets, now: datetime, within: timedelta = RENEW_BEFORE) -> bool:
    """Whether metadata expires soon, or has."""
    return bool(signed.expires - now < within)


def due_at(state: State, ring: Keyring) -> datetime:
    """When something has to be signed anew although nothing changes."""
    moments = [
        document.signed.expires - lifetime(role) / 2
        for role, document in ((SNAPSHOT, state.snapshot), (TIMESTAMP, state.timestamp))
    ]
    if ring.can_sign(state.root.signed.roles[ROOT]):
        moments.append(state.root.signed.expires - RENEW_BEFORE)
    moments += [
        document.signed.expires - RENEW_BEFORE
        for role, document in state.roles.items()
        if ring.can_sign(role_of(state.delegator(role), role))
    ]
    return min(moments)


def root_file(state: State, ring: Keyring, now: datetime) -> Files:
    """The same root for another year, where it expires soon and its keys are here."""
    root = state.root.signed
    if not expiring(root, now) or not ring.can_sign(root.roles[ROOT]):
        return {}
    following = next_of(root, ROOT, now)
    return {file_name(ROOT, following.version): sign(following, ring.of(root.roles[ROOT]))}


def targets_file(state: State, ring: Keyring, now: datetime) -> Files:
    """The same delegations again, where they expire soon or their signature is not sound."""
    role = state.root.signed.roles[TARGETS]
    if not (expiring(state.targets, now) or TARGETS in state.unsound) or not ring.can_sign(role):
        return {}
    following = next_of(state.targets, TARGETS, now)
    return {file_name(TARGETS, following.version): sign(following, ring.of(role))}


def model_files(state: State, stands: Collection[Standing], ring: Keyring, now: datetime) -> Files:
    """The models role and those below it, as far as they differ from what stands.

    Empty when they say it already, or when the release keys are not in the ring.
    """
    release = role_of(state.targets, MODELS_ROLE)
    if not ring.can_sign(release):
        return {}
    layout = lay_out(stands, state.leaves(), bins=state.bins)
    files = _leaf_files(state, layout, ring.of(release), now)
    delegations = delegate(keys_of(state.targets, MODELS_ROLE), layout.models, bins=layout.bins)
    models = state.models
    stale = expiring(models, now) or MODELS_ROLE in state.unsound
    if stale or models.delegations != delegations:
        following = Targets(models.version + 1, None, expiry(MODELS_ROLE, now), {}, delegations)
        files[file_name(MODELS_ROLE, following.version)] = sign(following, ring.of(release))
    return files


def _leaf_files(state: State, layout: Layout, signers: list[CryptoSigner], now: datetime) -> Files:
    versions = state.versions()
    rekeyed = _leaf_keys(state) != {signer.public_key.keyid for signer in signers}
    files: Files = {}
    for role, targets in layout.roles.items():
        there = state.roles.get(role) if role in state.leaves() else None
        fresh = (
            there is not None
            and not rekeyed
            and role not in state.unsound
            and not expiring(there.signed, now)
            and there.signed.targets == targets
        )
        if not fresh:
            version = versions.get(role, 0) + 1
            signed = Targets(version, None, expiry(role, now), dict(targets))
            files[file_name(role, version)] = sign(signed, signers)
    return files


def _leaf_keys(state: State) -> set[str]:
    delegations = state.models.delegations
    return set() if delegations is None else set(delegations.keys)


def online_files(
    state: State,
    changed: Mapping[str, int],
    ring: Keyring,
    now: datetime,
    *,
    root: Root | None = None,
    anew: bool = False,
) -> Files:
    """Snapshot and timestamp, where a role changed, or half of their life is over.

    Args:
        state: the metadata that is published.
        changed: role → its new version.
        ring: holds the online keys.
        now: the time.
        root: the root that comes next, if its keys shall sign too: what they sign then
            counts under both, so that the new root can be written at any moment after.
        anew: sign both whatever their age.
    """
    files: Files = {}
    snapshot = state.snapshot.signed
    if changed or anew or _half_over(SNAPSHOT, state, now) or root is not None:
        versions = {**state.versions(), **changed}
        following = make_snapshot(snapshot.version + 1, versions, now)
        files[file_name(SNAPSHOT, following.version)] = sign(
            following, _online(SNAPSHOT, state, ring, root)
        )
        snapshot = following
    if files or _half_over(TIMESTAMP, state, now):
        number = state.timestamp.signed.version + 1
        timestamp = make_timestamp(number, snapshot.version, now)
        files["timestamp.json"] = sign(timestamp, _online(TIMESTAMP, state, ring, root))
    return files


def versions_of(files: Mapping[str, bytes]) -> dict[str, int]:
    """Role → version of the files, for a snapshot."""
    changed = {}
    for name in files:
        number, _, role = name.removesuffix(".json").partition(".")
        if role and role not in {ROOT, SNAPSHOT}:
            changed[role] = int(number)
    return changed


def with_targets(state: State, targets: Metadata[Targets]) -> State:
    """The state with other delegations to models and director."""
    changed = copy.copy(dict(state.roles)) | {TARGETS: targets}
    return State(state.roots, state.root, state.snapshot, state.timestamp, changed, state.unsound)


def _half_over(role: str, state: State, now: datetime) -> bool:
    document = state.snapshot if role == SNAPSHOT else state.timestamp
    return role in state.unsound or document.signed.expires - now <= lifetime(role) / 2


def _online(role: str, state: State, ring: Keyring, root: Root | None) -> list[CryptoSigner]:
    both = [state.root.signed.roles[role], *([root.roles[role]] if root else [])]
    found = {s.public_key.keyid: s for keys in both for s in ring.of(keys)}
    return list(found.values())
