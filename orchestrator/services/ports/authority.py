"""Certificate authorities whose root can be replaced."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.services.ports.trust import Authority


@dataclass(frozen=True, slots=True)
class RootFacts:
    """A root that is trusted, as its authority tells of it; see ``schemas.authority.RootView``."""

    sha256: str
    name: str
    active: bool
    external: bool
    key_held: bool
    cross_signed: bool
    created_at: datetime
    expires_at: datetime
    issuing_expires_at: datetime


class Rotating(Authority, Protocol):
    """An authority whose root can be replaced.

    roots: the trusted ones, the oldest first. rotate: makes a new root. retire: trusts the
    old one no more. Both answer the SHA-256 of the root that came, or went. by_command:
    whether a program of the operator's issues to devices. problems: what it lacks.
    """

    @property
    def by_command(self) -> bool: ...
    def roots(self) -> tuple[RootFacts, ...]: ...
    def rotate(self) -> str: ...
    def retire(self) -> str: ...
    def problems(self) -> tuple[str, ...]: ...
