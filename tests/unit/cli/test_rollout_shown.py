"""What operators are told of a rollout: its gates, whom it waits for, how it ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from argosy_fake_platform import NOW, State, rollout_view

from orchestrator.cli.rollout_acts import _left
from orchestrator.cli.rollout_ends import absent_text, outcome_text
from orchestrator.cli.rollout_gates import asked_text, changes, gate_facts
from orchestrator.cli.rollout_plan_text import print_plan
from orchestrator.cli.rollout_shape import rollout_shape
from orchestrator.cli.rollout_watch import Lines, say_end
from schemas.gates import FailureGate, FailureKind, Gates, Metric, TelemetryGate
from schemas.ids import new_id
from schemas.rollout import ExecState, OnFailure, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import Absent, Asked, ExecutionView, Progress, RolloutView, WaveView

GATES = Gates(
    telemetry=(
        TelemetryGate(metric=Metric.LATENCY_P95, max_worse=1.5, required=False),
        TelemetryGate(metric=Metric.ACCURACY, max_worse=0.05),
        TelemetryGate(metric=Metric.SILENCE, max_worse=0.2, required=False),
    ),
    failures=(FailureGate(kind=FailureKind.ROLLED_BACK, max_rate=0.05, min_devices=3),),
    soak_seconds=15,
    evidence_seconds=90,
)
SPEC = RolloutSpec(
    model="digits", version=2, gates=GATES, on_failure=OnFailure.ROLL_BACK, rollback_to=1
)
ENDED = {"SUCCEEDED": 37, "ALREADY_INSTALLED": 1, "ROLLED_BACK": 37, "NOT_OFFERED": 2}


def test_a_plan_is_shown_with_what_decides_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked(name="ann", at=datetime.now(UTC), reason="fixes the left lane")
    view = rollout_view(RolloutState.AWAITING_APPROVAL, requested_by="releaser:key_1", asked=asked)
    view = view.model_copy(update={"spec": SPEC})
    print_plan(view)
    shown = capsys.readouterr().out
    at = f"{asked.at:%M}"
    for words in (
        "accuracy within 5 points, latency_p95 within 1.5x (watched), silence at most 20% (watched",
        "at most 10% of devices fail, rolled_back at most 5% once 3 have ended, at most 2% of infe",
        "soak 15 s, evidence 1m 30s",
        "on failure  roll back to digits@1",
        "20 inferences, at most 5% of them failed, 3 starts, 5x the time before, golden vectors",
        f":{at}: fixes the left lane",
        f"a releaser or admin other than ann: `argosy rollout approve {view.id}`",
    ):
        assert words in shown
    assert "key_1" not in shown
    unknown = view.model_copy(update={"asked": None})
    assert asked_text(unknown) == "releaser:key_1"


def test_a_rollout_that_is_under_way_shows_its_gates_and_one_that_is_over_its_end(
    argosy: Any, fake: State
) -> None:
    view = rollout_view(started_at=NOW, id="rol_0000000000000000")
    view = view.model_copy(update={"spec": SPEC})
    fake.rollouts[view.id] = [view]
    assert "accuracy within 5 points" in argosy("rollout", "get", view.id).out
    over = {"state": RolloutState.SUCCEEDED, "ended_at": NOW, "outcome": ENDED}
    fake.rollouts[view.id] = [view.model_copy(update=over)]
    shown = argosy("rollout", "get", view.id).out
    assert "within 5 points" not in shown
    assert "38 of 77 came to serve it, 37 rolled back, 2 never offered it" in shown


def test_an_edit_says_from_what_to_what() -> None:
    more = (*GATES.telemetry[:1], TelemetryGate(metric=Metric.ACCURACY, max_worse=0.1))
    gates = GATES.model_copy(update={"telemetry": more, "soak_seconds": 60.0})
    after = SPEC.model_copy(update={"gates": gates, "priority": 80, "rollback_to": None})
    gone = "accuracy within 5 points, silence at most 20% (watched)"
    assert list(changes(SPEC, after)) == [
        f"gates: {gone} -> accuracy within 10 points",
        "verdict: soak 15 s -> soak 1m 00s",
        "on failure: roll back to digits@1 -> roll back to what each device served before",
        "priority: 50 -> 80",
    ]
    assert list(changes(SPEC, SPEC)) == []


def test_every_metric_is_said_in_its_unit() -> None:
    worse = {metric: 1.5 if metric in {"rss", "energy"} or "latency" in metric else 0.01
             for metric in Metric}  # fmt: skip
    gates = tuple(TelemetryGate(metric=m, max_worse=w) for m, w in worse.items())
    said = gate_facts(SPEC.model_copy(update={"gates": Gates(telemetry=gates)}))[0][1]
    assert "error_rate within 1 point," in said
    assert "shadow_agreement at least 99%" in said
    assert "rss within 1.5x" in said
    assert all(metric.value in said for metric in Metric)


@pytest.mark.parametrize(("days", "said"), [(0, "today"), (1, "tomorrow"), (2, "2")])
def test_whom_it_waits_for_and_until_when(days: int, said: str) -> None:
    until = datetime.now().astimezone().replace(hour=3, minute=50) + timedelta(days=days)
    view = rollout_view(absent=Absent(devices=1, until=until))
    told = absent_text(view)
    assert told is not None
    assert told.startswith(f"waits for 1 device that is not there, until {said}")
    assert told.endswith(f"{until:%H:%M}")
    assert dict(rollout_shape().columns)["WHY"](view) == told
    assert _left(view) == f"nobody joins it any more; it {told}"


def test_a_list_says_how_a_rollout_ended() -> None:
    why = dict(rollout_shape().columns)["WHY"]
    ended = rollout_view(RolloutState.SUCCEEDED, outcome=ENDED)
    assert why(ended) == "38 of 77 came to serve it, 37 rolled back, 2 never offered …"
    assert why(rollout_view(RolloutState.SUCCEEDED, outcome={"SUCCEEDED": 3})) == (
        "3 came to serve it"
    )
    assert outcome_text(rollout_view(outcome={"SUCCEEDED": 1, "NEWER": 1})) == (
        "1 of 2 came to serve it, 1 newer"
    )
    assert outcome_text(rollout_view()) is None


def execution(number: int, state: ExecState, variant: str | None = None) -> ExecutionView:
    return ExecutionView(
        id=new_id("exe", entropy=number), device=new_id("dev", entropy=number), wave=0,
        attempt=1, state=state, variant=variant, updated_at=NOW,
    )  # fmt: skip


def stopped(state: RolloutState, *executions: ExecutionView, over: int = 0) -> RolloutView:
    wave = WaveView(
        index=0, state=WaveState.RUNNING, size=len(executions), executions=executions,
        progress=Progress(not_offered=over),
    )  # fmt: skip
    return rollout_view(state, id="rol_0000000000000000", waves=(wave,))


def test_those_that_a_stop_came_to_before_an_offer_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines, waiting, given_up = Lines(), ExecState.SCHEDULED, ExecState.CANCELLED
    working = execution(9, ExecState.DOWNLOADING, "int8")
    lines.update(stopped(RolloutState.RUNNING, *(execution(n, waiting) for n in range(4)), working))
    after = [execution(n, given_up) for n in range(4)] + [execution(9, given_up, "int8")]
    for _ in range(2):
        lines.update(stopped(RolloutState.ROLLING_BACK, *after, over=4))
    told = capsys.readouterr().err
    assert told.count("4 devices that had been offered nothing left out") == 1
    assert told.count("CANCELLED") == 1
    assert told.count("wave 1 of 1, 5 devices not judged") == 1


@pytest.mark.parametrize(
    ("back", "left", "mark"), [(True, {}, "✓"), (False, {}, "✗"), (True, {"offline": 2}, "✗")]
)
def test_a_rollback_that_was_asked_for_is_no_failure(
    *, back: bool, left: dict[str, int], mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = NOW - timedelta(hours=1)
    view = rollout_view(
        RolloutState.ROLLED_BACK, created_at=planned, started_at=NOW,
        ended_at=NOW + timedelta(seconds=20), left=left,
    )  # fmt: skip
    say_end(view, back=back)
    told = capsys.readouterr().err
    assert told.startswith(f"{mark} digits@1 was rolled back")
    assert "20 s" in told, "since its start, not since it was planned"


def test_a_success_that_not_all_serve_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    say_end(rollout_view(RolloutState.SUCCEEDED, outcome=ENDED, ended_at=NOW))
    told = capsys.readouterr().err
    assert "digits@1 is on 38 of 77 devices" in told
    assert "37 rolled back, 2 never offered it" in told
