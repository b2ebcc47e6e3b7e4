"""Acts that come twice, as after an answer that was lost: the second time changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from orchestrator.domain.acts import Act
from orchestrator.errors import PreconditionFailed
from orchestrator.services import promoting
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord
from schemas.pace import Mode
from schemas.rollout import RolloutState
from schemas.rollout_view import OperateRequest


def repeated(
    tx: Transaction, record: RolloutRecord, act: Act, said: OperateRequest, now: datetime
) -> str | None:
    """What an act finds done already, beyond what the rollout's state tells; None if nothing.

    Raises:
        NotFound, Conflict: see ``promoting.promoted_already``.
    """
    match act:
        case Act.PROMOTE if said.wave is not None or record.state in _GOING:
            waves = tx.rollouts.waves(record.id)
            return promoting.promoted_already(record, waves, wave=said.wave, full=said.full)
        case Act.ACTIVATE if record.state is RolloutState.RUNNING:
            since = record.activated_at
            if since is None or record.spec.mode != Mode():
                return None
            offered, _ = tx.executions.offered(record.id, since, now)
            return None if offered else "it is activated already, and nobody was offered it since"
        case Act.FINISH if record.state is RolloutState.RUNNING and not record.spec.dynamic:
            hint = f"`argosy rollout promote {record.id} --full` lets them pass now"
            return f"no device joins it any more: it ends when its waves have passed; {hint}"
        case _:
            return None


def check_revision(record: RolloutRecord, revisions: Collection[int] | None) -> None:
    """See that a rollout is at one of these revisions; None: at any.

    Raises:
        PreconditionFailed: it was changed since.
    """
    if revisions is None or record.revision in revisions:
        return
    msg = f"{record.id} is at revision {record.revision} by now: it was changed meanwhile"
    hint = f"look at it with `argosy rollout get {record.id}`, then change it again"
    raise PreconditionFailed(msg, hint=hint)


_GOING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
