"""Whether metadata that was signed elsewhere may be taken. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tuf.api.metadata import DelegatedRole, Metadata, Root, Targets

from orchestrator.adapters.trust.documents import (
    DELEGATED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    delegate,
    delegated_roles,
    file_name,
    keys_of,
    read,
    split_name,
    to_bytes,
    verifies,
)
from orchestrator.adapters.trust.keys import Keyring
from orchestrator.adapters.trust.layout import standing_of
from orchestrator.adapters.trust.planning import Files, online_files, versions_of
from orchestrator.adapters.trust.state import State, follows
from orchestrator.errors import Conflict, Forbidden, Invalid
from orchestrator.services.ports import Standing
from schemas.trust import DIRECTOR_ROLE, MODEL_ROLE_PREFIX, MODELS_ROLE


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is new in an upload. root: the new root; roles: the others, by name."""

    root: Metadata[Root] | None = None
    roles: Mapping[str, Metadata[Targets]] = field(default_factory=dict)


def accept(
    state: State,
    files: Mapping[str, bytes],
    online: Keyring,
    now: datetime,
    stands: Collection[Standing] | None,
) -> Accepted:
    """Check an upload against what is published: files that are there already are left out.

    Args:
        state: what is published.
        files: the uploaded files by name.
        online: the keys that the server has; it must be able to go on signing.
        now: the time.
        stands: the versions that may be listed; None when nothing that is listed changes.

    Raises:
        Invalid: a file is malformed, or does not fit the others.
        Conflict: a version is not the next one: somebody else signed meanwhile.
        Forbidden: a signature is missing or wrong.
    """
    roots: list[Metadata[Root]] = []
    roles: dict[str, Metadata[Targets]] = {}
    for name, raw in files.items():
        role, number = split_name(name)
        if role == ROOT:
            if number is None or number > len(state.roots) or state.roots[number - 1] != raw:
                roots.append(_next_root(state, name, raw, number or 0, online, now))
        elif role in {SNAPSHOT, TIMESTAMP, DIRECTOR_ROLE}:
            msg = f"{name}: {role} is signed by the server alone"
            raise Invalid(msg, hint="upload root, targets, models and the roles of models")
        else:
            document = read(raw, Targets, name)
            if not _same(state.roles.get(role), document):
                roles[role] = _next_role(state, role, name, document, now)
    found = Accepted(roots[0] if roots else None, roles)
    after = dict(state.roles) | roles
    loose = set(roles) - {TARGETS, MODELS_ROLE, *delegated_roles(after[MODELS_ROLE].signed)}
    if loose:
        # Nobody's signature would be looked at, and a snapshot never loses a role again.
        msg = f"models delegates to no role {min(loose)}"
        raise Invalid(msg)
    root = found.root.signed if found.root is not None else state.root.signed
    _check_chain(root, after, online)
    _check_listing(state, after, stands)
    return found


def files_of(state: State, found: Accepted, ring: Keyring, now: datetime) -> Files:
    """What was accepted, with snapshot and timestamp, in the order of writing.

    A new root comes last, if what is below it counts under both roots; where an old key is
    gone for good it comes before snapshot and timestamp.
    """
    roles: Files = {
        file_name(role, document.signed.version): to_bytes(document)
        for role, document in found.roles.items()
    }
    root = found.root.signed if found.root is not None else None
    online = online_files(state, versions_of(roles), ring, now, root=root)
    if found.root is None or root is None:
        return roles | online
    first = {file_name(ROOT, root.version): to_bytes(found.root)}
    if _counts_before(state.root.signed, found, ring):
        return roles | online | first
    return roles | first | online


def _counts_before(before: Root, found: Accepted, ring: Keyring) -> bool:
    targets = found.roles.get(TARGETS)
    online = all(ring.can_sign(before.roles[role]) for role in (SNAPSHOT, TIMESTAMP))
    return online and (targets is None or verifies(before, TARGETS, targets))


def _next_root(
    state: State, name: str, raw: bytes, number: int, online: Keyring, now: datetime
) -> Metadata[Root]:
    document = read(raw, Root, name)
    root, wanted = document.signed, len(state.roots) + 1
    _check_version(name, number, root.version, wanted)
    if not follows(document, state.root):
        old, own = state.root.signed.roles[ROOT], root.roles[ROOT]
        msg = (
            f"{name} is not signed by enough keys: {old.threshold} of the root before it and"
            f" {own.threshold} of its own are needed"
        )
        raise Forbidden(msg, hint=f"argosy trust sign-root {name} --keys FOLDER")
    if not root.consistent_snapshot or root.is_expired(now):
        msg = f"{name} has expired, or knows no consistent snapshots"
        raise Invalid(msg)
    for role in (SNAPSHOT, TIMESTAMP):
        if not online.can_sign(root.roles[role]):
            msg = f"{name} names a key of {role} that the server does not have"
            raise Invalid(msg, hint=f"on the server: argosy trust rotate {role}")
    return document


