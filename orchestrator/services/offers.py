"""Offering a version to devices that are there, by sets: which variant, and who has it already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from orchestrator.domain.resolve import Choice, installed
from orchestrator.domain.timers import Timers, due_at
from orchestrator.services import overlap
from orchestrator.services.moves import announce_moved, end_executions
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Alike, Among, RolloutRecord, Waiting
from orchestrator.services.resolution import Resolver, parsed
from orchestrator.services.versions import found
from schemas.rollout import EXEC_TERMINAL, ExecState

OPEN = frozenset(ExecState) - EXEC_TERMINAL
"""States in which an execution is not over."""

MAX_SIFTED = 100
"""Groups of alike devices that are looked at when a wave begins; others wait to be there."""

_HAS_IT = "it already serves this version"

_End = tuple[ExecState, str]


def offer(
    tx: Transaction, rollout: RolloutRecord, waiting: Sequence[Waiting], now: datetime
) -> None:
    """Offer to devices that wait and are there, as far as a variant fits them.

    A device works for one rollout at a time. Of one model that is the one that ranks highest
    (``domain.overlap``): what it does for others is superseded, or this rollout is there. What it
    does for another model is waited for, unless nobody has begun with it; or unless it waits
    there, for a window or a word, and this leads it back from a bad version.
    """
    by_variant, ends = _sorted(tx, rollout, waiting)
    devices = [one.device_id for members in by_variant.values() for one in members]
    kept = overlap.kept(tx, rollout, devices) if devices else {}
    for variant, members in by_variant.items():
        for one in members:
            if one.device_id in kept:
                ends[ExecState.SUPERSEDED, kept[one.device_id]].append(one.id)
        by_variant[variant] = [one for one in members if one.device_id not in kept]
    for (state, detail), ids in ends.items():
        among = Among(rollout_id=rollout.id, ids=tuple(ids))
        announce_moved(
            tx, tx.executions.end(among, state, detail, now, len(ids)), state, now, detail
        )
    mine = [device for device in devices if device not in kept]
    if not mine:
        return
    superseded = tx.executions.supersede(rollout.id, mine, now)
    detail = f"superseded by {rollout.id}"
    announce_moved(tx, superseded, ExecState.SUPERSEDED, now, detail)
    put_off = tx.executions.give_way(rollout.id, mine, now)
    announce_moved(tx, put_off, ExecState.SCHEDULED, now)
    if rollout.takes_back is not None:
        why = f"set aside for the rollback {rollout.id}"
        aside = tx.executions.set_aside(rollout.id, mine, why, now)
        announce_moved(tx, aside, ExecState.SCHEDULED, now, why)
    due = due_at(ExecState.OFFERED, now, Timers.of(rollout.spec)) or now
    for variant, members in by_variant.items():
        if members:
            moved = tx.executions.offer([one.id for one in members], variant, now, due)
            announce_moved(tx, moved, ExecState.OFFERED, now)


def _sorted(
    tx: Transaction, rollout: RolloutRecord, waiting: Sequence[Waiting]
) -> tuple[dict[str, list[Waiting]], defaultdict[_End, list[str]]]:
    """Who gets which variant, and which executions end without an offer."""
    chooser = _Chooser(tx, rollout)
    by_variant: defaultdict[str, list[Waiting]] = defaultdict(list)
    ends: defaultdict[_End, list[str]] = defaultdict(list)
    for one in waiting:
        found = chooser.choose(one)
        if isinstance(found, str):
            by_variant[found].append(one)
        else:
            ends[found].append(one.id)
    return by_variant, ends


def sift(tx: Transaction, rollout: RolloutRecord, wave: int, now: datetime) -> None:
    """End what of a wave needs no device to be there: nothing fits it, or it has the version.

    It is done once, by groups of alike devices, the largest first; the others are looked at
    when they are there.
    """
    chooser = _Chooser(tx, rollout)
    its = Among(rollout_id=rollout.id, wave=wave, states=frozenset({ExecState.SCHEDULED}))
    for group in tx.executions.alike(its, MAX_SIFTED):
        found = chooser.choose(group)
        if isinstance(found, str):
            continue
        state, detail = found
        among = Among(rollout_id=rollout.id, wave=wave, states=its.states, alike=group)
        end_executions(tx, among, state, detail, now)


class _Chooser:
    """Decides for the devices of a rollout: the id of a variant, or how an execution ends."""

    def __init__(self, tx: Transaction, rollout: RolloutRecord) -> None:
        self._version = rollout.version
        self._manifest = parsed(found(tx, rollout.model, rollout.version).manifest)
        self._resolver = Resolver(tx, self._manifest, rollout.version, rollout.spec.variant)

    def choose(self, device: Waiting | Alike) -> str | _End:
        choice = self._resolver.resolve(device)
        if not isinstance(choice, Choice):
            return ExecState.NO_VARIANT, choice or "no variant fits"
        if installed(device.active, self._manifest, self._version, choice.variant):
            return ExecState.ALREADY_INSTALLED, _HAS_IT
        return choice.variant.id
