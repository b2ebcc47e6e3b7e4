"""What ``argosy-edge bench`` does: measure, show, and keep what was measured to be sent.

It takes no part of the agent's lock. It reads the pointer, manifests and files, which the
agent replaces whole, and writes reports into a database that both may write; the running
agent sends them within a second, or the next one does when it is connected.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass

from edge_client.bench import QUIET, Failure, Measured, Plan, installed, measure, report
from edge_client.errors import JournalError
from edge_client.identity import load_identity
from edge_client.lock import bench_lock, is_locked
from edge_client.settings import Home
from edge_client.spool import Spool
from schemas.base import Wire
from schemas.device import ActiveModel
from schemas.ids import Name
from schemas.measure import BenchReport


class Failed(Wire):
    """A variant that could not be measured."""

    model: ActiveModel
    reason: str


class Benched(Wire):
    """What was measured; what ``--json`` prints."""

    device_class: Name
    reports: tuple[BenchReport, ...]
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """problem: why the reports could not be kept. sender: whether an agent runs to send them."""

    benched: Benched
    sender: bool
    problem: JournalError | None = None


def bench(home: Home, model: Name | None, plan: Plan) -> Kept:
    """Measure what is installed, and keep it to be sent.

    Raises:
        EdgeError: the home holds no identity or no such model, or it is measured already.
    """
    record = load_identity(home).record
    slots = installed(home, model)
    with bench_lock(home):
        found = measure(home, slots, plan, device_class=record.device_class)
    benched = benched_of(found, record.device_class, dt.datetime.now(dt.UTC))
    problem = None
    try:
        keep(home, record.device, benched.reports)
    except JournalError as error:
        hint = "free some room; if it is damaged, remove it and start the agent anew"
        problem = JournalError(f"the figures are not sent: {error}", hint=hint)
    return Kept(benched, is_locked(home), problem)


def bench_quietly(home: Home, model: Name | None = None) -> Benched:
    """Measure the active variant of a model beside the agent that asked for it, and end with it."""
    record = load_identity(home).record
    parent = os.getppid()
    with bench_lock(home):
        found = measure(
            home,
            installed(home, model)[:1],
            QUIET,
            device_class=record.device_class,
            go_on=lambda: os.getppid() == parent,
        )
    benched = benched_of(found, record.device_class, dt.datetime.now(dt.UTC))
    keep(home, record.device, benched.reports)
    return benched


def benched_of(found: Sequence[Measured], device_class: Name, at: dt.datetime) -> Benched:
    """The reports of what could be measured, and the reasons of what could not."""
    return Benched(
        device_class=device_class,
        reports=tuple(report(slot, b, at) for slot, b in found if not isinstance(b, Failure)),
        failed=tuple(
            Failed(model=slot.as_active(), reason=b.reason)
            for slot, b in found
            if isinstance(b, Failure)
        ),
    )


def keep(home: Home, device: str, reports: Sequence[BenchReport]) -> None:
    """Write reports where the agent finds them.

    Raises:
        JournalError: they cannot be written.
    """
    spool = Spool(home.bench, device=device)
    try:
        for one in reports:
            spool.put(one)
    finally:
        spool.close()
