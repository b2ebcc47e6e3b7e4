"""How rollouts are listed, and how one is watched until it settles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orchestrator.cli.output import Shape
    from orchestrator.client import Argosy
    from schemas.rollout_view import RolloutView

_WORDS = 60


def rollout_shape() -> Shape[RolloutView]:
    """How a rollout is listed."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("MODEL", lambda view: f"{view.spec.model}@{view.spec.version}"),
        ("STATE", lambda view: console.state(view.state)),
        ("WHY", _why),
        ("WAVES", lambda view: str(view.wave_count or len(view.waves) or len(view.spec.waves))),
        ("AGE", lambda view: console.age(view.started_at or view.created_at)),
    )


def _why(view: RolloutView) -> str:
    """Why it does not go on, or whom it waits for; once it has ended, how; or what it is for."""
    from orchestrator.cli import console
    from orchestrator.cli.rollout_ends import absent_text, outcome_text

    back = f"takes {view.spec.model}@{view.takes_back} back" if view.takes_back else ""
    said = view.pause_reason or console.clean(view.reason or "") or absent_text(view) or back
    said = said or outcome_text(view) or ""
    cut = said if len(said) <= _WORDS else f"{said[: _WORDS - 1]}…"
    return cut or console.NONE


def acts_on(rollout_id: str) -> AbstractContextManager[None]:
    """While a rollout's act is under way: Ctrl-C does not say whether it was done."""
    from orchestrator.cli.failures import may_be_done

    what = f"what was asked of {rollout_id} may have been done"
    return may_be_done(what, f"argosy rollout get {rollout_id}")


def follow(
    argosy: Argosy, rollout_id: str, timeout: float | None, form: str, *, back: bool = False
) -> int:
    """Watch a rollout until it settles; the exit code.

    Args:
        argosy: the platform.
        rollout_id: which.
        timeout: seconds; None for any.
        form: of what is printed then.
        back: it was asked to be rolled back, so that this is no failure.
    """
    from orchestrator.cli.failures import detaches
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollout_watch import outcome, watch_rollout

    with detaches(f"rollout {rollout_id}", f"argosy rollout watch {rollout_id}"):
        view = watch_rollout(argosy, rollout_id, timeout, back=back)
    if form != "table":
        emit_one(view, form, rollout_shape(), None)
    return outcome(view)
