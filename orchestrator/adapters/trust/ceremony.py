"""Changes of keys: the files that bring them into force. Pure but for the signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from orchestrator.adapters.trust.documents import (
    DELEGATED,
    ROOT,
    TARGETS,
    TOP_ROLES,
    expiry,
    file_name,
    keys_of,
    make_targets,
    next_of,
    read,
    rekeyed,
    role_of,
    sign,
    to_bytes,
)
from orchestrator.adapters.trust.keys import SHORT, Keyring
from orchestrator.adapters.trust.planning import Files, expiring, model_files, with_targets
from orchestrator.adapters.trust.state import State
from orchestrator.errors import Invalid
from schemas.trust import DIRECTOR_ROLE, MODELS_ROLE

OFFLINE = (ROOT, TARGETS, MODELS_ROLE)
"""Roles whose keys need not be with the server: offline, and the release key."""

ONLINE = ("snapshot", "timestamp", DIRECTOR_ROLE)
ROLES = (*TOP_ROLES, MODELS_ROLE, DIRECTOR_ROLE)


@dataclass(frozen=True, slots=True)
class Signatures:
    """How far a root is signed. missing: ids of keys that could sign still."""

    given: int
    needed: int
    missing: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether the threshold is met."""
        return self.given >= self.needed


def change_keys(
    state: State,
    keys: Mapping[str, Sequence[Key]],
    ring: Keyring,
    now: datetime,
    threshold: int | None = None,
) -> Files:
    """The files that give roles other keys.

    What changes in ``targets`` is signed by its old keys and its new ones, so that it
    counts before the new root and after it.

    Args:
        state: what is published.
        keys: role → its new public keys.
        ring: the private keys at hand, the new ones among them. The root may lack
            signatures, which its other holders add; anything else may not.
        now: the time.
        threshold: how many of the root's keys must sign from now on.

    Raises:
        Invalid: a key that has to sign is not in the ring, or the threshold has no sense.
    """
    files: Files = {}
    root = state.root.signed
    top = {role: fresh for role, fresh in keys.items() if role in TOP_ROLES}
    if top:
        check_threshold(threshold, len(keys.get(ROOT, root.roles[ROOT].keyids)))
        following = rekeyed(root, top, threshold)
        following.version, following.expires = root.version + 1, expiry(ROOT, now)
        signers = {s.public_key.keyid: s for r in (root, following) for s in ring.of(r.roles[ROOT])}
        if not signers:
            raise _no_key(ROOT, root.roles[ROOT].keyids)
        files[file_name(ROOT, following.version)] = sign(following, signers.values())
        root = following
    if TARGETS in keys or set(keys) & set(DELEGATED):
        fresh = {role: keys.get(role) or keys_of(state.targets, role) for role in DELEGATED}
        changed = make_targets(fresh, state.targets.version + 1, now)
        both = (state.root.signed.roles[TARGETS], root.roles[TARGETS])
        signing = {s.public_key.keyid: s for role in both for s in ring.of(role)}
        if not ring.can_sign(root.roles[TARGETS]):
            raise _no_key(TARGETS, root.roles[TARGETS].keyids)
        raw = sign(changed, signing.values())
        files[file_name(TARGETS, changed.version)] = raw
        state = with_targets(state, read(raw, Targets, file_name(TARGETS, changed.version)))
    if MODELS_ROLE in keys:
        files |= model_files(state, state.listed(), ring, now)
    return files


def renew(state: State, ring: Keyring, now: datetime, within: timedelta) -> Files:
    """The roles that expire soon, as they are, for their whole time again.

    Roles whose keys are not in the ring are left out.
    """
    files: Files = {}
    root = state.root.signed
    if expiring(root, now, within) and ring.of(root.roles[ROOT]):
        following = next_of(root, ROOT, now)
        files[file_name(ROOT, following.version)] = sign(following, ring.of(root.roles[ROOT]))
    for role, document in state.roles.items():
        keys = role_of(state.delegator(role), role)
        if expiring(document.signed, now, within) and ring.can_sign(keys):
            renewed = next_of(document.signed, role, now)
            files[file_name(role, renewed.version)] = sign(renewed, ring.of(keys))
    return files


def check_threshold(threshold: int | None, keys: int) -> None:
    """See that so many signatures can come from so many keys.

    Raises:
        Invalid: they cannot.
    """
    if threshold is not None and not 1 <= threshold <= keys:
        msg = f"--threshold {threshold} of {keys} keys cannot be"
        raise Invalid(msg, hint="as in: --threshold 2 --keys 3")


def sign_root(raw: bytes, ring: Keyring) -> bytes:
    """A root with the signatures of those keys in the ring that count for it.

    Keys of the root before it count as well, so each key in the ring signs.

    Raises:
        Invalid: it is no root, or the ring is empty.
    """
    document = read(raw, Root, "the file")
    if not ring.signers:
        msg = "there is no key to sign with"
        raise Invalid(msg, hint="name the folder that holds a root key, with --keys")
    for signer in ring.signers.values():
        document.sign(signer, append=True)
    return to_bytes(document)


def signatures(document: Metadata[Root], before: Root) -> tuple[Signatures, Signatures]:
    """How far a root is signed by the keys of the root before it, and by its own."""
    own, old = _counted(document, document.signed), _counted(document, before)
    return old, own


def _counted(document: Metadata[Root], judge: Root) -> Signatures:
    found = judge.get_verification_result(ROOT, document.signed_bytes, document.signatures)
    return Signatures(len(found.signed), found.threshold, tuple(sorted(found.unsigned)))


def _no_key(role: str, keyids: Sequence[str]) -> Invalid:
    ids = ", ".join(keyid[:SHORT] for keyid in keyids)
    msg = f"no key of {role} is at hand; it is {ids}"
    return Invalid(msg, hint="name the folder that holds it, with --keys FOLDER")
