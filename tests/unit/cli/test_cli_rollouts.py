from __future__ import annotations

import json
from typing import Any

import pytest
from argosy_fake_platform import NOW, State, rollout_view

from orchestrator.cli.rollout_devices import STATES
from schemas.errors import DeviceCause
from schemas.gates import Evidence
from schemas.model import ModelView
from schemas.rollout import ExecState, PauseReason, RolloutState, Shadow, WaveState
from schemas.rollout_view import ExecutionView, RolloutView, WaveView


def executed(state: ExecState, **fields: Any) -> ExecutionView:
    base: dict[str, Any] = {
        "id": "exe_0000000000000000", "device": "dev_0000000000000000", "wave": 0, "attempt": 1,
        "variant": "int8", "updated_at": NOW,
    }  # fmt: skip
    return ExecutionView(**{**base, "state": state, **fields})


def rollout(
    state: RolloutState, wave: WaveState, execution: ExecState, **fields: Any
) -> RolloutView:
    evidence = (
        Evidence(metric="accuracy", value=0.91, threshold=0.95, n=220, ok=False),
        Evidence(metric="error_rate", value=None, threshold=0.02, n=0, ok=None),
    )
    first = WaveView(
        index=0, state=wave, size=1, evidence=evidence, executions=(executed(execution),)
    )
    second = WaveView(index=1, state=WaveState.PENDING, size=4)
    ids = {"id": "rol_0000000000000000"}
    return rollout_view(state, waves=(first, second), **ids, **fields)


def test_watching_a_rollout_whose_gate_fails(argosy: Any, fake: State) -> None:
    script = [
        rollout(RolloutState.RUNNING, WaveState.RUNNING, ExecState.OFFERED),
        rollout(RolloutState.RUNNING, WaveState.SOAKING, ExecState.SUCCEEDED),
        rollout(
            RolloutState.PAUSED,
            WaveState.FAILED,
            ExecState.SUCCEEDED,
            pause_reason=PauseReason.VERDICT_FAILED,
        ),
    ]
    fake.rollouts[script[0].id] = script
    answer = argosy("rollout", "watch", script[0].id)
    assert answer.code == 7
    assert "wave 1 of 2, 1 device FAILED" in answer.err
    right = "✗ right answers: 91 %, the mean of 220 devices; at least 95 % are wanted"
    assert right in " ".join(answer.err.split())
    missing = "? failed inferences: nothing is known yet; at most 2 % are tolerated"
    assert missing in " ".join(answer.err.split())
    assert "verdict_failed" in answer.err
    assert answer.err.count("OFFERED") == 1


@pytest.mark.parametrize(
    ("state", "code"),
    [(RolloutState.SUCCEEDED, 0), (RolloutState.ROLLED_BACK, 7), (RolloutState.ABORTED, 1)],
)
def test_the_exit_code_of_a_settled_rollout(
    argosy: Any, fake: State, state: RolloutState, code: int
) -> None:
    view = rollout(state, WaveState.PASSED, ExecState.SUCCEEDED)
    fake.rollouts[view.id] = [view]
    assert argosy("rollout", "watch", view.id).code == code


SLOWER = Evidence(
    metric="latency_p95", value=1.3123, threshold=1.2, n=12, ok=False, device_class="cam",
    low=1.18, high=1.46, control=1.01, devices=12, controls=20, alpha=0.005, look=2,
)  # fmt: skip
LOST = Evidence(
    metric="accuracy", value=0.02, threshold=0.05, n=4, ok=None, device_class="pi",
    low=-0.011, high=0.051, devices=4, controls=0, look=2, binding=False,
    note="against their own past alone",
)  # fmt: skip


def judged(*evidence: Evidence) -> RolloutView:
    view = rollout(
        RolloutState.PAUSED,
        WaveState.FAILED,
        ExecState.SUCCEEDED,
        pause_reason=PauseReason.VERDICT_FAILED,
        reason="wave 1 failed: latency",
    )
    wave = view.waves[0].model_copy(update={"evidence": evidence, "looks": 2})
    return view.model_copy(update={"waves": (wave, *view.waves[1:])})


def test_what_passed_is_counted_and_what_failed_is_named(argosy: Any, fake: State) -> None:
    good = [Evidence(metric=f"m{n}_rate", value=0, threshold=0.1, n=9, ok=True) for n in range(3)]
    view = judged(*good, LOST, SLOWER)
    fake.rollouts[view.id] = [view]
    out = " ".join(argosy("rollout", "get", view.id).out.replace("│", "").split())
    slower = "✗ latency p95 of cam became 1.31 times as high on 12 devices as on 20 that kept"
    assert f"{slower} their version; that is no luck (it is at least 1.18 times)" in out
    assert "half of it (1.1 times), shown for certain" in out, "half of a fifth, in logarithms"
    assert "✓ 3 gates passed, 1 without a sign of harm" in out
    assert "accuracy of" not in out


