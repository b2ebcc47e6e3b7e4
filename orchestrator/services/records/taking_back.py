"""What is asked about a version that is taken back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A version that devices are led away from.

    rollout_id: by a rollback of that rollout; None: everywhere, as it was revoked. to: the version
    that all get; None: each what it served before.
    """

    model: str
    version: int
    rollout_id: str | None = None
    to: int | None = None
