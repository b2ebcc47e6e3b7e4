"""What of a rollout waits, in words: for a window, for a word, or put off."""

from __future__ import annotations

from datetime import datetime

from orchestrator.cli import console
from schemas.maintenance import for_download, look
from schemas.pace import Urgency
from schemas.rollout import ExecState, RolloutState, WaveState
from schemas.rollout_view import ExecutionView, RolloutView, WaveView

_WAITS = frozenset({ExecState.DEFERRED, ExecState.STAGED})


def closed_until(view: RolloutView, now: datetime) -> str | None:
    """When the windows open in which offers may be made; None if they are open, or it is over."""
    if view.state is not RolloutState.RUNNING:
        return None
    seen = look(for_download(view.spec.windows), now)
    if seen.open:
        return None
    return "which never opens" if seen.until is None else f"open from {_time(seen.until)}"


def wave_waits(wave: WaveView, view: RolloutView, now: datetime) -> str | None:
    """What a wave that runs waits for; None where it gets on."""
    if wave.state is not WaveState.RUNNING:
        return None
    parts = []
    closed = closed_until(view, now)
    scheduled = wave.progress.states.get(ExecState.SCHEDULED, 0)
    kept = sum(one.kept is not None for one in wave.executions)
    if closed is not None and scheduled:
        parts.append(f"offers wait for a window, {closed}")
    if kept:
        whose = "all of them" if kept == scheduled else f"{kept} of {scheduled}"
        parts.append(f"another rollout of the model has {whose}: superseded once offers are made")
    if wave.progress.waiting:
        said = f"{wave.progress.waiting} wait"
        if view.spec.mode.urgency is Urgency.DOWNLOAD_ONLY:
            said += f": staged, waiting for `argosy rollout activate {view.id}`"
        parts.append(said)
    return "; ".join(parts) or None


def device_waits(execution: ExecutionView) -> str | None:
    """Why a device waits in the middle, in its own words where it said them."""
    if execution.kept is not None:
        return f"to be {console.clean(execution.kept)}"
    if execution.state not in _WAITS:
        return None
    if execution.detail:
        return console.clean(execution.detail)
    if execution.waits_until is not None:
        return f"waits until {_time(execution.waits_until)}"
    return "waits for a word" if execution.due_at is None else None


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