def test_a_gate_without_data_says_why_and_a_pause_what_may_be_done(
    argosy: Any, fake: State
) -> None:
    unknown = LOST.model_copy(
        update={"value": None, "low": None, "high": None, "binding": True, "note": "4 are too few"}
    )
    view = judged(unknown)
    fake.rollouts[view.id] = [view]
    answer = argosy("rollout", "get", view.id)
    assert "? accuracy of pi is not known: 4 are too few" in answer.out
    for act in ("promote", "resume", "rollback", "abort"):
        assert f"    {act} " in answer.err


def test_why_shows_all_figures_that_a_verdict_rests_on(argosy: Any, fake: State) -> None:
    view = judged(LOST, SLOWER)
    fake.rollouts[view.id] = [view]
    answer = argosy("rollout", "get", view.id, "--why")
    rows = [" ".join(line.split()) for line in answer.out.splitlines()]
    slower, lost = (n for n, row in enumerate(rows) if row.startswith(("✗ latency", "· accuracy")))
    assert slower < lost, "what failed comes first"
    assert rows[lost] == (
        "· accuracy of pi got 2 points worse on 4 devices than before; luck may have made it"
        " anything from -1.1 points to 5.1 points, and 5 points are tolerated"
        " (against their own past alone)"
    )
    assert "· is not required: only harm that is shown stops it" in rows
    assert "wave 1 of 2, 1 device FAILED after 2 looks" in rows
    assert "wave 2 of 2, 4 devices PENDING nothing was judged yet" in rows
    figures = json.loads(argosy("rollout", "get", view.id, "--why", "-o", "json").out)
    assert figures["waves"][0]["evidence"][1]["high"] == 1.46


def test_a_large_fleet_is_told_in_counts_and_troubles(argosy: Any, fake: State) -> None:
    def at(done: int, state: RolloutState) -> RolloutView:
        states = [ExecState.FAILED, *[ExecState.SUCCEEDED] * (done - 1)]
        states += [ExecState.OFFERED] * (200 - done)
        each = tuple(
            executed(s, id=f"exe_{i:016}", device=f"dev_{i:016}") for i, s in enumerate(states)
        )
        wave = WaveView(index=0, state=WaveState.RUNNING, size=200, executions=each)
        return rollout_view(state, waves=(wave,), id="rol_0000000000000000")

    fake.rollouts["rol_0000000000000000"] = [
        at(5, RolloutState.RUNNING), at(45, RolloutState.RUNNING), at(200, RolloutState.SUCCEEDED),
    ]  # fmt: skip
    lines = argosy("rollout", "watch", "rol_0000000000000000").err.splitlines()
    assert sum("dev_" in line for line in lines) == 1
    assert [line.split(": ")[1] for line in lines if "have ended" in line] == [
        "45 have ended", "200 have ended",
    ]  # fmt: skip


def test_a_rollout_shows_each_device_and_its_cause(argosy: Any, fake: State) -> None:
    view = rollout(RolloutState.RUNNING, WaveState.RUNNING, ExecState.FAILED)
    broken = executed(ExecState.FAILED, cause=DeviceCause.DISK_FULL, detail="0 bytes free")
    waves = (view.waves[0].model_copy(update={"executions": (broken,)}), view.waves[1])
    fake.rollouts[view.id] = [view.model_copy(update={"waves": waves})]
    assert "disk_full: 0 bytes free" in argosy("rollout", "get", view.id).out


def test_starting_a_rollout_resolves_versions_and_sets_gates(argosy: Any, fake: State) -> None:
    fake.models = [ModelView(name="digits", versions=(1, 3, 2), aliases={"champion": 2})]
    argosy("rollout", "start", "digits", "--waves", "2, 12.5%,100%", "--soak", "1m",
           "--min-accuracy", "0.9", "--tag", "a")  # fmt: skip
    argosy("rollout", "start", "digits@champion")
    argosy("rollout", "plan", "digits@1")
    specs = [script[0].spec for script in fake.rollouts.values()]
    assert [spec.version for spec in specs] == [3, 2, 1]
    assert [(w.count, w.percent) for w in specs[0].waves] == [(2, None), (None, 12.5), (None, 100)]
    assert (specs[0].gates.soak_seconds, specs[0].gates.min_accuracy) == (60, 0.9)
    assert specs[1].gates == type(specs[1].gates)()
    acts = [path.rpartition("/")[2] for method, path, _ in fake.seen if method == "POST"]
    assert acts == ["rollouts", "start", "rollouts", "start", "rollouts"]


