"""Changing a rollout that is not over: its pace, gates, windows, priority; whether devices wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from orchestrator.domain.execution import IN_FLIGHT, TOO_LATE_TO_CANCEL
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.errors import IllegalTransition
from orchestrator.services.effects import check_effective
from orchestrator.services.moves import announce, found
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import RolloutRecord
from orchestrator.services.repeats import check_revision
from orchestrator.services.rollout_view import view
from schemas.pace import Mode
from schemas.rollout import RolloutSpec, RolloutState
from schemas.rollout_view import RolloutEdit, RolloutView
from schemas.stored_spec import MendedSpec, StoredSpec

_BEFORE_SWAP = IN_FLIGHT - TOO_LATE_TO_CANCEL


class EditingService:
    """Edits of rollouts.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def edit(
        self, rollout_id: str, change: RolloutEdit, revisions: Collection[int] | None
    ) -> RolloutView:
        """Change what is named; the rest stays, and a change to what is there already is none.

        What devices were offered before stays as it was offered; all else follows the change
        from the next round on.

        Args:
            rollout_id: which.
            change: what is to be different.
            revisions: the rollout must be at one of these; None for at any.

        Raises:
            NotFound: there is none.
            PreconditionFailed: it was changed since.
            IllegalTransition: it is over, or waits for an approval.
            Invalid: what is changed would have no effect.
        """
        now = self._clock()
        with self._uow() as tx:
            before = found(tx, rollout_id, lock=True)
            check_revision(before, revisions)
            if before.state in ROLLOUT_TERMINAL:
                msg = f"nothing is changed: the rollout has ended ({before.state})"
                raise IllegalTransition(msg, hint="`argosy rollout start` starts another one")
            if before.state is RolloutState.AWAITING_APPROVAL:
                # Whoever agrees has looked at it as it is.
                msg = f"nothing is changed: {before.id} waits for a second operator's approval"
                raise IllegalTransition(msg, hint="abort it, and start another one")
            named = {name: getattr(change, name) for name in change.model_fields_set}
            wanted = {name: value for name, value in named.items() if value is not None}
            spec = updated(before, wanted)
            check_effective(spec, now, wanted)
            record = changed(tx, before, spec, now)
            if record.revision != before.revision:
                tx.audit.add("rollout.edit", record.id, differences(before.spec, record.spec))
        with self._uow.read() as tx:
            return view(tx, record).model_copy(update={"notes": _kept(tx, before, record)})


def updated(record: RolloutRecord, wanted: Mapping[str, Any]) -> RolloutSpec:
    """A rollout's plan with parts replaced, of one that cannot be read as it is stored."""
    spec = record.spec
    if not isinstance(spec, MendedSpec):
        return spec.model_copy(update=dict(wanted))
    there = spec.stored if isinstance(spec.stored, dict) else {}
    given = TypeAdapter(dict[str, Any]).dump_python(dict(wanted), mode="json")
    return TypeAdapter(StoredSpec).validate_python(there | given)


def _kept(tx: Transaction, before: RolloutRecord, after: RolloutRecord) -> tuple[str, ...]:
    """Who goes by what was before: devices keep the windows and the jitter of their offer."""
    old, new = before.spec, after.spec
    parts = ["windows"] if old.windows != new.windows else []
    parts += ["jitter"] if old.pace.jitter_seconds != new.pace.jitter_seconds else []
    if not parts:
        return ()
    counts: Counter[str] = Counter()
    for states in tx.executions.counts(after.id).values():
        counts.update({state.value: n for state, n in states.items() if state in _BEFORE_SWAP})
    if not counts:
        return ()
    said = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    on = f"`argosy rollout activate {after.id}` has them go on now, whatever they wait for"
    return (f"devices keep the {' and the '.join(parts)} of their offer ({said}): {on}",)


def changed(
    tx: Transaction, before: RolloutRecord, spec: RolloutSpec, now: datetime
) -> RolloutRecord:
    """Save a spec as the next revision; the same one changes nothing."""
    if spec == before.spec:
        return before
    record = replace(before, spec=spec, revision=before.revision + 1)
    tx.rollouts.save(record)
    announce(tx, record, now)
    return record


def activated(before: RolloutRecord, now: datetime) -> tuple[RolloutRecord, dict[str, Any]]:
    """A rollout for which nobody waits any more, and what is to be said of it in the audit log.

    Whoever was offered it by now goes on at once, whatever its window says: the engine tells them
    (``domain.actions.Proceed``). Whoever is offered it from now on has no say.
    """
    spec = before.spec.model_copy(update={"mode": Mode()})
    record = replace(before, spec=spec, activated_at=now)
    return record, differences(before.spec, spec)


def differences(before: RolloutSpec, after: RolloutSpec) -> dict[str, Any]:
    """What differs, as it was and as it is."""
    old, new = (spec.model_dump(mode="json") for spec in (before, after))
    names = [name for name in new if old[name] != new[name]]
    return {"before": {n: old[n] for n in names}, "after": {n: new[n] for n in names}}
