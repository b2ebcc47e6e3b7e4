"""Rollbacks: rollouts that lead devices away from a version, what they find and what is left."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.domain import taking_back
from orchestrator.domain.execution import TOO_LATE_TO_CANCEL
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.domain.taking_back import Facts
from orchestrator.errors import Conflict, Invalid
from orchestrator.services import actor, moves
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord, TakenBack, WaveRecord
from orchestrator.services.retries import stragglers_wave
from orchestrator.services.versions import usable
from schemas.ids import new_id
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState, WaveState

FOR_EVER = 10 * 365 * 86400.0
"""Seconds that devices are waited for which serve what was revoked."""

_OPEN = frozenset(ExecState) - EXEC_TERMINAL
_GOING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})


def of(rollout: RolloutRecord) -> TakenBack:
    """What a rollout that rolls back takes back."""
    to = rollout.back_to or rollout.spec.rollback_to
    return TakenBack(model=rollout.model, version=rollout.version, rollout_id=rollout.id, to=to)


def check_goal(tx: Transaction, model: str, version: int, to: int) -> None:
    """See that devices may be led from one version to another that an operator names.

    Raises:
        NotFound, Revoked, Conflict: it is not there, was revoked, or has no files.
        Invalid: it is not older.
    """
    if taking_back.goal(None, version, to) is None:
        msg = f"a rollback of {model}@{version} leads to an older version, not to {model}@{to}"
        raise Invalid(msg, hint=f"`argosy model get {model}` shows its versions")
    usable(tx, model, to)


def check_leads(tx: Transaction, rollout: RolloutRecord) -> None:
    """See that a rollback for which no version is named has anything to do.

    Raises:
        Conflict: nothing is under way, and no device that serves the version could be led back.
    """
    if rollout.spec.dynamic or tx.executions.count(Among(rollout_id=rollout.id, states=_OPEN)):
        return
    stuck = taking_back.leads_nowhere(tx.taking_back.left(of(rollout)))
    if stuck:
        what = f"{rollout.model}@{rollout.version}"
        many = "the device that serves" if stuck == 1 else f"the {stuck} devices that serve"
        gone = "it is not known what was there before, or it was revoked"
        msg = f"there is nothing to lead {many} {what} back to: {gone}"
        hint = f"name a version: argosy rollout rollback {rollout.id} --to VERSION; or abort it"
        raise Conflict(msg, hint=hint)


def end_in_flight(tx: Transaction, rollout: RolloutRecord, now: datetime) -> int:
    """End what a rollout that turns back has under way; devices beyond the swap go on.

    Its offers were before now, whatever the clock said then: rollbacks are made after them.
    """
    tx.executions.restamp(rollout.id, now)
    among = Among(rollout_id=rollout.id, states=taking_back.CANCELLED_AT_ONCE)
    why = "the rollout is rolled back"
    return moves.end_executions(tx, among, ExecState.CANCELLED, why, now)


def stop(tx: Transaction, rollout: RolloutRecord, why: str, now: datetime) -> list[str]:
    """Abort the rollbacks of a rollout; their ids."""
    stopped = []
    for one in tx.taking_back.rollbacks(of(rollout)):
        if one.state in _GOING:
            aborted = moves.apply(tx, one, Happened(RolloutEvent.ABORT), now, because=why)
            moves.cancel_executions(tx, aborted, why, now)
            stopped.append(one.id)
    return stopped


def to_cancel(tx: Transaction, rollout: RolloutRecord) -> int:
    """How many of its executions are to end at once."""
    states = taking_back.CANCELLED_AT_ONCE
    return tx.executions.count(Among(rollout_id=rollout.id, states=states))


def overdue(tx: Transaction, rollout: RolloutRecord, now: datetime) -> int:
    """How many of its devices beyond the swap were to be heard of by now."""
    return tx.executions.count(_late(rollout, now))


def _late(rollout: RolloutRecord, now: datetime) -> Among:
    return Among(rollout_id=rollout.id, states=TOO_LATE_TO_CANCEL, due_by=now)


def time_out(tx: Transaction, rollout: RolloutRecord, now: datetime) -> None:
    """No longer wait for devices beyond the swap that say nothing; what they serve tells."""
    why = "no word while the rollout was rolled back"
    moves.end_executions(tx, _late(rollout, now), ExecState.TIMED_OUT, why, now)


def facts(tx: Transaction, rollout: RolloutRecord, taken: TakenBack) -> Facts:
    """How far it is."""
    return Facts(
        own=tx.executions.count(Among(rollout_id=rollout.id, states=_OPEN)),
        missing=len(tx.taking_back.members(taken, 1)),
        busy=tx.taking_back.busy(taken),
        since=rollout.turned_at or rollout.created_at,
    )


def left(tx: Transaction, rollout: RolloutRecord) -> Mapping[str, int]:
    """Devices that serve what a rollout brought and that is taken back, by why they still do."""
    found: defaultdict[str, int] = defaultdict(int)
    for standing, n in tx.taking_back.left(of(rollout)).items():
        found[taking_back.why_left(standing)] += n
    return dict(sorted(found.items()))


def finish(tx: Transaction, rollout: RolloutRecord, taken: TakenBack, now: datetime) -> None:
    """End it, and say who serves the version still, and why."""
    still = left(tx, rollout)
    because = rollout.reason
    if still:
        counts = ", ".join(f"{n} {why}" for why, n in still.items())
        # Said of that moment: whoever was offline goes back later, and this stays.
        told = (
            f"when it ended, {sum(still.values())} served {taken.model}@{taken.version}: {counts}"
        )
        because = f"{because}; {told}" if because else told
    moves.apply(tx, rollout, Happened(RolloutEvent.ROLLED_BACK), now, because=because)
    detail = {"version": f"{taken.model}@{taken.version}", "left": dict(still)}
    tx.audit.add("rollout.rolled_back", rollout.id, detail)


def add(
    tx: Transaction,
    taken: TakenBack,
    members: Mapping[str, int],
    rollout: RolloutRecord | None,
    now: datetime,
) -> None:
    """Put devices into rollbacks, one for each version that they are led to."""
    by_version: defaultdict[int, list[str]] = defaultdict(list)
    for device, version in members.items():
        by_version[version].append(device)
    for version, devices in sorted(by_version.items()):
        left_over: Sequence[str] = devices
        for one in tx.taking_back.rollbacks(taken):
            if one.version == version and one.state in _GOING and left_over:
                left_over = _join(tx, one, left_over, now)
        if left_over:
            _make(tx, taken, version, left_over, rollout, now)


def _join(
    tx: Transaction, rollback: RolloutRecord, devices: Sequence[str], now: datetime
) -> Sequence[str]:
    """Add devices to a rollback that runs; those that it has already, it cannot take again."""
    there = tx.executions.of_devices(rollback.id, devices)
    first = tx.rollouts.waves(rollback.id)[0]
    early = first.state in {WaveState.PENDING, WaveState.RUNNING}
    wave = first if early else stragglers_wave(tx, rollback.id, now)
    new = [device for device in devices if device not in there]
    _schedule(tx, rollback.id, new, wave.idx, now)
    return [device for device in devices if device in there]


def _make(
    tx: Transaction,
    taken: TakenBack,
    version: int,
    devices: Sequence[str],
    rollout: RolloutRecord | None,
    now: datetime,
) -> None:
    like = rollout.spec if rollout is not None else None
    patience = like.straggler_seconds if like is not None else FOR_EVER
    spec = taking_back.spec_of(taken.model, version, straggler_seconds=patience, like=like)
    what = f"{taken.model}@{taken.version}"
    why = f"{taken.rollout_id} is rolled back" if taken.rollout_id else f"{what} was revoked"
    record = RolloutRecord(
        id=new_id("rol"),
        spec=spec,
        model=taken.model,
        version=version,
        state=RolloutState.RUNNING,
        reason=why,
        created_at=now,
        started_at=now,
        requested_by=actor.current(),
        rollback_of=taken.rollout_id,
        takes_back=taken.version,
    )
    wave = WaveRecord(rollout_id=record.id, idx=0, state=WaveState.PENDING, entered_at=now)
    tx.rollouts.add(record, [wave], ())
    _schedule(tx, record.id, devices, 0, now)
    moves.announce(tx, record, now)
    detail = {"version": f"{taken.model}@{version}", "devices": len(devices), "reason": why}
    tx.audit.add("rollout.create", record.id, detail)


def _schedule(
    tx: Transaction, rollout_id: str, devices: Sequence[str], wave: int, now: datetime
) -> None:
    number, ms = secrets.randbits(32), int(now.timestamp() * 1000)
    rows = (
        (new_id("exe", now_ms=ms, entropy=number + n), device, wave)
        for n, device in enumerate(devices)
    )
    tx.rollouts.schedule(rollout_id, rows, now)
