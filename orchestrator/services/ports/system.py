"""The time, and what happened."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from schemas.api import Event

Clock = Callable[[], datetime]


class Events(Protocol):
    """What happened, in order.

    add_all: of one kind, each with its subject and data.
    """

    def add(self, kind: str, subject: str, data: Mapping[str, Any], at: datetime) -> None: ...
    def add_all(
        self, kind: str, happened: Iterable[tuple[str, Mapping[str, Any]]], at: datetime
    ) -> None: ...
    def replace_live(self, subject: str, data: Mapping[str, Any], at: datetime) -> None: ...
    def remove_live(self, subject: str) -> None: ...
    def surplus(self, keep: int) -> int: ...
    def prune(self, before: datetime, up_to: int, limit: int) -> int: ...
    def after(
        self, event_id: int, subject: str | None, limit: int, kind: str | None = None
    ) -> Sequence[Event]: ...
    def last_id(self) -> int: ...
