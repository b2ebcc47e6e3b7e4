"""What of a rollout waits is said: for a window, for a word, or put off."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.cli.rollout_waits import device_waits, wave_waits
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import ExecutionView, Progress, RolloutView, WaveView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NIGHT = MaintenanceWindow(cron="0 2 * * *", minutes=60, covers=WindowCovers.ALL)


def rollout(states, waiting=0, **spec):
    wave = WaveView(
        index=0,
        state=WaveState.RUNNING,
        size=3,
        progress=Progress(states=states, waiting=waiting),
    )
    view = RolloutView(
        id="rol_0123456789abcdef",
        spec=RolloutSpec(model="digits", version=1, **spec),
        state=RolloutState.RUNNING,
        waves=(wave,),
        created_at=NOW,
    )
    return wave, view


def execution(state, **more):
    base = {"id": "exe_0123456789abcdef", "device": "dev_0123456789abcdef", "wave": 0}
    return ExecutionView(**base, attempt=1, state=state, updated_at=NOW, **more)


def test_a_wave_says_what_it_waits_for():
    assert wave_waits(*rollout({ExecState.SCHEDULED: 3}), NOW) is None
    closed = wave_waits(*rollout({ExecState.SCHEDULED: 3}, windows=(NIGHT,)), NOW)
    assert closed == "offers wait for a window, open from 2026-03-02 02:00 UTC"
    assert wave_waits(*rollout({ExecState.STAGED: 3}, windows=(NIGHT,)), NOW) is None
    only = Mode(urgency=Urgency.DOWNLOAD_ONLY)
    staged = wave_waits(*rollout({ExecState.STAGED: 3}, 3, mode=only), NOW)
    assert staged.startswith("3 wait: staged, waiting for `argosy rollout activate rol_")


def test_a_wave_says_that_another_rollout_has_its_devices():
    wave, view = rollout({ExecState.SCHEDULED: 3}, windows=(NIGHT,))
    kept = execution(ExecState.SCHEDULED, kept="superseded by rol_1")
    free = execution(ExecState.SCHEDULED)
    for executions, whose in (((kept,) * 3, "all of them"), ((kept, free, free), "1 of 3")):
        said = wave_waits(wave.model_copy(update={"executions": executions}), view, NOW)
        assert f"another rollout of the model has {whose}: superseded once" in said
    assert device_waits(kept) == "to be superseded by rol_1"


def test_a_device_says_why_it_waits():
    assert device_waits(execution(ExecState.STAGED)) == "waits for a word"
    assert device_waits(execution(ExecState.STAGED, due_at=NOW)) is None
    put_off = execution(ExecState.DEFERRED, waits_until=NOW, due_at=NOW)
    assert device_waits(put_off) == "waits until 2026-03-01 12:00 UTC"
    assert (
        device_waits(execution(ExecState.DEFERRED, detail="put off by hand")) == "put off by hand"
    )
    assert device_waits(execution(ExecState.DOWNLOADING)) is None
