"""The ways to a file beside pulling its chunks, as the transfer needs them."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.transfer import BroadcastOffer, HttpsOffer, PatchOffer


class Patches(Protocol):
    """Patches between files.

    offer: never waits; a number is the seconds after which to ask again, as one is being made.
    """

    def offer(self, sha256: str, held: Sequence[str]) -> PatchOffer | float | None: ...


class Links(Protocol):
    """Links by which a device reads a file over HTTPS."""

    def offer(self, device: str, sha256: str) -> HttpsOffer | None: ...


class Broadcasting(Protocol):
    """Rounds in which a file is sent once to all. Who asks is counted."""

    def asked(self, device: str, sha256: str, size: int) -> BroadcastOffer | None: ...
