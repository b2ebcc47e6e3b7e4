"""What the answer to an operator's act says of what the act did not do."""

from __future__ import annotations

from orchestrator.domain.acts import Act
from orchestrator.domain.taking_back import NOTHING
from schemas.rollout import PauseReason
from schemas.rollout_view import RolloutView


def notes(seen: RolloutView, act: Act, repeat: str | None) -> tuple[str, ...]:
    """What is to be said of an act.

    Args:
        seen: the rollout after it.
        act: what was asked for.
        repeat: what it found done already; None where it was done now.
    """
    first = (repeat,) if repeat else _kept(seen, act)
    return (*first, *_held(seen, act))


def _kept(seen: RolloutView, act: Act) -> tuple[str, ...]:
    """Of a rollback: who keeps the version."""
    if act is not Act.ROLLBACK or not (kept := seen.left.get(NOTHING, 0)):
        return ()
    what = f"{seen.spec.model}@{seen.spec.version}"
    many = "1 device keeps" if kept == 1 else f"{kept} devices keep"
    why = "there is nothing known to go back to; name a version for them, by --to"
    return (f"{many} {what}: {why}",)


def _held(seen: RolloutView, act: Act) -> tuple[str, ...]:
    """Of a promotion: that what an operator paused stays so."""
    if act is not Act.PROMOTE or seen.pause_reason is not PauseReason.OPERATOR:
        return ()
    return (f"it is paused by an operator, and goes on by `argosy rollout resume {seen.id}`",)
