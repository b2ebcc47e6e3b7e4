"""What an operator is offered to do next with a rollout: only what would not be refused."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain.acts import Act, legal_in
from orchestrator.domain.rollout import ROLLOUT_TERMINAL, Rollout, no_retry
from schemas.rollout import PauseReason, RolloutState

EDIT, RETRY = "edit", "retry"

_WITHOUT_PLAN = frozenset({Act.PAUSE, Act.ABORT, Act.ROLLBACK})
"""Acts that ask nothing of a plan."""

_NO_EDIT = ROLLOUT_TERMINAL | {RolloutState.AWAITING_APPROVAL, RolloutState.ROLLING_BACK}
"""States in which a plan is not changed any more, or is as somebody is to agree to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a rollout stands, as far as it matters what may be done next.

    is_rollback: it takes another one back. readable: its plan is. left: waves have not passed.
    failed: devices came to nothing that may try again. may_pass: the wave that failures stopped
    passes by the gates as they are, or once those are through that try again. leads: a rollback
    would do something without a version that is named.
    """

    rollout: Rollout
    is_rollback: bool = False
    readable: bool = True
    dynamic: bool = False
    left: bool = True
    failed: bool = False
    may_pass: bool = True
    leads: bool = True


def next_acts(of: Standing) -> tuple[str, ...]:
    """The acts that would change it, in the order of a rollout's life; then retry and edit."""
    state = of.rollout.state
    legal = legal_in(state, is_rollback=of.is_rollback)
    acts = [act.value for act in legal if _is_of_use(act, of)]
    if of.readable and of.failed and no_retry(state) is None:
        acts.append(RETRY)
    if state not in _NO_EDIT:
        acts.append(EDIT)
    return tuple(acts)


def _is_of_use(act: Act, of: Standing) -> bool:
    if not of.readable and act not in _WITHOUT_PLAN:
        return False
    match act:
        case Act.RESUME:
            stopped = of.rollout.pause_reason is PauseReason.ERROR_THRESHOLD
            return of.may_pass or not stopped
        case Act.PROMOTE:
            return of.left
        case Act.FINISH:
            return of.dynamic
        case Act.ROLLBACK:
            return of.leads
        case _:
            return True
