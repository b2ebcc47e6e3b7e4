"""The certificate authorities: how they stand, their rotation, and who follows it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from orchestrator.domain import rotation
from orchestrator.domain.rotation import Follower, Following
from orchestrator.errors import Conflict
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.ports.authority import RootFacts, Rotating
from orchestrator.services.shutting_out import ShuttingOut
from schemas.authority import AuthorityView, GateView, RootView
from schemas.enroll import RenewNow

log = logging.getLogger(__name__)

_LOOK_EVERY = timedelta(seconds=5)
_NAMED = 20
_SOON = timedelta(days=180)


RenewNowSender = Callable[[str, RenewNow], object]


class AuthorityService:
    """What the API does with the authorities; its tick brings devices along.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        authority: whose certificates are trusted.
        shutting_out: tells the broker of what changes.
        embedded: whether the broker is ours.
        renew_now: asks a device to renew its certificate.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        authority: Rotating,
        shutting_out: ShuttingOut,
        *,
        embedded: bool,
        renew_now: RenewNowSender,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authority = authority
        self._shutting_out = shutting_out
        self._embedded = embedded
        self._renew_now = renew_now
        self._called: frozenset[tuple[str, str | None, int]] = frozenset()
        self._looked: datetime | None = None

    @property
    def pem(self) -> str:
        """The roots to trust."""
        return self._authority.pem

    @property
    def crl_pem(self) -> str:
        """The revocation lists."""
        return self._authority.crl_pem

    def status(self) -> AuthorityView:
        """The authorities as they stand."""
        with self._uow.read() as tx:
            following = self._following(tx)
        roots, now = self._authority.roots(), self._clock()
        told = self._shutting_out.told
        return AuthorityView(
            kind="command" if self._authority.by_command else "embedded",
            rotating=self._is_rotating(),
            roots=tuple(_view(root, following) for root in roots),
            devices=following.devices,
            unheard=following.unheard,
            behind=len(following.behind) if self._is_rotating() else 0,
            behind_ids=tuple(f.device for f in following.behind[:_NAMED])
            if self._is_rotating()
            else (),
            gate=GateView(
                broker="embedded" if self._embedded else "external",
                revoked=self._shutting_out.revoked,
                proven_at=told.proven_at,
                told_at=told.at,
                trouble=self._shutting_out.trouble(),
            ),
            problems=(*_aging(roots, now), *self._authority.problems()),
        )

    def rotate(self) -> AuthorityView:
        """Make a new root; both are trusted until ``retire``. Devices are asked to renew.

        Raises:
            Conflict: a rotation is under way already.
        """
        with self._uow() as tx:
            made = self._authority.rotate()
            tx.audit.add("ca.rotate", made)
        log.info(
            "the authority has a new root, %s; the old one is trusted until it is retired", made
        )
        self._looked = None
        return self.status()

    def retire(self, *, force: bool = False) -> AuthorityView:
        """Trust the old root no more.

        Args:
            force: although devices do not know the new one.

        Raises:
            Conflict: there is no old root, or devices are left that would be lost.
        """
        with self._uow.read() as tx:
            behind = self._following(tx).behind
        if behind and not force and self._is_rotating():
            some = ", ".join(f.device for f in behind[:3]) + (", …" if len(behind) > 3 else "")  # noqa: PLR2004 - as many as are named
            who = "1 device does" if len(behind) == 1 else f"{len(behind)} devices do"
            msg = f"{who} not know the new root yet, and would be lost: {some}"
            hint = "wait for them, revoke them, or lose them with --force; see `argosy ca status`"
            raise Conflict(msg, hint=hint)
        lost = [f.device for f in behind]
        with self._uow() as tx:
            gone = self._authority.retire()
            tx.audit.add("ca.retire", gone, {"lost": len(lost), "devices": lost[:_NAMED]})
        self._shutting_out.end_lost(lost)
        log.info("the root %s is trusted no more; %d devices are lost by it", gone, len(behind))
        return self.status()

    def tick(self) -> None:
        """Ask devices that are behind a rotation to renew, once for each connection."""
        now = self._clock()
        if not self._is_rotating():
            self._called = frozenset()
            return
        if self._looked is not None and self._looked <= now < self._looked + _LOOK_EVERY:
            return
        self._looked = now
        with self._uow.read() as tx:
            behind = self._following(tx).behind
        calls = rotation.to_call(behind, self._called)
        ask = RenewNow(within_seconds=rotation.spread(len(calls)))
        for one in calls:
            self._renew_now(one.device, ask)
        current = {(f.device, *f.connection) for f in behind}
        self._called = frozenset(
            (self._called & current) | {(f.device, *f.connection) for f in calls}
        )

    def _is_rotating(self) -> bool:
        return sum(not root.external for root in self._authority.roots()) > 1

    def _following(self, tx: Transaction) -> Following:
        roots = self._authority.roots()
        own = [root for root in roots if not root.external]
        stay = own[-1].sha256
        issuers = frozenset({stay, *(root.sha256 for root in roots if root.external)})
        found = (
            Follower(d.device, d.online, (d.boot, d.session), d.roots, d.issued_by)
            for d in tx.fleet_trust.devices()
        )
        return rotation.follow(found, stay, issuers)


def _view(root: RootFacts, following: Following) -> RootView:
    return RootView(
        sha256=root.sha256,
        name=root.name,
        active=root.active,
        external=root.external,
        key_held=root.key_held,
        cross_signed=root.cross_signed,
        created_at=root.created_at,
        expires_at=root.expires_at,
        issuing_expires_at=root.issuing_expires_at,
        known_by=following.known.get(root.sha256, 0),
        issued=following.issued.get(root.sha256, 0),
    )


def _aging(roots: tuple[RootFacts, ...], now: datetime) -> list[str]:
    found = []
    own = [root for root in roots if not root.external]
    for root in (own[-1], *(root for root in roots if root.external)):
        end = min(root.expires_at, root.issuing_expires_at)
        if end - now < _SOON:
            what = "new certificates of its operator" if root.external else "`argosy ca rotate`"
            found.append(f"{root.name} or the authority below it ends on {end:%Y-%m-%d}: {what}")
    return found
