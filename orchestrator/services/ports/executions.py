"""What is kept of executions, by set."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.judge import Served
from orchestrator.domain.judging.figures import Cohorts
from orchestrator.domain.snapshot import Due
from orchestrator.services.records import (
    Alike,
    Among,
    ExecutionRecord,
    Given,
    Moved,
    RolloutRecord,
    Waiting,
)
from schemas.errors import DeviceCause
from schemas.rollout import ExecState
from schemas.rollout_view import Progress


class ExecutionCounts(Protocol):
    """What is known of many executions at once. ``counts``, ``classes``, ``progress`` are by wave.

    classes: how many devices of each. page: by id. due: by state and presence, those whose timer
    ran out. offered: after ``since``, by their newest offer, and of those how many after ``now``.
    later: SCHEDULED, for an attempt whose time has not come.
    waiting: SCHEDULED ones that may be offered now to a device that is there and works for no
    other model's rollout; holders: device → that other rollout. alike: their devices, grouped, the
    largest groups first. last_given: by device, where its newest assignment of the model is of
    another rollout.
    served: what the devices of a wave inferred that serve the version. late: of those that
    succeeded, what they came to later, where that is a failure; causes: of failures. cohorts: what
    the devices of a wave, and such of their classes that keep another version, did before and
    after; so many of each class at most. last_windows: execution →
    when the last telemetry of the version came, of those due on probation.
    """

    def count(self, among: Among) -> int: ...
    def by_wave(self, among: Among) -> Mapping[int, int]: ...
    def counts(
        self, rollout_id: str, wave: int | None = None
    ) -> Mapping[int, Mapping[ExecState, int]]: ...
    def classes(self, rollout_id: str) -> Mapping[int, Mapping[str, int]]: ...
    def progress(self, rollout_id: str) -> Mapping[int, Progress]: ...
    def page(self, among: Among, after: str | None, limit: int) -> Sequence[ExecutionRecord]: ...
    def of_devices(self, rollout_id: str, devices: Iterable[str]) -> Mapping[str, ExecState]: ...
    def due(self, rollout_id: str, wave: int, now: datetime) -> Mapping[Due, int]: ...
    def offered(self, rollout_id: str, since: datetime, now: datetime) -> tuple[int, int]: ...
    def later(self, rollout_id: str, wave: int, now: datetime) -> int: ...
    def waiting(
        self, rollout_id: str, wave: int, now: datetime, limit: int
    ) -> Sequence[Waiting]: ...
    def alike(self, among: Among, limit: int) -> Sequence[Alike]: ...
    def holders(self, rollout_id: str, devices: Collection[str]) -> Mapping[str, str]: ...
    def last_given(
        self, rollout: RolloutRecord, devices: Collection[str]
    ) -> Mapping[str, Given]: ...
    def served(self, rollout: RolloutRecord, wave: int) -> Served: ...
    def late(self, rollout_id: str, wave: int) -> Mapping[ExecState, int]: ...
    def causes(self, rollout_id: str, wave: int) -> Mapping[DeviceCause, int]: ...
    def cohorts(self, rollout: RolloutRecord, wave: int, now: datetime, limit: int) -> Cohorts: ...
    def last_windows(
        self, rollout: RolloutRecord, wave: int, now: datetime, since: datetime, limit: int
    ) -> Mapping[str, datetime]: ...


class Executions(ExecutionCounts, Protocol):
    """Moves of many executions, each as ``domain.execution.step`` moves one.

    Every move takes only those that its event fits, and answers which it took; with ``limit``
    None it takes all of them and answers nothing. end: supersede: of the devices, what other
    rollouts of the same model have in flight. give_way: of the devices, what paused rollouts of
    other models have offered and not sent; set_aside: what waits on them for rollouts of other
    models begins anew later, as another attempt. retry: by attempt, when the next one may be
    offered. retry_by_hand: into another wave, if one is given. offer: gives each device its next
    sequence, and notes what it serves of the model. proceed: what waits is to go on, and its
    devices are to be told. extend: execution → its new timer.
    put_in_wave: nothing else changes. restamp: offers of a time to come are of now.
    """

    def end(
        self, among: Among, state: ExecState, detail: str, now: datetime, limit: int | None = None
    ) -> Sequence[Moved]: ...
    def supersede(
        self, rollout_id: str, devices: Sequence[str], now: datetime
    ) -> Sequence[Moved]: ...
    def give_way(
        self, rollout_id: str, devices: Sequence[str], now: datetime
    ) -> Sequence[Moved]: ...
    def set_aside(
        self, rollout_id: str, devices: Sequence[str], detail: str, now: datetime
    ) -> Sequence[Moved]: ...
    def withdraw(self, among: Among, now: datetime, limit: int) -> Sequence[Moved]: ...
    def vanish(
        self, among: Among, due_at: datetime, now: datetime, limit: int
    ) -> Sequence[Moved]: ...
    def retry(
        self, among: Among, due_at: Mapping[int, datetime], now: datetime, limit: int
    ) -> Sequence[Moved]: ...
    def retry_by_hand(
        self, among: Among, now: datetime, *, wave: int | None = None, limit: int | None = None
    ) -> Sequence[Moved]: ...
    def offer(
        self, ids: Sequence[str], variant: str, now: datetime, due_at: datetime
    ) -> Sequence[Moved]: ...
    def proceed(self, among: Among, now: datetime, limit: int) -> Sequence[Moved]: ...
    def extend(self, due_at: Mapping[str, datetime]) -> None: ...
    def put_in_wave(self, among: Among, wave: int) -> None: ...
    def restamp(self, rollout_id: str, now: datetime) -> None: ...
