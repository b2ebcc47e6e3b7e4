"""Which way a device takes to a file, and how long it listens to a broadcast.

Each way ends in chunks that are checked, and what one leaves out the next brings: none of them
needs to succeed. No IO and no clock: ``now`` is seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from schemas.transfer import BroadcastOffer, HttpsOffer, PatchOffer, Reply

MAX_PATCH_WAITS = 12
MAX_PATCH_SECONDS = 90.0
"""How often, and how long in all, a patch that is being made is waited for."""

SLACK_SECONDS = 30.0
"""A broadcast that takes longer than twice its time and this is not listened to any more."""


class Next(StrEnum):
    """What to do next for a file."""

    PATCH = "patch"
    WAIT = "wait"
    HTTPS = "https"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Ways:
    """What is offered for one file, and what was tried.

    missing: bytes. patched, linked: these ways have been gone. waits, waited: times and
    seconds that were spent on a patch in the making.
    """

    patch: PatchOffer | None = None
    https: HttpsOffer | None = None
    retry_in: float | None = None
    broadcast: BroadcastOffer | None = None
    patched: bool = False
    linked: bool = False
    waits: int = 0
    waited: float = 0.0

    def offered(self, reply: Reply) -> Ways:
        """The same, with the offers of a newer answer."""
        return replace(
            self,
            patch=reply.patch,
            https=reply.https,
            retry_in=reply.retry_in,
            broadcast=reply.broadcast,
        )

    def choose(self, missing: int) -> Next:
        """The best way that is left.

        A patch that is being made is waited for, unless the file is about to be broadcast:
        everybody would wait for it at once, and then ask at once.
        """
        if self.patch is not None and not self.patched and self.patch.size < missing:
            return Next.PATCH
        if self._may_wait() and self.broadcast is None:
            return Next.WAIT
        if self.https is not None and not self.linked:
            return Next.HTTPS
        return Next.NETWORK

    def wait(self) -> tuple[Ways, float]:
        """Wait once more; with it, for how long (seconds)."""
        seconds = self.retry_in or 0.0
        seconds = max(0.2, min(seconds, MAX_PATCH_SECONDS - self.waited))
        waiting = replace(self, retry_in=None, waits=self.waits + 1, waited=self.waited + seconds)
        return waiting, seconds

    def gone(self, way: Next) -> Ways:
        """The same, after a way was gone."""
        return replace(
            self,
            patched=self.patched or way is Next.PATCH,
            linked=self.linked or way is Next.HTTPS,
        )

    def _may_wait(self) -> bool:
        if self.retry_in is None or self.patched:
            return False
        return self.waits < MAX_PATCH_WAITS and self.waited < MAX_PATCH_SECONDS


@dataclass(slots=True)
class Listening:
    """A broadcast that is listened to, until it falls silent.

    starts_at: when its first chunk may come. until: it ends by then, whatever comes.
    """

    offer: BroadcastOffer
    starts_at: float
    until: float
    heard_at: float

    @classmethod
    def begin(cls, offer: BroadcastOffer, size: int, now: float) -> Listening:
        """Begin. size: of the file, in bytes."""
        starts_at = now + offer.starts_in
        until = starts_at + 2 * size / offer.rate + SLACK_SECONDS
        return cls(offer, starts_at, until, heard_at=starts_at)

    def heard(self, at: float) -> None:
        """A chunk of it came."""
        self.heard_at = max(self.heard_at, at)

    def due(self) -> float:
        """When it is over unless more comes."""
        return min(self.heard_at + self.offer.quiet, self.until)

    def over(self, now: float) -> bool:
        """Whether to pull what it has not brought."""
        return now >= self.due()


def bearable(offer: BroadcastOffer, bandwidth: int | None) -> bool:
    """Whether a device may listen to a broadcast. bandwidth: its own limit, bytes a second."""
    return bandwidth is None or offer.rate <= bandwidth
