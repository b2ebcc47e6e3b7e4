"""Which role lists which version. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuf.api.metadata import SuccinctRoles, TargetFile

from orchestrator.services.ports import Standing
from schemas.trust import (
    BIN_BITS,
    BIN_PREFIX,
    MAX_MODEL_ROLES,
    MODEL_ROLE_PREFIX,
    manifest_target,
    model_role,
)

MAX_ROLE_VERSIONS = 2000
"""Versions of one model in a role of its own: some 300 KB."""

_BINS = SuccinctRoles([], 1, BIN_BITS, BIN_PREFIX)


@dataclass(frozen=True, slots=True)
class Layout:
    """roles: what each role lists, by target path. models: those that have a role each."""

    bins: bool
    models: tuple[str, ...]
    roles: Mapping[str, Mapping[str, TargetFile]]


def lay_out(stands: Iterable[Standing], roles: Iterable[str], *, bins: bool) -> Layout:
    """Spread the versions that stand over roles.

    A model keeps its role when its last version is gone: a snapshot must never lose a role
    (TUF 5.5.5), and the name may come back. Once there are more than ``MAX_MODEL_ROLES``
    the manifests move to bins, and never back; likewise once a model has more than
    ``MAX_ROLE_VERSIONS``, as its role must fit into one file.

    Args:
        stands: the versions.
        roles: the roles to which ``models`` delegates now.
        bins: whether those are bins.
    """
    stands = sorted(stands)
    if not bins:
        known = {role.removeprefix(MODEL_ROLE_PREFIX) for role in roles}
        models = sorted(known | {stand.model for stand in stands})
        most = max(Counter(stand.model for stand in stands).values(), default=0)
        if len(models) <= MAX_MODEL_ROLES and most <= MAX_ROLE_VERSIONS:
            by_model: dict[str, dict[str, TargetFile]] = {model_role(m): {} for m in models}
            for stand in stands:
                _list(by_model[model_role(stand.model)], stand)
            return Layout(bins=False, models=tuple(models), roles=by_model)
    by_bin: dict[str, dict[str, TargetFile]] = {name: {} for name in _BINS.get_roles()}
    for stand in stands:
        path = manifest_target(stand.model, stand.version)
        _list(by_bin[_BINS.get_role_for_target(path)], stand)
    return Layout(bins=True, models=(), roles=by_bin)


def standing_of(path: str, target: TargetFile) -> Standing | None:
    """The version that a target lists; None when its path is not that of a manifest."""
    parts = path.split("/")
    match parts:
        case ["models", model, version, "manifest.json"] if version.isdecimal():
            sha256 = target.hashes.get("sha256", "")
            return Standing(model, int(version), sha256, target.length)
        case _:
            return None


def _list(targets: dict[str, TargetFile], stand: Standing) -> None:
    path = manifest_target(stand.model, stand.version)
    targets[path] = TargetFile(stand.length, {"sha256": stand.manifest_sha256}, path)
