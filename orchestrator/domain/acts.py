"""What operators may do to a rollout, and in which state: one table."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.domain.rollout import ROLLOUT_TERMINAL, Refuse
from schemas.rollout import RolloutState

R = RolloutState


class Act(StrEnum):
    """An operator's act, as the last segment of its route names it."""

    START = "start"
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ACTIVATE = "activate"
    FINISH = "finish"
    ABORT = "abort"
    ROLLBACK = "rollback"


A = Act

_GOING = frozenset({R.RUNNING, R.PAUSED})

LEGAL: dict[Act, frozenset[RolloutState]] = {
    A.START: frozenset({R.DRAFT}),
    A.APPROVE: frozenset({R.AWAITING_APPROVAL}),
    A.PAUSE: frozenset({R.RUNNING}),
    A.RESUME: frozenset({R.PAUSED}),
    A.PROMOTE: _GOING,
    A.ACTIVATE: frozenset({R.RUNNING}),
    A.FINISH: frozenset({R.RUNNING}),
    A.ABORT: frozenset(R) - ROLLOUT_TERMINAL,
    A.ROLLBACK: _GOING,
}
"""The states in which each act changes something."""

_DONE: dict[Act, frozenset[RolloutState]] = {
    A.START: frozenset({R.RUNNING, R.AWAITING_APPROVAL}),
    A.APPROVE: frozenset({R.RUNNING}),
    A.PAUSE: frozenset({R.PAUSED}),
    A.RESUME: frozenset({R.RUNNING}),
    A.FINISH: frozenset({R.SUCCEEDED}),
    A.ABORT: frozenset({R.ABORTED}),
    A.ROLLBACK: frozenset({R.ROLLING_BACK, R.ROLLED_BACK}),
}
"""The states in which an act finds its own result: it changes nothing, and is no fault."""


def instead_of_rollback(model: str, version: int) -> str:
    """How devices get away from what a rollout brought that has ended."""
    return (
        f"`argosy rollout start {model}@OLD --where 'model.{model} = {version}'` brings an older"
        f" version to those that serve it, in waves; `argosy model revoke {model}@{version}"
        " --reason … --rollback` takes it from every device for good, each to what it served before"
    )


def judge(act: Act, state: RolloutState, *, is_rollback: bool = False) -> bool | Refuse:
    """Whether an act changes a rollout: False where it finds its own result.

    Args:
        act: what is asked for.
        state: of the rollout.
        is_rollback: it takes another one back.

    Returns:
        A refusal where the state does not allow it, which names the acts that it does.
    """
    if act is Act.ROLLBACK and is_rollback:
        return Refuse("a rollback is not rolled back: start a rollout of the version instead")
    if state in LEGAL[act]:
        return True
    if state in _DONE.get(act, ()):
        return False
    legal = legal_in(state, is_rollback=is_rollback)
    what = _WORDS.get(act, act.value)
    if not legal:
        return Refuse(f"cannot {what}: the rollout has ended ({state})")
    return Refuse(f"cannot {what} a rollout that is {state}; it allows {', '.join(legal)}")


_WORDS = {Act.ROLLBACK: "roll back"}


def legal_in(state: RolloutState, *, is_rollback: bool = False) -> list[Act]:
    """The acts that a state allows, in the order of a rollout's life."""
    allowed = [act for act in Act if state in LEGAL[act]]
    return [act for act in allowed if not (is_rollback and act is Act.ROLLBACK)]
