"""What is to be sent to devices, and what of them a batch of messages is about."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.services.records import ExecutionRecord, GivenRecord, Outgoing, Pending


class Outbox(Protocol):
    """Executions by sets: each call is a fixed number of statements for 500 of them.

    pending: what is not published, counted. waiting: the first of a group, by id. outgoing: as
    they are now. publish: devices were told; due_at, if given, is their new timer. executions: by
    id. newest: what each device was given last. given: the last 50 of each device and model,
    newest first.
    change: many at once, as they were read in this transaction and as they are to be.
    """

    def pending(self) -> Sequence[Pending]: ...
    def waiting(
        self, group: Pending, limit: int, *, after: str | None = None
    ) -> Sequence[Outgoing]: ...
    def outgoing(self, ids: Collection[str]) -> Mapping[str, Outgoing]: ...
    def publish(self, ids: Collection[str], due_at: datetime | None = None) -> None: ...
    def executions(self, ids: Collection[str]) -> Mapping[str, ExecutionRecord]: ...
    def newest(self, devices: Collection[str]) -> Mapping[str, ExecutionRecord]: ...
    def given(self, devices: Collection[str]) -> Mapping[str, Sequence[GivenRecord]]: ...
    def change(self, pairs: Iterable[tuple[ExecutionRecord, ExecutionRecord]]) -> None: ...
