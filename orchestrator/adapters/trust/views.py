"""The trust metadata as people are shown it, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from orchestrator.adapters.trust.documents import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    role_of,
)
from orchestrator.adapters.trust.keys import Keyring
from orchestrator.adapters.trust.state import State, digest
from orchestrator.services.ports import Standing
from schemas.trust import DIRECTOR_ROLE, MODELS_ROLE, RoleView, TrustView, Unsigned

WARN_BEFORE = timedelta(days=30)
CLOCK_SLACK = timedelta(minutes=5)
"""By how much a clock may be set back without a word."""

_MAX_TOLD = 1000
_ONLINE = {SNAPSHOT, TIMESTAMP, DIRECTOR_ROLE}


def view(state: State, ring: Keyring, stands: Collection[Standing], now: datetime) -> TrustView:
    """Roles, what is unsigned, and what somebody should look after."""
    listed, wanted = state.listed(), frozenset(stands)
    unsigned, stale = sorted(wanted - listed), sorted(listed - wanted)
    releases = ring.can_sign(role_of(state.targets, MODELS_ROLE))
    return TrustView(
        root_sha256=digest(state.roots[-1]),
        roles=tuple(_roles(state, ring)),
        models=len({stand.model for stand in listed}),
        unsigned=tuple(_unsigned(stand) for stand in unsigned[:_MAX_TOLD]),
        stale=tuple(_unsigned(stand) for stand in stale[:_MAX_TOLD]),
        releases=releases,
        problems=tuple(_problems(state, unsigned, stale, now, releases=releases)),
    )


def fault(state: State, now: datetime) -> str | None:
    """Why devices can install nothing any more; None while they can."""
    for role, expires in _expiries(state):
        if expires <= now:
            return f"the {role} metadata expired on {expires:%Y-%m-%d %H:%M} UTC"
    return None


def clock_is_behind(state: State, now: datetime) -> bool:
    """Whether the clock is before the moment at which the timestamp was signed."""
    return bool(now < state.signed_at - CLOCK_SLACK)


def _roles(state: State, ring: Keyring) -> Iterator[RoleView]:
    documents = {
        ROOT: state.root.signed,
        TARGETS: state.targets,
        MODELS_ROLE: state.models,
        SNAPSHOT: state.snapshot.signed,
        TIMESTAMP: state.timestamp.signed,
    }
    for role, signed in documents.items():
        yield _role(state, ring, role, signed.version, signed.expires)
    # The director signs a document for each device, of which none is kept here.
    yield _role(state, ring, DIRECTOR_ROLE, state.targets.version, state.targets.expires)


def _role(state: State, ring: Keyring, role: str, version: int, expires: datetime) -> RoleView:
    keys = role_of(state.targets if role == DIRECTOR_ROLE else state.delegator(role), role)
    held = len(ring.of(keys))
    return RoleView(
        role=role,
        version=version,
        expires=expires,
        keys=tuple(keys.keyids),
        threshold=keys.threshold,
        held=held,
        online=held >= keys.threshold,
    )


def _problems(
    state: State,
    unsigned: Collection[Standing],
    stale: Collection[Standing],
    now: datetime,
    *,
    releases: bool,
) -> Iterator[str]:
    if clock_is_behind(state, now):
        yield (
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but the timestamp was signed on"
            f" {state.signed_at:%Y-%m-%d %H:%M}: nothing is signed until it is set right;"
            " if it was wrong then: argosy trust renew --anew"
        )
    for role, expires in _expiries(state):
        if expires <= now:
            yield f"{role} expired on {expires:%Y-%m-%d}: devices install nothing; {_how(role)}"
        elif role not in _ONLINE and expires - now < WARN_BEFORE:
            days = (expires - now).days
            yield f"{role} expires in {days} {'day' if days == 1 else 'days'}; {_how(role)}"
    if unsigned and not releases:
        yield (
            f"{_count(unsigned)} unsigned, so that no device can install"
            f" {'it' if len(unsigned) == 1 else 'them'}: argosy trust sign --keys FOLDER"
        )
    if stale and not releases:
        yield f"{_count(stale)} still listed although revoked: argosy trust sign --keys FOLDER"
    for role in sorted(state.unsound):
        yield f"{role} is not signed by the keys that are in force: {_how(role)}"


def _how(role: str) -> str:
    if role in _ONLINE:
        return "the control loop signs it anew; see /v1/health"
    return "argosy trust renew --keys FOLDER"


def _expiries(state: State) -> Iterator[tuple[str, datetime]]:
    yield ROOT, state.root.signed.expires
    for role in (TARGETS, MODELS_ROLE):
        yield role, state.roles[role].signed.expires
    leaves = [(state.roles[role].signed.expires, role) for role in state.leaves()]
    if leaves:
        expires, role = min(leaves)
        yield role, expires
    yield SNAPSHOT, state.snapshot.signed.expires
    yield TIMESTAMP, state.timestamp.signed.expires


def _count(stands: Collection[Standing]) -> str:
    return "1 version is" if len(stands) == 1 else f"{len(stands)} versions are"


def _unsigned(stand: Standing) -> Unsigned:
    return Unsigned(
        model=stand.model,
        version=stand.version,
        manifest_sha256=stand.manifest_sha256,
        length=stand.length,
    )
