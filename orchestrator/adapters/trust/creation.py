"""The first metadata of a platform, and that of a home which an earlier Argosy made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from orchestrator.adapters.trust.ceremony import OFFLINE, ONLINE, check_threshold
from orchestrator.adapters.trust.documents import (
    DELEGATED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TOP_ROLES,
    delegate,
    expiry,
    file_name,
    keys_of,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    next_of,
    read,
    role_of,
    sign,
    verifies,
)
from orchestrator.adapters.trust.folder import MetadataFolder
from orchestrator.adapters.trust.keys import Keyring, load_keys, make_keys, ring_of
from orchestrator.adapters.trust.planning import Files
from orchestrator.errors import ArgosyError, Conflict, Unavailable
from schemas.trust import MODELS_ROLE, ROOT_FILE, TARGETS_FILE

Signers = Mapping[str, Sequence[CryptoSigner]]


@dataclass(frozen=True, slots=True)
class Offline:
    """Where the keys go that are not to be with the server.

    keys, threshold: how many root keys there are, and how many of them must sign.
    """

    folder: Path
    keys: int = 1
    threshold: int = 1


def make_offline(offline: Offline) -> dict[str, list[CryptoSigner]]:
    """The keys of root, targets and release, in a folder that has none yet.

    Raises:
        Invalid: the threshold has no sense.
        Conflict: the folder has keys already.
        Unavailable: the folder cannot be written.
    """
    check_threshold(offline.threshold, offline.keys)
    if offline.folder.is_dir() and any(offline.folder.glob("*.pem")):
        msg = f"{offline.folder} has keys already"
        raise Conflict(msg, hint="name an empty folder, or one that does not exist")
    return {
        role: make_keys(offline.folder, role, offline.keys if role == ROOT else 1)
        for role in OFFLINE
    }


def create(folder: MetadataFolder, now: datetime, offline: Offline | None = None) -> None:
    """Make keys and metadata; the first root is written last and says that all is there.

    Raises:
        ArgosyError: as ``make_offline``.
    """
    signers: dict[str, list[CryptoSigner]] = {}
    if offline is not None:
        signers |= make_offline(offline)
    for role in (*OFFLINE, *ONLINE):
        if role not in signers:
            signers[role] = make_keys(folder.keys, role)
    keys = {role: [s.public_key for s in found] for role, found in signers.items()}
    threshold = 1 if offline is None else offline.threshold
    root = make_root({role: keys[role] for role in TOP_ROLES}, threshold, now)
    targets = make_targets({role: keys[role] for role in DELEGATED}, 1, now)
    files = _beginning(targets, root, ring_of(s for found in signers.values() for s in found), now)
    folder.write(files | {file_name(ROOT, 1): sign(root, signers[ROOT])})


def upgrade(folder: MetadataFolder, now: datetime) -> None:
    """Take over the store of an earlier layout: one root, one targets, no snapshot.

    Devices keep the root that they pinned: it becomes version 1, and version 2, signed by
    the same key, turns on consistent snapshots. All keys stay.

    Raises:
        Unavailable: a file is damaged, or a key that has to sign is not here.
    """
    try:
        old_root = (folder.path / ROOT_FILE).read_bytes()
        root = read(old_root, Root, ROOT_FILE)
        targets = read((folder.path / TARGETS_FILE).read_bytes(), Targets, TARGETS_FILE)
        ring = load_keys(folder.keys)
        sound = verifies(root.signed, ROOT, root) and verifies(root.signed, TARGETS, targets)
    except (OSError, ArgosyError) as error:
        raise damaged(folder, str(error)) from error
    if not sound:
        raise damaged(folder, f"{ROOT_FILE} and {TARGETS_FILE} are not signed by their keys")
    for role in (*TOP_ROLES, *DELEGATED):
        delegator = root.signed if role in TOP_ROLES else targets.signed
        if not ring.can_sign(role_of(delegator, role)):
            msg = (
                f"{folder.path} was made by an earlier Argosy; to take it over, the key of"
                f" {role} is needed, which is not in {folder.keys}"
            )
            raise Unavailable(msg, hint=f"put {role}.pem back there for one start of argosy up")
    following = next_of(root.signed, ROOT, now)
    following.consistent_snapshot = True
    kept = {role: keys_of(targets.signed, role) for role in DELEGATED}
    fresh = make_targets(kept, targets.signed.version + 1, now)
    files = _beginning(fresh, following, ring, now)
    signers = ring.of(root.signed.roles[ROOT])
    files[file_name(ROOT, 2)] = sign(following, signers)
    folder.write(files | {file_name(ROOT, 1): old_root})


def forget_legacy(folder: MetadataFolder) -> None:
    """Delete the two files of the earlier layout, once they are taken over."""
    for name in (ROOT_FILE, TARGETS_FILE):
        (folder.path / name).unlink(missing_ok=True)


def damaged(folder: MetadataFolder, why: str) -> Unavailable:
    """The error of a trust store that cannot be used."""
    msg = f"the trust store in {folder.path} is damaged: {why}"
    return Unavailable(
        msg, hint="restore the folder from a backup; devices trust this root and no other"
    )


def _beginning(targets: Targets, root: Root, ring: Keyring, now: datetime) -> Files:
    """Everything below a root, before there is any model."""
    release = keys_of(targets, MODELS_ROLE)
    models = Targets(1, None, expiry(MODELS_ROLE, now), {}, delegate(release, (), bins=False))
    meta = {TARGETS: targets.version, MODELS_ROLE: 1}
    return {
        file_name(TARGETS, targets.version): sign(targets, ring.of(root.roles[TARGETS])),
        file_name(MODELS_ROLE, 1): sign(models, ring.of(role_of(targets, MODELS_ROLE))),
        file_name(SNAPSHOT, 1): sign(make_snapshot(1, meta, now), ring.of(root.roles[SNAPSHOT])),
        "timestamp.json": sign(make_timestamp(1, 1, now), ring.of(root.roles["timestamp"])),
    }
