"""Dynamic rollouts: who joins, in which wave, who leaves, and how they end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.cli.rollout_shape import rollout_shape
from orchestrator.cli.rollout_tree import is_left_behind
from orchestrator.domain.acts import Act
from orchestrator.errors import Invalid
from orchestrator.services.joining import EVERY_SECONDS, LEFT, JoiningService
from orchestrator.services.ports import AuditQuery
from schemas.device import Death, DeviceState
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, Platform
from tests.unit.orchestrator.test_rollout_service import succeed
from tests.unit.orchestrator.test_rollout_sets import statements

S, W = ExecState, WaveState
GATES = {"min_inferences": 50, "soak_seconds": 5, "telemetry": []}


class Joining:
    """The task of the control loop, with a clock of its own."""

    def __init__(self, platform):
        self.now = 0.0
        self.service = JoiningService(platform.uow, platform.clock, lambda: self.now, lambda: 0.0)

    def __call__(self):
        self.now += EVERY_SECONDS
        return self.service.tick()


@pytest.fixture
def joining(platform):
    platform.models.register("digits", platform.manifest(), None)
    return Joining(platform)


def there(platform, count=1, device_class="default"):
    devices = platform.enroll(count, device_class)
    for device in devices:
        platform.birth(device)
    return devices


def start(platform, **more):
    spec = {"model": "digits", "version": 1, "gates": GATES, "dynamic": True} | more
    plan = platform.rollouts.plan(RolloutSpec.model_validate(spec))
    return platform.rollouts.operate(plan.id, Act.START).id


def waves(platform, rollout):
    """Of each wave its state, whether it is of joiners, and its devices with their state."""
    view = platform.rollouts.get(rollout)
    return [(w.state, w.joiners, {e.device: e.state for e in w.executions}) for w in view.waves]


def execution(platform, rollout, device):
    view = platform.rollouts.get(rollout)
    return next(e for w in view.waves for e in w.executions if e.device == device)


def carry_out(platform, rollout, *devices):
    """Let devices install it, and the wave be judged."""
    platform.tick()
    for device in devices:
        succeed(platform, execution(platform, rollout, device))
        platform.window(device)
    platform.tick(1)
    platform.clock.forward(6)
    platform.tick()


def retag(platform, device, *tags):
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(device), tags=tags))


def test_a_device_joins_the_last_wave_that_has_not_begun(platform, joining):
    first = there(platform, 3)
    rollout = start(platform, waves=[{"count": 1}, {"count": 1}, {"percent": 100}])
    platform.tick()
    before = waves(platform, rollout)
    assert joining() == 0
    (late,) = there(platform)
    assert joining() == 1
    after = waves(platform, rollout)
    assert [list(devices) for *_, devices in after[:2]] == [list(d) for *_, d in before[:2]]
    assert set(after[2][2]) == {*before[2][2], late}
    assert not any(joiners for _, joiners, _ in after)
    assert set(first) | {late} == {d for *_, devices in after for d in devices}
    assert joining() == 0


def test_a_late_joiner_gets_a_wave_of_its_own_under_the_same_gates(platform, joining):
    (first,) = there(platform)
    rollout = start(platform, waves=[{"percent": 100}])
    carry_out(platform, rollout, first)
    assert [state for state, *_ in waves(platform, rollout)] == [W.PASSED]
    assert platform.rollouts.get(rollout).state is RolloutState.RUNNING
    late, later = there(platform, 2)
    assert joining() == 2
    assert waves(platform, rollout)[1] == (W.PENDING, True, {late: S.SCHEDULED, later: S.SCHEDULED})
    platform.tick()
    for device in (late, later):
        one = execution(platform, rollout, device)
        platform.report(device, one.id, 0, S.FAILED)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert (view.waves[1].state, view.state) == (W.FAILED, RolloutState.PAUSED)


def test_a_rollout_to_nobody_yet_takes_whoever_comes(platform, joining):
    spec = RolloutSpec.model_validate({"model": "digits", "version": 1, "where": "tag = lab"})
    with pytest.raises(Invalid, match="no active device"):
        platform.rollouts.plan(spec)
    rollout = start(platform, where="tag = lab")
    platform.tick()
    assert platform.rollouts.get(rollout).state is RolloutState.RUNNING
    device, other = there(platform, 2)
    retag(platform, device, "lab")
    assert joining() == 1
    carry_out(platform, rollout, device)
    assert waves(platform, rollout) == [(W.PASSED, True, {device: S.SUCCEEDED})]
    assert other not in waves(platform, rollout)[0][2]


def test_only_active_devices_that_match_and_are_not_excluded_join(platform, joining):
    rollout = start(platform, device_class="cam", tags=["lab"], exclude="tag = old")
    cams = there(platform, 4, "cam")
    (other,) = there(platform)
    for device, tags in zip(cams, (["lab"], ["lab", "old"], ["hall"], ["lab"]), strict=True):
        retag(platform, device, *tags)
    retag(platform, other, "lab")
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(cams[3]), state=DeviceState.REVOKED))
    assert joining() == 1
    assert waves(platform, rollout)[0][2] == {cams[0]: S.SCHEDULED}


def test_who_matches_no_more_leaves_and_may_come_back(platform, joining):
    device, other = there(platform, 2)
    for one in (device, other):
        retag(platform, one, "lab")
    rollout = start(platform, where="tag = lab", waves=[{"count": 1}, {"percent": 100}])
    platform.tick()
    waiting = next(iter(waves(platform, rollout)[1][2]))
    offered = next(iter(waves(platform, rollout)[0][2]))
    for one in (waiting, offered):
        retag(platform, one, "hall")
    assert joining() == 1
    left = execution(platform, rollout, waiting)
    assert (left.state, left.detail) == (S.REMOVED, LEFT)
    assert execution(platform, rollout, offered).state is S.OFFERED  # it has been asked
    assert joining() == 0
    retag(platform, waiting, "lab")
    assert joining() == 1
    back = execution(platform, rollout, waiting)
    assert (back.state, back.attempt, back.detail, back.id) == (S.SCHEDULED, 1, None, left.id)


def test_the_absent_hold_nobody_up_and_come_along_once_they_are_there(platform, joining):
    (first,) = there(platform)
    rollout = start(platform, waves=[{"percent": 100}])
    carry_out(platform, rollout, first)
    (absent,) = platform.enroll(1)  # it was never heard of
    assert joining() == 1
    platform.tick()
    assert execution(platform, rollout, absent).wave == 2  # that of stragglers
    platform.clock.forward(6)
    (late,) = there(platform)
    assert joining() == 1
    platform.tick()
    assert execution(platform, rollout, late).state is S.OFFERED
    platform.birth(absent)
    (later,) = there(platform)
    assert joining() == 1
    wave = execution(platform, rollout, later).wave
    assert execution(platform, rollout, absent).wave == wave
    carry_out(platform, rollout, late)
    carry_out(platform, rollout, absent, later)
    assert execution(platform, rollout, absent).state is S.SUCCEEDED


def test_whoever_was_given_up_is_taken_back_when_it_is_there(platform, joining):
    (first,) = there(platform)
    (absent,) = platform.enroll(1)
    rollout = start(platform, waves=[{"percent": 100}], straggler_seconds=100)
    carry_out(platform, rollout, first)
    platform.clock.forward(6)
    platform.tick()
    platform.clock.forward(101)
    platform.tick()
    assert execution(platform, rollout, absent).state is S.REMOVED
    assert joining() == 0
    platform.birth(absent)
    assert joining() == 1
    platform.tick()
    assert execution(platform, rollout, absent).state is S.OFFERED


def test_a_paused_rollout_gains_nobody(platform, joining):
    there(platform)
    rollout = start(platform)
    platform.rollouts.operate(rollout, Act.PAUSE)
    there(platform)
    assert joining() == 0
    platform.rollouts.operate(rollout, Act.RESUME)
    assert joining() == 1


def test_a_finished_rollout_gains_nobody_and_ends_with_its_waves(platform, joining):
    (first,) = there(platform)
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    assert platform.rollouts.operate(rollout, Act.FINISH).spec.dynamic is False
    there(platform)
    assert joining() == 0
    carry_out(platform, rollout, first)
    assert platform.rollouts.get(rollout).state is RolloutState.SUCCEEDED


def test_a_newer_one_of_the_same_target_takes_the_place_of_older_ones(platform, joining):
    platform.models.register("digits", platform.manifest(content=b"other"), None)
    (first,) = there(platform)
    done = start(platform, where="class = default", waves=[{"percent": 100}])
    carry_out(platform, done, first)
    half = start(platform, where="class = default and not tag = x")
    other = start(platform, fleet=None, device_class="default")
    newer = start(platform, version=2, where="class=default")  # the same, written otherwise
    newest = start(platform, version=2, where="class = default and (not tag = x)")
    views = {one: platform.rollouts.get(one) for one in (done, half, other, newer, newest)}
    assert [view.state.value for view in views.values()] == [
        "SUCCEEDED", "ABORTED", "RUNNING", "RUNNING", "RUNNING",
    ]  # fmt: skip
    assert views[done].reason == f"{newer} took its place"
    assert execution(platform, half, first).state is S.SUPERSEDED
    with platform.uow.read() as tx:
        entries = tx.audit.entries(AuditQuery())
    acts = [(e.action, e.subject, e.detail.get("replaced_by")) for e in entries]
    assert ("rollout.finish", done, newer) in acts
    assert ("rollout.abort", half, newest) in acts


def test_waves_of_joiners_do_not_pile_up(platform, joining, monkeypatch):
    monkeypatch.setattr("orchestrator.domain.dynamic.MAX_WAVES", 3)
    (first,) = there(platform)
    rollout = start(platform, waves=[{"percent": 100}])
    carry_out(platform, rollout, first)
    joined = []
    for _ in range(4):
        joined += there(platform)
        assert joining() == 1
        carry_out(platform, rollout, joined[-1])
    seen = waves(platform, rollout)
    assert [state for state, *_ in seen] == [W.PASSED] * 3
    assert [set(devices) for *_, devices in seen] == [{first}, set(joined[:3]), {joined[3]}]


def test_a_look_is_taken_every_two_seconds_and_rests_when_it_took_long(platform, joining):
    worked, now = [0.0], [0.0]

    def work():
        worked[0] += 0.9  # a look asks twice
        return worked[0]

    slow = JoiningService(platform.uow, platform.clock, lambda: now[0], work)
    start(platform)
    with statements(platform) as seen:
        slow.tick()
        first = len(seen)
        slow.tick()
        assert len(seen) == first  # no two seconds have passed
        now[0] = EVERY_SECONDS
        slow.tick()
        assert len(seen) < 2 * first  # it rests: only which rollouts there are is asked
        now[0] = 2 * EVERY_SECONDS
        slow.tick()
        assert len(seen) >= 2 * first


def cost(platform, joining, count):
    there(platform, count)
    start(platform, waves=[{"count": 1}, {"percent": 100}])
    there(platform, count)
    found = []
    for _ in range(2):
        with statements(platform) as seen:
            joining()
        found.append(len(seen))
    return found


def test_a_look_takes_as_many_statements_for_many_as_for_few(platform, joining, tmp_path_factory):
    few = cost(platform, joining, 1)
    large = Platform(tmp_path_factory.mktemp("large"))
    large.models.register("digits", large.manifest(), None)
    assert cost(large, Joining(large), 30) == few


def test_a_device_that_dies_while_it_waits_stays(platform, joining):
    there(platform)
    rollout = start(platform, waves=[{"count": 1}, {"percent": 100}])
    (late,) = there(platform)
    joining()
    platform.receive(late, Up.DEATH, Death(boot=BOOT, session=1))
    assert joining() == 0
    assert execution(platform, rollout, late).state is S.SCHEDULED


def test_a_list_counts_the_waves_of_those_who_joined_and_a_wave_that_all_left_is_not_drawn(
    platform, joining
):
    first, *_ = there(platform)
    rollout = start(platform, waves=[{"percent": 100}])
    carry_out(platform, rollout, first)
    platform.enroll(1)  # joins, and is not there
    assert joining() == 1
    platform.tick(6)
    view = platform.rollouts.get(rollout)
    assert [(w.joiners, w.stragglers, w.size) for w in view.waves] == [
        (False, False, 1),
        (True, False, 0),
        (False, True, 1),
    ]
    assert [is_left_behind(w) for w in view.waves] == [False, True, False]
    (listed,) = platform.rollouts.page(None, 10)
    assert (listed.waves, listed.wave_count) == ((), 3)
    columns = dict(rollout_shape().columns)
    assert str(columns["WAVES"](listed)) == "3"