def _next_role(
    state: State, role: str, name: str, document: Metadata[Targets], now: datetime
) -> Metadata[Targets]:
    number = split_name(name)[1] or 0
    _check_version(name, number, document.signed.version, state.versions().get(role, 0) + 1)
    if document.signed.is_expired(now):
        msg = f"{name} expired at {document.signed.expires:%Y-%m-%d %H:%M} UTC"
        raise Invalid(msg, hint="set the clock of the machine that signs, and sign again")
    return document


def _check_version(name: str, named: int, version: int, wanted: int) -> None:
    if named != version:
        msg = f"{name} is version {version} inside"
        raise Invalid(msg)
    if version != wanted:
        msg = f"{name} cannot be taken: version {wanted} is the next"
        raise Conflict(msg, hint="somebody signed meanwhile; sign again what is unsigned now")


def _check_chain(root: Root, roles: Mapping[str, Metadata[Targets]], online: Keyring) -> None:
    """See that a device finds its way from the root down to every role."""
    targets, models = roles[TARGETS], roles[MODELS_ROLE]
    _check_signed(root, TARGETS, targets)
    _check_delegations(targets.signed)
    _check_signed(targets.signed, MODELS_ROLE, models)
    if not online.can_sign(targets.signed.get_delegated_role(DIRECTOR_ROLE)):
        msg = "targets names a key of director that the server does not have"
        raise Invalid(msg, hint="on the server: argosy trust rotate director")
    leaves = delegated_roles(models.signed)
    _check_model_delegations(targets.signed, models.signed, leaves)
    for role in leaves:
        if role not in roles:
            msg = f"models delegates to {role}, of which there is no file"
            raise Invalid(msg, hint=f"upload {file_name(role, 1)} with it")
        _check_signed(models.signed, role, roles[role])
        if roles[role].signed.delegations is not None:
            msg = f"{role} delegates, which it may not"
            raise Invalid(msg)


def _check_signed(delegator: Root | Targets, role: str, document: Metadata[Targets]) -> None:
    if not verifies(delegator, role, document):
        name = file_name(role, document.signed.version)
        msg = f"{name} is not signed by the keys of {role}"
        hint = "sign it with the keys that are in force: `argosy trust status` shows their ids"
        raise Forbidden(msg, hint=hint)


def _check_delegations(targets: Targets) -> None:
    roles = {} if targets.delegations is None else (targets.delegations.roles or {})
    same = {
        name: role.paths
        for name, role in roles.items()
        if isinstance(role, DelegatedRole) and role.terminating
    }
    if targets.targets or same != {role: [paths] for role, paths in DELEGATED.items()}:
        msg = "targets must list nothing, and delegate to models and director alone"
        raise Invalid(msg)


def _check_model_delegations(targets: Targets, models: Targets, leaves: list[str]) -> None:
    bins = models.delegations is not None and models.delegations.succinct_roles is not None
    names = [] if bins else [role.removeprefix(MODEL_ROLE_PREFIX) for role in leaves]
    wanted = delegate(keys_of(targets, MODELS_ROLE), names, bins=bins)
    if models.targets or models.delegations != wanted:
        msg = "models must delegate to model-NAME (or to the bins) by the release keys alone"
        raise Invalid(msg)


def _check_listing(
    state: State, after: Mapping[str, Metadata[Targets]], stands: Collection[Standing] | None
) -> None:
    models = after[MODELS_ROLE].signed
    bins = models.delegations is not None and models.delegations.succinct_roles is not None
    listed: set[Standing] = set()
    for role in delegated_roles(models):
        for path, target in after[role].signed.targets.items():
            stand = standing_of(path, target)
            mine = [name for name, _ in models.delegations.get_roles_for_target(path)]  # type: ignore[union-attr]  # _check_chain saw them
            if stand is None or mine != [role] or set(target.hashes) != {"sha256"}:
                msg = f"{role} lists {path}, which it may not"
                raise Invalid(msg)
            listed.add(stand)
    before = state.listed()
    _check_stands(before, listed, before if stands is None else frozenset(stands))
    if state.bins and not bins:
        msg = "manifests that are in bins do not go back into roles of models"
        raise Invalid(msg)


def _check_stands(
    before: frozenset[Standing], listed: set[Standing], stands: frozenset[Standing]
) -> None:
    strange = sorted(listed - before - stands)
    if strange:
        one = strange[0]
        msg = (
            f"{one.model}@{one.version} with manifest {one.manifest_sha256[:12]}… of"
            f" {one.length} bytes is no version that stands"
        )
        raise Invalid(msg, hint="sign again what is unsigned now: argosy trust sign --keys FOLDER")
    lost = sorted((before & stands) - listed)
    if lost:
        msg = f"{lost[0].model}@{lost[0].version} stands and would not be listed any more"
        raise Invalid(msg, hint="revoke a version to take it out: argosy model revoke")


def _same(there: Metadata[Targets] | None, document: Metadata[Targets]) -> bool:
    return (
        there is not None
        and there.signed == document.signed
        and there.signatures == document.signatures
    )
