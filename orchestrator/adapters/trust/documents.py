"""Metadata files: how they are named, made, read and signed. No IO."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    SuccinctRoles,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError, SerializationError
from tuf.api.serialization.json import JSONSerializer

from orchestrator.errors import Invalid
from schemas.trust import (
    BIN_BITS,
    BIN_PREFIX,
    DIRECTOR_PATHS,
    DIRECTOR_ROLE,
    MAX_METADATA_BYTES,
    MODEL_ROLE_PREFIX,
    MODELS_PATHS,
    MODELS_ROLE,
    model_paths,
)

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = Root.type, Targets.type, Snapshot.type, Timestamp.type
TOP_ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
DELEGATED = {MODELS_ROLE: MODELS_PATHS, DIRECTOR_ROLE: DIRECTOR_PATHS}
"""What ``targets`` delegates, and the target paths that go with it."""

_ONLINE_LIFETIME = {SNAPSHOT: timedelta(days=7), TIMESTAMP: timedelta(days=1)}
_LIFETIME = timedelta(days=365)
_NAME = re.compile(r"^(?:([1-9][0-9]{0,8})\.)?([a-z0-9][a-z0-9-]{0,79})\.json$")
_COMPACT = JSONSerializer(compact=True)

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


def lifetime(role: str) -> timedelta:
    """How long a role's metadata is valid once it is signed."""
    return _ONLINE_LIFETIME.get(role, _LIFETIME)


def expiry(role: str, now: datetime) -> datetime:
    """When metadata that a role signs now expires; whole seconds, as TUF has it."""
    return (now.astimezone(UTC) + lifetime(role)).replace(microsecond=0)


def file_name(role: str, version: int) -> str:
    """The name of a metadata file, as a consistent snapshot has it."""
    return "timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json"


def split_name(name: str) -> tuple[str, int | None]:
    """The role and version that a file name says.

    Raises:
        Invalid: it is not the name of a metadata file.
    """
    found = _NAME.match(name)
    if found is None or (found[1] is None) != (found[2] == TIMESTAMP):
        msg = f"{name!r} is not the name of a metadata file, as in 3.models.json"
        raise Invalid(msg)
    return found[2], None if found[1] is None else int(found[1])


def read(raw: bytes, kind: type[S], what: str) -> Metadata[S]:
    """A metadata file of one kind; its signatures are not looked at.

    Raises:
        Invalid: it is too large, malformed or of another kind.
    """
    if len(raw) > MAX_METADATA_BYTES:
        msg = f"{what} is larger than {MAX_METADATA_BYTES} bytes"
        raise Invalid(msg)
    try:
        document = Metadata[S].from_bytes(raw)
    except (DeserializationError, RecursionError) as error:
        msg = f"{what} is not TUF metadata"
        raise Invalid(msg) from error
    if not isinstance(document.signed, kind):
        msg = f"{what} is {document.signed.type} metadata, not {kind.type}"
        raise Invalid(msg)
    return document


def sign(signed: S, signers: Iterable[CryptoSigner]) -> bytes:
    """A metadata file, signed by each of the signers."""
    document = Metadata[S](signed)
    for signer in signers:
        document.sign(signer, append=True)
    return document.to_bytes(_COMPACT)


def to_bytes(document: Metadata[S]) -> bytes:
    """A metadata file as it is stored."""
    return document.to_bytes(_COMPACT)


def verifies(delegator: Root | Targets, role: str, document: Metadata[S]) -> bool:
    """Whether enough of a role's keys signed a document, as its delegator has it."""
    try:
        delegator.verify_delegate(role, document.signed_bytes, document.signatures)
    except (UnsignedMetadataError, SerializationError, ValueError):
        return False
    return True


def make_root(keys: Mapping[str, Sequence[Key]], threshold: int, now: datetime) -> Root:
    """The first root. keys: of each top role; threshold: of the root's own."""
    root = Root(1, None, expiry(ROOT, now), consistent_snapshot=True)
    return rekeyed(root, keys, threshold)


def rekeyed(root: Root, keys: Mapping[str, Sequence[Key]], threshold: int | None = None) -> Root:
    """A root whose roles in ``keys`` have other keys. threshold: of the root's own."""
    changed: Root = copy.deepcopy(root)
    for role, fresh in keys.items():
        for keyid in list(changed.roles[role].keyids):
            changed.revoke_key(keyid, role)
        for key in fresh:
            changed.add_key(key, role)
    if threshold is not None:
        changed.roles[ROOT].threshold = threshold
    return changed


def make_targets(keys: Mapping[str, Sequence[Key]], version: int, now: datetime) -> Targets:
    """The targets role, which lists nothing and delegates. keys: of models and director."""
    roles = {
        role: DelegatedRole(
            role, [key.keyid for key in keys[role]], 1, terminating=True, paths=[paths]
        )
        for role, paths in DELEGATED.items()
    }
    known = {key.keyid: key for role in DELEGATED for key in keys[role]}
    return Targets(version, None, expiry(TARGETS, now), {}, Delegations(known, roles))


def delegate(keys: Sequence[Key], models: Iterable[str], *, bins: bool) -> Delegations:
    """What the models role delegates: to a role for each model, or to hashed bins (TAP 15).

    keys: the release keys, of which one signs.
    """
    keyids = [key.keyid for key in keys]
    known = {key.keyid: key for key in keys}
    if bins:
        return Delegations(known, None, SuccinctRoles(keyids, 1, BIN_BITS, BIN_PREFIX))
    roles = {
        MODEL_ROLE_PREFIX + model: DelegatedRole(
            MODEL_ROLE_PREFIX + model, keyids, 1, terminating=True, paths=[model_paths(model)]
        )
        for model in sorted(models)
    }
    return Delegations(known, roles)


def has_bins(models: Targets) -> bool:
    """Whether the models role spreads manifests over hashed bins."""
    return models.delegations is not None and models.delegations.succinct_roles is not None


def delegated_roles(models: Targets) -> list[str]:
    """The roles to which the models role delegates."""
    if models.delegations is None:
        return []
    if models.delegations.succinct_roles is not None:
        return list(models.delegations.succinct_roles.get_roles())
    return list(models.delegations.roles or {})


def role_of(delegator: Root | Targets, role: str) -> Role:
    """The keys and the threshold that a delegator gives a role."""
    return delegator.get_delegated_role(role)


def keys_of(delegator: Root | Targets, role: str) -> list[Key]:
    """The public keys that a delegator gives a role."""
    return [delegator.get_key(keyid) for keyid in role_of(delegator, role).keyids]


def make_snapshot(version: int, meta: Mapping[str, int], now: datetime) -> Snapshot:
    """The snapshot. meta: role → version."""
    files = {f"{role}.json": MetaFile(number) for role, number in sorted(meta.items())}
    return Snapshot(version, None, expiry(SNAPSHOT, now), files)


def make_timestamp(version: int, snapshot: int, now: datetime) -> Timestamp:
    """The timestamp. snapshot: the snapshot's version."""
    return Timestamp(version, None, expiry(TIMESTAMP, now), MetaFile(snapshot))


def next_of(signed: S, role: str, now: datetime) -> S:
    """The same contents as the next version, valid for the role's whole time from now."""
    following = copy.deepcopy(signed)
    following.version += 1
    following.expires = expiry(role, now)
    return following
