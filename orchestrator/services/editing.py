"""Changing a rollout that is not over: its pace, gates, windows, priority; whether devices wait."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.errors import IllegalTransition, PreconditionFailed
from orchestrator.services.moves import announce, found
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import RolloutRecord
from orchestrator.services.rollout_view import view
from schemas.pace import Mode
from schemas.rollout import RolloutSpec, RolloutState
from schemas.rollout_view import RolloutEdit, RolloutView


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
        """
        now = self._clock()
        with self._uow() as tx:
            before = found(tx, rollout_id, lock=True)
            _check_revision(before, revisions)
            if before.state in ROLLOUT_TERMINAL:
                msg = f"nothing is changed: the rollout has ended ({before.state})"
                raise IllegalTransition(msg, hint="`argosy rollout start` starts another one")
            if before.state is RolloutState.AWAITING_APPROVAL:
                # Whoever agrees has looked at it as it is.
                msg = f"nothing is changed: {before.id} waits for a second operator's approval"
                raise IllegalTransition(msg, hint="abort it, and start another one")
            named = {name: getattr(change, name) for name in change.model_fields_set}
            wanted = {name: value for name, value in named.items() if value is not None}
            record = changed(tx, before, before.spec.model_copy(update=wanted), now)
            if record.revision != before.revision:
                tx.audit.add("rollout.edit", record.id, differences(before.spec, record.spec))
        with self._uow.read() as tx:
            return view(tx, record)


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


def _check_revision(record: RolloutRecord, revisions: Collection[int] | None) -> None:
    if revisions is None or record.revision in revisions:
        return
    msg = f"{record.id} is at revision {record.revision} by now: it was changed meanwhile"
    hint = f"look at it with `argosy rollout get {record.id}`, then change it again"
    raise PreconditionFailed(msg, hint=hint)
