"""Rollouts through the services: waves in order, evidence, failures, aborts, crashes."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import IllegalTransition, Invalid, NotFound
from schemas.device import ActiveModel
from schemas.errors import DeviceCause
from schemas.rollout import Assignment, ExecState, PauseReason, RolloutSpec, RolloutState, WaveState

S = ExecState
STEPS = [S.ACCEPTED, S.DOWNLOADING, S.VERIFIED, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED]


@pytest.fixture
def fleet(platform):
    """Five devices that are there, and version 1."""
    platform.models.register("digits", platform.manifest(), None)
    devices = platform.enroll(5)
    for device in devices:
        platform.birth(device)
    return devices


def start(platform, **more):
    gates = {"min_inferences": 50, "soak_seconds": 5, "min_accuracy": 0.9}
    spec = RolloutSpec.model_validate({"model": "digits", "version": 1, "gates": gates} | more)
    plan = platform.rollouts.plan(spec)
    return platform.rollouts.operate(plan.id, RolloutEvent.START).id


def executions(platform, rollout, wave=None):
    view = platform.rollouts.get(rollout)
    return [e for w in view.waves for e in w.executions if wave in (None, w.index)]


def succeed(platform, execution):
    for seq, state in enumerate(STEPS):
        platform.report(execution.device, execution.id, seq, state)


def desired(platform, device):
    """The last retained desired document of a device, as the broker has it."""
    topic = f"d/{device}/down/desired"
    found = [payload for t, payload, retain in platform.broker.sent if t == topic and retain]
    return found[-1] if found else None


def assignment(document: bytes) -> Assignment:
    (target,) = json.loads(document)["signed"]["targets"].values()
    return Assignment.model_validate(target["custom"])


def test_two_waves_from_canary_to_everyone(platform, fleet):
    rollout = start(platform)
    platform.tick()
    canary = [e for e in executions(platform, rollout) if e.state is S.OFFERED]
    assert len(canary) == 1
    assert assignment(desired(platform, canary[0].device)).execution == canary[0].id
    succeed(platform, canary[0])
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.JUDGING
    assert all(e.state is S.SCHEDULED for e in executions(platform, rollout, wave=1))
    platform.window(canary[0].device)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.PASSED
    for execution in executions(platform, rollout, wave=1):
        assert execution.state is S.OFFERED
        succeed(platform, execution)
        platform.window(execution.device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.state is RolloutState.SUCCEEDED
    plain = {e.metric: e.ok for e in view.waves[1].evidence if e.look is None}
    assert plain["accuracy"] is True
    assert view.waves[1].looks == 1
    assert all([m.version for m in platform.devices.get(d).active] == [1] for d in fleet)


def test_a_device_that_lost_the_message_gets_it_again_at_its_next_birth(platform, fleet):
    start(platform)
    platform.tick()
    (device,) = [d for d in fleet if desired(platform, d)]
    platform.broker.sent.clear()
    platform.downlink.disconnected()
    platform.tick()
    assert desired(platform, device) is None
    platform.birth(device, session=2)
    platform.tick()
    assert desired(platform, device)


def test_nothing_is_lost_while_the_broker_is_away(platform, fleet):
    platform.broker.up = False
    start(platform)
    platform.tick()
    assert platform.broker.sent == []
    platform.broker.up = True
    platform.tick()
    assert sum(desired(platform, d) is not None for d in fleet) == 1


def test_a_failing_canary_pauses_the_rollout_and_nobody_else_is_touched(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    platform.report(
        canary.device, canary.id, 0, S.FAILED, cause=DeviceCause.GOLDEN_MISMATCH, detail="off"
    )
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert (view.state, view.pause_reason) == (RolloutState.PAUSED, PauseReason.ERROR_THRESHOLD)
    assert view.waves[0].executions[0].cause is DeviceCause.GOLDEN_MISMATCH
    assert all(e.state is S.SCHEDULED for e in executions(platform, rollout, wave=1))


def test_bad_accuracy_on_the_devices_pauses_the_rollout(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    succeed(platform, canary)
    platform.window(canary.device, correct=50)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.pause_reason is PauseReason.VERDICT_FAILED
    bad = [e for e in view.waves[0].evidence if e.ok is False]
    assert [(e.metric, e.value) for e in bad] == [("accuracy", 0.5)]


def test_silence_after_activation_is_inconclusive_and_can_be_judged_again(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    succeed(platform, canary)
    platform.tick()
    for _ in range(2):
        platform.clock.forward(61)
        platform.tick()
    assert platform.rollouts.get(rollout).pause_reason is PauseReason.INCONCLUSIVE
    platform.window(canary.device)
    platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.PASSED


def test_a_paused_rollout_offers_nothing(platform, fleet):
    rollout = start(platform)
    platform.rollouts.operate(rollout, RolloutEvent.PAUSE)
    platform.tick()
    assert all(e.state is S.SCHEDULED for e in executions(platform, rollout))
    platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    platform.tick()
    assert any(e.state is S.OFFERED for e in executions(platform, rollout))


def test_an_abort_withdraws_the_desired_state_and_tells_the_device(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    platform.report(canary.device, canary.id, 0, S.DOWNLOADING, bytes_done=1, bytes_total=9)
    view = platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    assert view.state is RolloutState.ABORTED
    platform.tick()
    assert {e.state for e in executions(platform, rollout)} == {S.CANCELLED}
    assert desired(platform, canary.device) == b""
    commands = [json.loads(p) for t, p, _ in platform.broker.sent if t.endswith("/down/cmd")]
    assert [(c["kind"], c["execution"]) for c in commands] == [("cancel", canary.id)]


def test_duplicate_and_reordered_reports_change_nothing(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    platform.report(canary.device, canary.id, 5, S.PROBATION)
    platform.report(canary.device, canary.id, 3, S.DOWNLOADING)
    platform.report(canary.device, canary.id, 5, S.FAILED)
    assert executions(platform, rollout, wave=0)[0].state is S.PROBATION


def test_a_device_cannot_report_for_another(platform, fleet):
    rollout = start(platform)
    platform.tick()
    (canary,) = executions(platform, rollout, wave=0)
    other = next(d for d in fleet if d != canary.device)
    platform.report(other, canary.id, 0, S.SUCCEEDED)
    assert executions(platform, rollout, wave=0)[0].state is S.OFFERED


def test_malformed_messages_are_dropped_and_the_others_stored(platform, fleet):
    from orchestrator.services.inbox import UpMessage
    from schemas.topics import Up, UpTopic

    bad = [b"", b"{", b"[]", b'{"n": NaN}', b"\xff" * 100]
    messages = [UpMessage(UpTopic(fleet[0], leaf), p, retained=False) for p in bad for leaf in Up]
    platform.inbox.handle(messages)
    platform.window(fleet[0])
    assert platform.summary()[0].n == 100


def test_absent_devices_become_stragglers_and_are_still_updated_later(platform, fleet):
    late = platform.enroll(1)[0]
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    for execution in executions(platform, rollout):
        if execution.device != late:
            succeed(platform, execution)
            platform.window(execution.device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick(6)
    platform.clock.forward(61)  # evidence of five devices might still grow to a comparison
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert [w.stragglers for w in view.waves] == [False, True]
    assert view.state is RolloutState.RUNNING
    platform.birth(late)
    platform.tick()
    (execution,) = executions(platform, rollout, wave=1)
    assert (execution.device, execution.state) == (late, S.OFFERED)
    succeed(platform, execution)
    platform.window(late)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).state is RolloutState.SUCCEEDED


def test_a_device_that_has_it_already_is_not_sent_it(platform, fleet):
    manifest = platform.models.get("digits", 1).manifest
    variant = manifest.variants[0]
    active = ActiveModel(model="digits", version=1, variant=variant.id, sha256=variant.file.sha256)
    platform.birth(fleet[0], session=2, active=(active,))
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    states = {e.device: e.state for e in executions(platform, rollout)}
    assert states[fleet[0]] is S.ALREADY_INSTALLED
    assert desired(platform, fleet[0]) is None


def test_a_newer_rollout_supersedes_an_older_one_on_a_device(platform, fleet):
    platform.models.register("digits", platform.manifest(content=b"v2"), None)
    old = start(platform, waves=[{"percent": 100}])
    platform.tick()
    platform.clock.forward(0.1)
    new = start(platform, version=2, waves=[{"percent": 100}])
    platform.tick()
    assert {e.state for e in executions(platform, old)} == {S.SUPERSEDED}
    assert {e.state for e in executions(platform, new)} == {S.OFFERED}
    documents = [assignment(desired(platform, device)) for device in fleet]
    assert {document.version for document in documents} == {2}


def test_sequences_grow_so_that_an_old_document_cannot_be_replayed(platform, fleet):
    seen = []
    for _ in range(2):
        rollout = start(platform, waves=[{"percent": 100}])
        platform.tick()
        seen.append(json.loads(desired(platform, fleet[0]))["signed"]["version"])
        platform.rollouts.operate(rollout, RolloutEvent.ABORT)
        platform.tick()
        platform.clock.forward(1)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "nope"}, NotFound, "nope@1"),
        ({"version": 7}, NotFound, "digits@1"),
        ({"device_class": "unknown"}, Invalid, "no active device"),
        ({"variant": "fp64"}, Invalid, "int8, fp32"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(platform, fleet, change, error, words):
    spec = RolloutSpec.model_validate({"model": "digits", "version": 1} | change)
    with pytest.raises(error, match=words):
        platform.rollouts.plan(spec)


def test_an_illegal_act_says_what_is_legal(platform, fleet):
    rollout = start(platform)
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    with pytest.raises(IllegalTransition, match="has ended"):
        platform.rollouts.operate(rollout, RolloutEvent.RESUME)


def test_a_wanted_variant_is_what_every_device_gets(platform, fleet):
    rollout = start(platform, variant="fp32", waves=[{"percent": 100}])
    platform.tick()
    assert {e.variant for e in executions(platform, rollout)} == {"fp32"}


def test_windows_are_counted_once_and_summed_by_device(platform, fleet):
    for seq in (0, 1, 1, 1):
        platform.window(fleet[0], seq)
    platform.window(fleet[1], 0, latency=[80, 100])
    by_device = platform.summary("device")
    assert {s.device: s.n for s in by_device} == {fleet[0]: 200, fleet[1]: 100}
    (whole,) = platform.summary()
    assert (whole.n, whole.accuracy) == (300, 0.97)
    assert whole.p50_ms < whole.p99_ms
