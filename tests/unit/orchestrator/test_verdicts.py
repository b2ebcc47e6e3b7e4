"""Waves judged by what devices really reported, from windows to verdicts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from orchestrator.domain.rollout import RolloutEvent
from orchestrator.services import judging
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.inbox import UpMessage
from schemas.gates import Gates, Metric, TelemetryGate
from schemas.rollout import (
    ExecReport,
    ExecState,
    OnFailure,
    PauseReason,
    RolloutSpec,
    RolloutState,
    WaveState,
)
from schemas.topics import Up, UpTopic
from schemas.window import encode, pack
from tests.unit.orchestrator.platform import BOOT

S = ExecState
Figures = Mapping[str, object]
STEPS = [S.ACCEPTED, S.PROBATION, S.SUCCEEDED]
CLASSES = ("cam", "pi")
PER_CLASS = 10
GATES = Gates(
    soak_seconds=120,
    evidence_seconds=600,
    baseline_seconds=900,
    telemetry=(
        TelemetryGate(metric=Metric.ACCURACY, max_worse=0.10),
        TelemetryGate(metric=Metric.LATENCY_P95, max_worse=1.5),
        TelemetryGate(metric=Metric.SILENCE, max_worse=0.6, required=False),
    ),
)
GOOD = {"correct": 95, "latency": pack({40: 100})}
WRONG = {"correct": 60, "latency": pack({40: 100})}
NOTHING: Figures = {}
SLOW = {"correct": 95, "latency": pack({50: 100})}


@dataclass
class Trial:
    """A fleet that has served version 1 for a while, and version 2."""

    platform: object
    classes: tuple[str, ...] = ("cam",)
    devices: dict[str, str] = field(default_factory=dict)
    serves: dict[str, int] = field(default_factory=dict)
    rollout: str = ""
    _windows: int = 0

    def prepare(self) -> None:
        for name in self.classes:
            for device in self.platform.enroll(PER_CLASS, name):
                self.devices[device] = name
        for version in (1, 2):
            content = f"weights {version}".encode()
            self.platform.models.register(
                "digits", self.platform.manifest("int8", content=content), None
            )
        self.births()
        gates = {"soak_seconds": 0, "min_inferences": 1, "telemetry": []}
        self.start(version=1, waves=[{"percent": 100}], gates=gates)
        self.minutes(3)
        assert self.view.state is RolloutState.SUCCEEDED

    def births(self) -> None:
        for device in self.devices:
            self.platform.birth(device)

    def start(self, gates: object = GATES, **more: object) -> None:
        asked = {"model": "digits", "version": 2, "gates": gates, "waves": [{"percent": 50}]} | more
        spec = RolloutSpec.model_validate(asked)
        self.rollout = self.platform.rollouts.plan(spec).id
        self.platform.rollouts.operate(self.rollout, RolloutEvent.START)
        self.platform.tick()
        offered = [one for one in self.executions() if one.state is S.OFFERED]
        self.serves |= {one.device: spec.version for one in offered}
        self.send(
            (one.device, Up.EXEC, report(one, seq, state))
            for seq, state in enumerate(STEPS)
            for one in offered
        )

    def minutes(self, many: int, always: Figures = GOOD, **of_two: Figures) -> None:
        """Time in which each device tells once a minute; version 2 does as said for a class."""
        for _ in range(many):
            self.platform.clock.forward(60)
            self.send(
                (device, Up.TELE, self.window(version, figures))
                for device, version in self.serves.items()
                for figures in (
                    of_two.get(self.devices[device], always) if version == 2 else always,
                )
                if figures
            )
            self.platform.tick()

    def window(self, version: int, figures: Figures) -> bytes:
        self._windows += 1
        more = {"length_ms": 60_000, **figures}
        return encode(self.platform.envelope(self._windows, about={"version": version}, **more))

    def send(self, messages: Iterable[tuple[str, Up, bytes]]) -> None:
        """What devices say, as the gateway hands it over: many at once."""
        said = [
            UpMessage(UpTopic(name, leaf), what, retained=False) for name, leaf, what in messages
        ]
        self.platform.inbox.handle(said)

    def executions(self):
        return [one for wave in self.view.waves for one in wave.executions]

    def figure(self, metric: Metric, of: str):
        (found,) = (
            one
            for one in self.view.waves[0].evidence
            if (one.metric, one.device_class) == (metric, of)
        )
        return found

    @property
    def view(self):
        return self.platform.rollouts.get(self.rollout)


def report(execution, seq: int, state: ExecState) -> bytes:
    said = ExecReport(execution=execution.id, attempt=1, seq=seq, boot=BOOT, uptime=1, state=state)
    return said.model_dump_json().encode()


@pytest.fixture
def trial(platform):
    made = Trial(platform)
    made.prepare()
    return made


@pytest.fixture
def mixed(platform):
    made = Trial(platform, CLASSES)
    made.prepare()
    return made


def test_a_version_that_is_worse_on_one_class_alone_is_stopped(mixed):
    mixed.start()
    mixed.minutes(3, cam=WRONG)
    view = mixed.view
    assert (view.state, view.pause_reason) == (RolloutState.PAUSED, PauseReason.VERDICT_FAILED)
    bad, good = (mixed.figure(Metric.ACCURACY, name) for name in CLASSES)
    assert (bad.ok, bad.devices, bad.controls, bad.look) == (False, 5, 5, 1)
    assert bad.value == pytest.approx(0.35)
    assert bad.low > 0
    assert good.ok is True
    lost = "accuracy of cam got 35 points worse on 5 devices than on 5 that kept their version"
    assert view.reason.startswith(f"wave 1 failed: {lost}; that is no luck (it is at least ")
    assert view.reason.endswith(
        "half of it (5 points), shown for certain beside others, stops a wave"
    )
    assert all(one.state is S.SUCCEEDED for one in mixed.executions())


def test_a_slower_one_is_taken_back_where_that_is_asked_for(trial):
    trial.start(on_failure=OnFailure.ROLL_BACK)
    trial.minutes(3, cam=SLOW)
    assert trial.view.state in {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK}
    slow = trial.figure(Metric.LATENCY_P95, "cam")
    assert slow.value == pytest.approx(2 ** (10 / 8), rel=0.01)
    assert "latency p95 of cam became 2.38 times as high on" in trial.view.reason


def test_a_good_one_passes_with_its_evidence(trial):
    trial.start()
    trial.minutes(3)
    view = trial.view
    assert view.state is RolloutState.SUCCEEDED
    assert (view.waves[0].state, view.waves[0].looks) == (WaveState.PASSED, 1)
    assert {one.ok for one in view.waves[0].evidence if one.metric != Metric.SILENCE} == {True}
    assert trial.figure(Metric.ACCURACY, "cam").alpha == GATES.alpha / 2


def test_what_changes_for_everybody_is_not_held_against_the_version(trial):
    """At night all cameras see less: the control cohort does, too."""
    trial.start()
    trial.minutes(3, {"correct": 70, "latency": pack({44: 100})})
    assert trial.view.state is RolloutState.SUCCEEDED
    assert trial.figure(Metric.ACCURACY, "cam").control == pytest.approx(0.25)


def test_too_few_devices_are_looked_at_again_and_are_no_pass(trial):
    gates = GATES.model_copy(update={"min_devices": 6})
    trial.start(gates)
    trial.minutes(3)
    wave = trial.view.waves[0]
    assert (wave.state, wave.looks) == (WaveState.JUDGING, 1)
    assert {one.ok for one in wave.evidence if one.metric == Metric.ACCURACY} == {None}
    trial.minutes(11)
    view = trial.view
    assert (view.state, view.pause_reason) == (RolloutState.PAUSED, PauseReason.INCONCLUSIVE)
    assert "5 devices of the wave can be judged, 6 are needed" in view.reason
    assert view.waves[0].looks > 2
    # A person goes on: the looks begin anew, with all of alpha.
    trial.platform.rollouts.operate(trial.rollout, RolloutEvent.RESUME)
    trial.platform.tick()
    assert (trial.view.waves[0].state, trial.view.waves[0].looks) == (WaveState.SOAKING, 0)


def test_devices_that_go_dark_count_against_the_version(trial):
    gates = GATES.model_copy(
        update={"telemetry": (TelemetryGate(metric=Metric.SILENCE, max_worse=0.1),)}
    )
    trial.start(gates)
    trial.minutes(13, cam=NOTHING)
    assert trial.view.pause_reason is PauseReason.VERDICT_FAILED
    dark = trial.figure(Metric.SILENCE, "cam")
    assert (dark.ok, dark.value, dark.control) == (False, 1.0, 0.0)


def test_while_devices_are_not_heard_nothing_is_concluded(trial):
    trial.start()
    trial.minutes(2)

    class Deaf:
        def deaf(self) -> bool:
            return True

    platform = trial.platform
    heard, platform.engine = (
        platform.engine,
        RolloutEngine(platform.uow, platform.clock, worked=lambda: 0.0, hearing=Deaf()),
    )
    trial.minutes(15)
    assert (trial.view.waves[0].state, trial.view.waves[0].looks) == (WaveState.JUDGING, 0)
    platform.engine = heard
    trial.minutes(1)
    assert trial.view.waves[0].state is WaveState.PASSED


def test_what_is_put_back_by_hand_during_the_soak_fails_the_wave(trial):
    trial.start()
    trial.minutes(1)
    for execution in trial.executions()[:2]:
        trial.platform.report(
            execution.device, execution.id, len(STEPS), S.ROLLED_BACK, cause="operator"
        )
    trial.platform.tick()
    (failed,) = trial.view.waves[0].evidence
    assert (failed.metric, failed.value, failed.note) == (
        "failure_rate",
        0.4,
        "of the whole wave; operator 2",
    )
    assert trial.view.pause_reason is PauseReason.ERROR_THRESHOLD


def test_what_moved_between_look_and_verdict_is_looked_at_anew(trial, monkeypatch):
    trial.start()
    trial.minutes(2)
    trial.platform.clock.forward(60)
    trial.platform.engine.tick()
    looks = []

    def judged(*args, **more):
        looks.append(more["look"])
        if len(looks) == 1:  # somebody pauses while the look is being taken
            trial.platform.rollouts.operate(trial.rollout, RolloutEvent.PAUSE)
        return judge(*args, **more)

    judge = judging.judge_telemetry
    monkeypatch.setattr(judging, "judge_telemetry", judged)
    trial.platform.engine.tick()
    assert trial.view.state is RolloutState.PAUSED
    assert (trial.view.waves[0].state, trial.view.waves[0].looks) == (WaveState.JUDGING, 0)
    trial.platform.rollouts.operate(trial.rollout, RolloutEvent.RESUME)
    trial.platform.engine.tick()
    assert looks == [1, 1]
    assert trial.view.waves[0].state is WaveState.PASSED


KILLED = """
import os, signal, sys
from datetime import datetime
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.services import judging
from orchestrator.services.engine import RolloutEngine

def judge(*args, **more):
    found = true(*args, **more)
    print(more["look"], len(found), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

true, judging.judge_telemetry = judging.judge_telemetry, judge
now = datetime.fromisoformat(sys.argv[2])
RolloutEngine(SqlUnitOfWork(make_engine(sys.argv[1])), lambda: now).tick()
RolloutEngine(SqlUnitOfWork(make_engine(sys.argv[1])), lambda: now).tick()
"""


@pytest.mark.integration
def test_a_server_that_is_killed_in_a_look_takes_the_same_look_again(trial, tmp_path):
    trial.start()
    trial.minutes(2)
    platform = trial.platform
    platform.clock.forward(60)
    platform.engine.tick()
    url = str(platform.database.url)
    command = [sys.executable, "-c", KILLED, url, platform.clock().isoformat()]
    died = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert (died.returncode, died.stdout.split()[0]) == (-signal.SIGKILL, "1")
    assert (trial.view.waves[0].state, trial.view.waves[0].looks) == (WaveState.JUDGING, 0)
    platform.engine.tick()
    assert (trial.view.waves[0].state, trial.view.waves[0].looks) == (WaveState.PASSED, 1)
    assert trial.figure(Metric.ACCURACY, "cam").alpha == GATES.alpha / 2