def test_starting_a_rollout_sets_its_times_and_its_shadow(argosy: Any, fake: State) -> None:
    fake.models = [ModelView(name="digits", versions=(1,))]
    times = ("--offer", "1m", "--step", "10m", "--straggler", "2d", "--attempts", "5")
    shadow = ("--shadow", "30s", "--shadow-agreement", "0.95", "--shadow-cpu", "10%")
    argosy("rollout", "plan", "digits", *times, "--retry-after", "1s", *shadow)
    ((first, *_),) = fake.rollouts.values()
    spec = first.spec
    assert (spec.offer_seconds, spec.step_seconds, spec.straggler_seconds) == (60, 600, 172800)
    assert (spec.max_attempts, spec.retry_seconds) == (5, 1)
    assert spec.shadow == Shadow(seconds=30, min_agreement=0.95, cpu_share=0.1)
    alone = argosy("rollout", "start", "digits", "--shadow-cpu", "10%")
    assert (alone.code, "--shadow-cpu: nothing is tried" in alone.err) == (2, True)
    wrong = argosy("rollout", "start", "digits", "--shadow", "1m", "--shadow-cpu", "250%")
    assert (wrong.code, "--shadow-cpu: must be" in wrong.err) == (2, True)
    assert argosy("rollout", "start", "digits", "--shadow-cpu", "much").code == 2


def test_what_holds_a_device_and_why_a_rollout_stands_still_is_shown(
    argosy: Any, fake: State
) -> None:
    held = executed(ExecState.SCHEDULED, waits_for="rol_1111111111111111")
    view = rollout(
        RolloutState.PAUSED, WaveState.RUNNING, ExecState.SCHEDULED, reason="by admin:k: the line"
    )
    wave = view.waves[0].model_copy(update={"executions": (held,)})
    spec = view.spec.model_copy(update={"shadow": Shadow(seconds=120)})
    view = view.model_copy(update={"waves": (wave,), "spec": spec})
    fake.rollouts[view.id] = [view]
    out = argosy("rollout", "get", view.id).out
    assert "waits for rol_1111111111111111" in out
    assert "none of its devices is there" not in out
    assert "by admin:k: the line" in out
    assert "shadow: 2m 00s beside the version that serves, agreement ≥ 90.0 % of 50" in out


def test_an_unknown_version_lists_those_there_are(argosy: Any, fake: State) -> None:
    fake.models = [ModelView(name="digits", versions=(1, 2), aliases={"champion": 2})]
    answer = argosy("rollout", "start", "digits@best")
    assert answer.code == 5
    assert "it has 1, 2, champion, latest" in answer.err


def test_devices_of_a_rollout_are_listed_by_state_however_many(argosy: Any, fake: State) -> None:
    states = [ExecState.FAILED, ExecState.SUCCEEDED, ExecState.TIMED_OUT] * 4
    each = tuple(
        executed(s, id=f"exe_{i:016}", device=f"dev_{i:016}", cause=DeviceCause.DISK_FULL)
        for i, s in enumerate(states)
    )
    waves = (WaveView(index=0, state=WaveState.RUNNING, size=12, executions=each),)
    view = rollout_view(RolloutState.RUNNING, waves=waves, id="rol_0000000000000000")
    fake.rollouts[view.id] = [view]
    fake.page_size = 2
    assert set(STATES) == set(ExecState)
    answer = argosy("rollout", "devices", view.id, "--state", "failed", "--state", "TIMED_OUT")
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == [
        e.device for e in each if e.state is not ExecState.SUCCEEDED
    ]
    assert "disk_full" in answer.out
    assert argosy("rollout", "devices", view.id, "--wave", "2").err == "no device of it is there\n"


def test_retrying_says_how_many_and_what_comes_next(argosy: Any, fake: State) -> None:
    view = rollout_view(RolloutState.PAUSED, id="rol_0000000000000000")
    fake.rollouts[view.id] = [view]
    answer = argosy("rollout", "retry", view.id)
    assert (answer.code, answer.out) == (0, f"{view.id}\n")
    assert "3 devices are tried again" in answer.err
    assert f"argosy rollout resume {view.id}" in answer.err
    assert "1 device is" in argosy("rollout", "retry", view.id, "dev_0000000000000000").err
    assert argosy("rollout", "retry", view.id, "nonsense").code == 2
