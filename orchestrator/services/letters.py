"""What one device is to have of one execution: the retained document, and commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.timers import Timers, after
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Outgoing, RolloutRecord, VersionRecord
from schemas.rollout import SERVER_TERMINAL, Assignment, Command, ExecState

_ATTEMPTS_BACK = 3
"""A device may still work on an attempt that was given up, so these are cancelled with the last."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What one device is to have. document: None leaves the retained one as it is."""

    about: Outgoing
    document: bytes | None
    commands: tuple[Command, ...]


def commands_for(one: Outgoing) -> tuple[Command, ...]:
    """What the device is told beside its document: to go on, or to stop."""
    if one.goes_on:
        return (Command(kind="proceed", execution=one.id, attempt=one.attempt),)
    if one.state not in SERVER_TERMINAL:
        return ()
    first = max(1, one.attempt - _ATTEMPTS_BACK)
    return tuple(
        Command(kind="cancel", execution=one.id, attempt=attempt)
        for attempt in range(first, one.attempt + 1)
    )


def assignment_of(one: Outgoing, rollout: RolloutRecord, version: VersionRecord) -> Assignment:
    """What the device shall run, to be signed."""
    return Assignment(
        device=one.device_id,
        device_class=one.device_class,
        execution=one.id,
        attempt=one.attempt,
        rollout=rollout.id,
        model=rollout.model,
        version=rollout.version,
        variant=one.variant or "",
        manifest_sha256=version.manifest_sha256,
        probation=rollout.spec.probation,
        shadow=rollout.spec.shadow,
        mode=rollout.spec.mode,
        windows=rollout.spec.windows,
        max_deferral_seconds=rollout.spec.max_deferral_seconds,
        jitter_seconds=rollout.spec.pace.jitter_seconds,
    )


def write_down(tx: Transaction, delivered: Iterable[Letter], now: datetime) -> None:
    """Note what the broker has, as far as it still is what the device is to have.

    The time to answer what goes out for the first time, or to go on, begins with it.
    """
    wishes = {letter.about.id: letter.about.wish() for letter in delivered}
    current = tx.outbox.outgoing(wishes)
    sent = {key: one for key, one in current.items() if one.wish() == wishes[key]}
    by_timer: dict[datetime | None, list[str]] = {}
    for key, due in _timers(tx, sent, now).items():
        by_timer.setdefault(due, []).append(key)
    for due, ids in by_timer.items():
        tx.outbox.publish(ids, due)


def _timers(
    tx: Transaction, sent: Mapping[str, Outgoing], now: datetime
) -> dict[str, datetime | None]:
    """When the time is over to answer or to go on; None where a timer runs on as it does."""
    found: dict[str, datetime | None] = dict.fromkeys(sent)
    known: dict[str, Timers | None] = {}
    for key, one in sent.items():
        offered = one.state is ExecState.OFFERED and one.offered_at and one.due_at
        if not offered and not one.goes_on:
            continue
        if one.rollout_id not in known:
            rollout = tx.rollouts.get(one.rollout_id)
            known[one.rollout_id] = Timers.of(rollout.spec) if rollout is not None else None
        timers = known[one.rollout_id]
        if timers is None:
            continue
        if one.goes_on:
            found[key] = after(now, timers.step)
        elif one.offered_at and one.due_at and one.due_at <= after(one.offered_at, timers.offer):
            found[key] = after(now, timers.offer)
    return found
