"""Taking a version back: each device gets what it served before, once, and never a newer one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.adapters.unit_of_work import make_engine
from orchestrator.domain.acts import Act
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.errors import Conflict, IllegalTransition, Invalid, Revoked
from orchestrator.services import moves
from orchestrator.services.ports import AuditQuery
from orchestrator.services.revocation import RevocationService
from orchestrator.services.rolling_back import RollingBack
from schemas.device import Birth, Presence
from schemas.errors import DeviceCause
from schemas.model import RevokeRequest
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import RetryRequest
from schemas.topics import Up
from tests.unit.orchestrator import platform as harness

S = ExecState
R = RolloutState
WAITS = {"min_inferences": 50, "soak_seconds": 600, "max_failure_rate": 1.0}
STEPS = [S.ACCEPTED, S.DOWNLOADING, S.VERIFIED, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED]


@pytest.fixture
def postgres(tmp_path, migrated_postgres_url, monkeypatch):
    (tmp_path / "argosy.db").touch()  # nothing to be copied there: it is not looked at
    monkeypatch.setattr(harness, "make_engine", lambda _url: make_engine(migrated_postgres_url))
    return harness.Platform(tmp_path)


@pytest.fixture
def fleet(platform):
    return serving_version_one(platform)


def serving_version_one(platform):
    """Five devices that are there and serve version 1; version 2 is registered."""
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    devices = platform.enroll(5)
    for device in devices:
        platform.birth(device)
    through(platform, start(platform, 1))
    return devices


def start(platform, version, **more):
    gates = {"min_inferences": 1, "soak_seconds": 0, "max_failure_rate": 1.0}
    asked = {"model": "digits", "version": version, "gates": gates, "waves": [{"percent": 100}]}
    plan = platform.rollouts.plan(RolloutSpec.model_validate(asked | more))
    view = platform.rollouts.operate(plan.id, Act.START)
    platform.tick()
    return view.id


def executions(platform, rollout):
    view = platform.rollouts.get(rollout)
    return {e.device: e for w in view.waves for e in w.executions}


def reach(platform, execution, state):
    """A device gets as far as a state."""
    for seq, step in enumerate(STEPS[: STEPS.index(state) + 1]):
        platform.report(execution.device, execution.id, seq, step)


def through(platform, rollout, devices=None):
    """Devices of a rollout succeed; with their evidence, so that it passes."""
    for device, execution in executions(platform, rollout).items():
        if (devices is None or device in devices) and execution.state is not S.SUCCEEDED:
            reach(platform, execution, S.SUCCEEDED)
    platform.tick()


def serves(platform, device):
    return next(m.version for m in platform.devices.get(device).active)


def acts(platform, subject):
    with platform.uow.read() as tx:
        entries = tx.audit.entries(AuditQuery(limit=500))
    return [entry for entry in entries if entry.subject == subject]


def cancels(platform, device):
    topic = f"d/{device}/down/cmd"
    return [json.loads(p) for t, p, _ in platform.broker.sent if t == topic]


def only_rollback(platform, rollout):
    (found,) = platform.rollouts.get(rollout).rollbacks
    return platform.rollouts.get(found)


def test_each_device_gets_what_it_served_before(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad, fleet[:3])
    reach(platform, executions(platform, bad)[fleet[3]], S.DOWNLOADING)
    assert {e.before for e in executions(platform, bad).values()} == {1}
    view = platform.rollouts.operate(bad, Act.ROLLBACK, "it is worse")
    assert (view.state, view.left) == (R.ROLLING_BACK, {"to be led back": 3})
    assert view.reason == "by platform: it is worse"
    states = {d: e.state for d, e in executions(platform, bad).items()}
    assert [states[d] for d in fleet] == [S.SUCCEEDED] * 3 + [S.CANCELLED] * 2
    platform.tick()
    back = only_rollback(platform, bad)
    assert (back.spec.version, back.takes_back, back.rollback_of) == (1, 2, bad)
    given = executions(platform, back.id)
    assert set(given) == set(fleet[:3])
    assert {e.state for e in given.values()} == {S.OFFERED}
    assert cancels(platform, fleet[3])[-1]["kind"] == "cancel"
    assert platform.rollouts.get(bad).left == {"going back": 3}
    through(platform, back.id)
    view = platform.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {})
    assert [serves(platform, d) for d in fleet] == [1] * 5
    assert platform.rollouts.get(back.id).state is R.SUCCEEDED
    assert not any(platform.devices.get(d).drifted_at for d in fleet)
    names = [one.action for one in acts(platform, bad)]
    assert names[-2:] == ["rollout.rollback", "rollout.rolled_back"]


def test_devices_go_back_on_postgresql_too(postgres):
    fleet = serving_version_one(postgres)
    bad = start(postgres, 2)
    through(postgres, bad, fleet[:3])
    away(postgres, fleet[0])
    postgres.rollouts.operate(bad, Act.ROLLBACK)
    postgres.tick()
    through(postgres, only_rollback(postgres, bad).id, fleet[1:])
    view = postgres.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {"offline": 1})
    revoke(postgres, 2, rollback=True)
    assert len([v for v in postgres.rollouts.page(None, 20) if v.takes_back]) == 1


def test_whoever_is_away_goes_back_when_it_comes(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    away(platform, fleet[0])
    platform.rollouts.operate(bad, Act.ROLLBACK)
    with pytest.raises(IllegalTransition, match="nothing is retried: the rollout is taken back"):
        platform.rollouts.retry(bad, RetryRequest())
    platform.tick()
    back = only_rollback(platform, bad)
    through(platform, back.id, fleet[1:])
    view = platform.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {"offline": 1})
    assert "when it ended, 1 served digits@2: 1 offline" in view.reason
    assert platform.rollouts.get(back.id).state is R.RUNNING
    platform.birth(fleet[0], session=2, active=[active(platform, fleet[0])])
    platform.tick()
    through(platform, back.id, fleet[:1])
    assert serves(platform, fleet[0]) == 1
    assert platform.rollouts.get(bad).left == {}
    assert platform.rollouts.get(back.id).state is R.SUCCEEDED


def away(platform, device):
    with platform.uow() as tx:
        record = tx.devices.get(device, lock=True)
        tx.devices.save(replace(record, presence=Presence.OFFLINE))


def active(platform, device):
    return platform.devices.get(device).active[0]


@pytest.mark.parametrize("after", [False, True], ids=["meanwhile", "when it is over"])
def test_who_switches_late_is_led_back_too(platform, fleet, after):
    bad = start(platform, 2)
    through(platform, bad, fleet[:1])
    late = executions(platform, bad)[fleet[1]]
    reach(platform, late, S.STAGED)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    if after:
        through(platform, only_rollback(platform, bad).id)
        assert platform.rollouts.get(bad).state is R.ROLLED_BACK
    # It was too late to be cancelled.
    for seq, state in ((10, S.PROBATION), (11, S.SUCCEEDED)):
        platform.report(fleet[1], late.id, seq, state)
        platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(bad).left == ({"going back": 1} if after else {"going back": 2})
    for rollback in platform.rollouts.get(bad).rollbacks:
        through(platform, rollback)
    assert [serves(platform, d) for d in fleet] == [1] * 5
    view = platform.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {})


def test_a_device_on_probation_is_given_its_own_version_at_once(platform, fleet):
    bad = start(platform, 2)
    one = executions(platform, bad)[fleet[0]]
    reach(platform, one, S.PROBATION)
    now = active(platform, fleet[0]).model_copy(update={"version": 2, "sha256": two(platform)})
    platform.birth(fleet[0], session=2, active=[now])
    platform.rollouts.operate(bad, Act.ROLLBACK)
    assert executions(platform, bad)[fleet[0]].state is S.PROBATION
    platform.tick()
    back = only_rollback(platform, bad)
    assert executions(platform, back.id)[fleet[0]].state is S.OFFERED
    assert executions(platform, bad)[fleet[0]].state is S.SUPERSEDED


def two(platform):
    version = platform.models.get("digits", 2)
    return version.manifest.variants[0].file.sha256


def test_a_device_that_says_nothing_any_more_does_not_hold_it_up(platform, fleet):
    bad = start(platform, 2)
    reach(platform, executions(platform, bad)[fleet[0]], S.PROBATION)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    assert platform.rollouts.get(bad).state is R.ROLLING_BACK
    platform.clock.forward(3600)
    platform.tick()
    assert platform.rollouts.get(bad).state is R.ROLLED_BACK
    assert executions(platform, bad)[fleet[0]].state is S.TIMED_OUT


def test_who_cannot_go_back_is_told_of(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    back = only_rollback(platform, bad)
    broken = executions(platform, back.id)[fleet[0]]
    platform.report(fleet[0], broken.id, 0, S.REJECTED, cause=DeviceCause.WRONG_CLASS)
    through(platform, back.id, fleet[1:])
    view = platform.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {"failed to go back": 1})
    assert "1 failed to go back" in view.reason
    assert platform.rollouts.get(back.id).state is R.SUCCEEDED  # nothing of it is judged
    platform.clock.forward(60)
    platform.tick()
    assert platform.rollouts.get(bad).rollbacks == (back.id,)


def test_all_go_to_a_version_that_is_named(platform, fleet):
    platform.models.register("digits", platform.manifest(content=b"three"), None)
    bad = start(platform, 3)
    through(platform, bad)
    with pytest.raises(Invalid, match="leads to an older version, not to digits@3"):
        platform.rollouts.operate(bad, Act.ROLLBACK, to=3)
    with pytest.raises(Invalid, match="names the version of a rollback"):
        platform.rollouts.operate(bad, Act.ABORT, to=1)
    platform.rollouts.operate(bad, Act.ROLLBACK, to=2)
    platform.tick()
    assert only_rollback(platform, bad).spec.version == 2


def test_never_to_a_newer_version(platform, fleet):
    """A rollout of an older version is taken back: nobody gets the newer one again."""
    through(platform, start(platform, 2))
    downgrade = start(platform, 1)
    assert {e.before for e in executions(platform, downgrade).values()} == {2}
    through(platform, downgrade, fleet[:2])
    platform.rollouts.operate(downgrade, Act.ROLLBACK)
    platform.tick()
    view = platform.rollouts.get(downgrade)
    assert (view.state, view.rollbacks) == (R.ROLLED_BACK, ())
    assert view.left == {"nothing to go back to": 2}


def test_never_to_a_revoked_version(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    revoke(platform, 1)
    with pytest.raises(Revoked):
        platform.rollouts.operate(bad, Act.ROLLBACK, to=1)
    with pytest.raises(Conflict, match="nothing to lead the 5 devices that serve digits@2 back to"):
        platform.rollouts.operate(bad, Act.ROLLBACK)
    assert platform.rollouts.get(bad).state is R.RUNNING


def revoke(platform, version, **more):
    request = RevokeRequest(reason="it leaks", **more)
    RevocationService(platform.uow, platform.clock).revoke("digits", version, request, "me")
    platform.tick()


def test_whoever_had_nothing_keeps_what_it_has_and_it_is_said_at_once(platform, fleet):
    (new,) = platform.enroll()
    platform.birth(new)
    bad = start(platform, 2)
    through(platform, bad)
    said = platform.rollouts.operate(bad, Act.ROLLBACK)
    assert said.notes[0].startswith("1 device keeps digits@2: there is nothing known to go back to")
    platform.tick()
    through(platform, only_rollback(platform, bad).id, fleet)
    view = platform.rollouts.get(bad)
    assert (view.state, view.left) == (R.ROLLED_BACK, {"nothing to go back to": 1})


def test_a_rollback_that_would_do_nothing_is_refused_with_what_to_do(platform):
    """It was taken, and ended without a word to anybody."""
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    (device,) = platform.enroll()
    platform.birth(device)
    bad = start(platform, 2, gates=WAITS)
    through(platform, bad)
    with pytest.raises(Conflict, match="nothing to lead the device that serves") as refused:
        platform.rollouts.operate(bad, Act.ROLLBACK)
    assert f"argosy rollout rollback {bad} --to VERSION" in refused.value.hint
    assert platform.rollouts.get(bad).state is R.RUNNING
    platform.rollouts.operate(bad, Act.ROLLBACK, to=1)
    platform.tick()
    assert only_rollback(platform, bad).spec.version == 1


def test_a_rollback_is_not_rolled_back_and_ends_with_its_rollout(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.rollouts.operate(bad, Act.ROLLBACK)  # a repeat
    platform.tick()
    back = only_rollback(platform, bad)
    with pytest.raises(IllegalTransition, match="a rollback is not rolled back"):
        platform.rollouts.operate(back.id, Act.ROLLBACK)
    platform.rollouts.operate(bad, Act.ABORT, "keep it after all")
    assert platform.rollouts.get(back.id).state is R.ABORTED
    assert {e.state for e in executions(platform, back.id).values()} == {S.CANCELLED}
    platform.tick()
    assert platform.rollouts.get(bad).rollbacks == (back.id,)
    assert [serves(platform, d) for d in fleet] == [2] * 5


def test_who_went_back_by_itself_is_left_alone(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    old = active(platform, fleet[0]).model_copy(
        update={
            "version": 1,
            "sha256": platform.models.get("digits", 1).manifest.variants[0].file.sha256,
        }
    )
    platform.birth(fleet[0], session=2, active=[old])
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    assert set(executions(platform, only_rollback(platform, bad).id)) == set(fleet[1:])


def test_a_policy_rolls_back_without_an_operator(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad, fleet[:2])
    reach(platform, executions(platform, bad)[fleet[2]], S.DOWNLOADING)
    with platform.uow() as tx:
        record = tx.rollouts.get(bad, lock=True)
        happened = Happened(RolloutEvent.ROLL_BACK)
        moves.apply(tx, record, happened, platform.clock(), because="wave 1 failed")
    platform.tick()
    assert executions(platform, bad)[fleet[2]].state is S.CANCELLED
    back = only_rollback(platform, bad)
    through(platform, back.id)
    view = platform.rollouts.get(bad)
    assert (view.state, view.reason) == (R.ROLLED_BACK, "wave 1 failed")


def test_a_kill_at_any_point_changes_nothing(platform, fleet):
    """Each transaction may be the last one of its process."""
    bad = start(platform, 2)
    through(platform, bad)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    for dies_at in range(1, 6):
        dying = Dying(platform.uow, dies_at)
        with pytest.raises(KeyboardInterrupt):
            tick_until_dead(dying, platform.clock)
        found = platform.rollouts.get(bad).rollbacks
        assert len(found) <= 1
    platform.tick()
    back = only_rollback(platform, bad)
    assert set(executions(platform, back.id)) == set(fleet)
    through(platform, back.id)
    assert platform.rollouts.get(bad).state is R.ROLLED_BACK


def tick_until_dead(uow, clock):
    while True:
        RollingBack(uow, clock).tick()


class Dying:
    """A database of which the n-th transaction is cut off before its end."""

    def __init__(self, uow, dies_at):
        self._uow, self._left = uow, dies_at

    def __call__(self):
        return self._cut(self._uow())

    def read(self):
        return self._cut(self._uow.read())

    def _cut(self, block):
        self._left -= 1
        return _Cut(block) if self._left == 0 else block


class _Cut:
    def __init__(self, block):
        self._block = block

    def __enter__(self):
        return self._block.__enter__()

    def __exit__(self, *_):
        self._block.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        raise KeyboardInterrupt


def test_a_revoked_version_is_taken_back_everywhere(platform, fleet):
    """By whatever rollout they got it, and also who comes back later."""
    first = start(platform, 2, tags=[])
    through(platform, first, fleet[:2])
    platform.rollouts.operate(first, Act.ABORT)
    second = start(platform, 2)
    through(platform, second)
    assert platform.rollouts.get(second).state in {R.RUNNING, R.SUCCEEDED}
    away(platform, fleet[4])
    revoke(platform, 2, rollback=True)
    backs = [v for v in platform.rollouts.page(None, 20) if v.takes_back == 2]
    (back,) = backs
    assert (back.rollback_of, back.spec.version, back.reason) == (None, 1, "digits@2 was revoked")
    through(platform, back.id, fleet[:4])
    assert [serves(platform, d) for d in fleet] == [1] * 4 + [2]
    assert platform.rollouts.get(back.id).state is R.RUNNING
    platform.clock.forward(40 * 86400)
    platform.birth(fleet[4], session=2, active=[active(platform, fleet[4])])
    platform.tick()
    through(platform, back.id, fleet[4:])
    assert serves(platform, fleet[4]) == 1


def test_a_revoked_version_may_be_taken_back_later_to_another(platform, fleet):
    through(platform, start(platform, 2))
    revoke(platform, 2)
    assert not [v for v in platform.rollouts.page(None, 20) if v.takes_back]
    with pytest.raises(Invalid, match="older version"):
        revoke(platform, 2, rollback=True, to=5)
    platform.clock.forward(10)
    revoke(platform, 2, rollback=True, to=1)
    (back,) = [v for v in platform.rollouts.page(None, 20) if v.takes_back]
    assert platform.rollouts.get(back.id).waves[0].size == 5
    names = [one.action for one in acts(platform, "digits@2")]
    assert names[-2:] == ["model.revoke", "model.take_back"]


def test_two_reasons_make_one_rollback(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    revoke(platform, 2, rollback=True)
    platform.clock.forward(10)
    platform.tick()
    assert len([v for v in platform.rollouts.page(None, 20) if v.takes_back]) == 1


def test_a_rollback_waits_for_no_gate(platform, fleet):
    bad = start(platform, 2)
    through(platform, bad)
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    back = only_rollback(platform, bad)
    through(platform, back.id)
    waves = platform.rollouts.get(back.id).waves
    assert all(w.state is WaveState.PASSED for w in waves)


def three(platform, fleet):
    """Version 2 came to all, and then 3; both rollouts go on."""
    platform.models.register("digits", platform.manifest(content=b"three"), None)
    second = start(platform, 2, gates=WAITS)
    through(platform, second)
    third = start(platform, 3, gates=WAITS)
    through(platform, third)
    assert [serves(platform, d) for d in fleet] == [3] * 5
    assert {e.before for e in executions(platform, third).values()} == {2}
    return second, third


@pytest.mark.parametrize("newest_first", [True, False])
def test_two_rollbacks_lead_beyond_both_versions(platform, fleet, newest_first):
    """A rollback to what devices served before does not ship that anew."""
    pair = three(platform, fleet)
    for bad in reversed(pair) if newest_first else pair:
        platform.clock.forward(10)
        platform.rollouts.operate(bad, Act.ROLLBACK)
        platform.tick()
    for _ in range(3):
        platform.clock.forward(10)
        platform.tick()
        for back in (v for v in platform.rollouts.page(None, 20) if v.takes_back):
            if back.state is R.RUNNING:
                through(platform, back.id)
    assert [serves(platform, d) for d in fleet] == [1] * 5


def test_who_was_led_to_a_version_goes_on_when_that_is_revoked(platform, fleet):
    _, third = three(platform, fleet)
    platform.rollouts.operate(third, Act.ROLLBACK)
    platform.tick()
    through(platform, only_rollback(platform, third).id)
    assert [serves(platform, d) for d in fleet] == [2] * 5
    platform.clock.forward(10)
    revoke(platform, 2, rollback=True)
    platform.clock.forward(10)
    platform.tick()
    (back,) = [v for v in platform.rollouts.page(None, 20) if v.takes_back == 2]
    assert (back.spec.version, platform.rollouts.get(back.id).waves[0].size) == (1, 5)


def test_a_version_that_a_rollback_names_stays(platform, fleet):
    second, third = three(platform, fleet)
    platform.rollouts.operate(second, Act.ROLLBACK)
    platform.tick()
    platform.clock.forward(10)
    platform.rollouts.operate(third, Act.ROLLBACK, to=2)
    platform.tick()
    through(platform, only_rollback(platform, third).id)
    platform.clock.forward(10)
    platform.tick()
    assert platform.rollouts.get(second).rollbacks == ()
    assert [serves(platform, d) for d in fleet] == [2] * 5


def test_another_version_named_while_it_rolls_back_is_for_those_that_are_left(platform):
    """It was taken without a word, and did nothing."""
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    (device, slow) = platform.enroll(2)
    for one in (device, slow):
        platform.birth(one)
    bad = start(platform, 2)
    through(platform, bad, [device])  # it served nothing before
    platform.rollouts.operate(bad, Act.ROLLBACK)
    assert platform.rollouts.get(bad).left == {"nothing to go back to": 1}
    with pytest.raises(Invalid, match="older version"):
        platform.rollouts.operate(bad, Act.ROLLBACK, to=2)
    platform.rollouts.operate(bad, Act.ROLLBACK, "to the first", to=1)
    platform.rollouts.operate(bad, Act.ROLLBACK, "to the first", to=1)  # a repeat
    assert [one.detail.get("to") for one in acts(platform, bad)][-2:] == [None, 1]
    platform.tick()
    assert only_rollback(platform, bad).spec.version == 1
    through(platform, only_rollback(platform, bad).id)
    assert platform.rollouts.get(bad).state is R.ROLLED_BACK
    with pytest.raises(IllegalTransition, match="was rolled back already"):
        platform.rollouts.operate(bad, Act.ROLLBACK, to=3)


@pytest.mark.parametrize("act", [Act.ABORT, Act.ROLLBACK])
def test_a_device_that_lost_its_journal_is_not_offered_again_what_was_stopped(platform, fleet, act):
    bad = start(platform, 2)
    its = executions(platform, bad)[fleet[0]]
    reach(platform, its, S.STAGED)
    platform.rollouts.operate(bad, act)
    for seq, state in ((5, S.ACTIVATING), (6, S.PROBATION)):  # it was too late to cancel
        platform.report(fleet[0], its.id, seq, state)
    assert executions(platform, bad)[fleet[0]].state is S.PROBATION
    platform.clock.forward(60)
    wiped = {"boot": "c" * 32, "uptime": 1, "hardware": harness.HARDWARE}
    platform.receive(fleet[0], Up.BIRTH, Birth(session=1, **wiped))
    assert executions(platform, bad)[fleet[0]].state is S.CANCELLED


@pytest.mark.parametrize("by", ["rollback", "revocation"])
def test_a_clock_that_was_set_back_makes_no_end_of_rollbacks(platform, fleet, by):
    """Each round took the rollback that it had made for one from before the offer."""
    bad = start(platform, 2, gates=WAITS)
    through(platform, bad)
    platform.clock.forward(-3600)
    if by == "rollback":
        platform.rollouts.operate(bad, Act.ROLLBACK)
    else:
        revoke(platform, 2, rollback=True)
    for _ in range(4):
        platform.tick(1)
        platform.clock.forward(6)
    (back,) = [view for view in platform.rollouts.page(None, 20) if view.takes_back == 2]
    through(platform, back.id)
    assert [serves(platform, device) for device in fleet] == [1] * 5


def test_who_was_offered_it_before_the_clock_was_set_back_goes_on_too(platform, fleet):
    rollout = start(platform, 2, gates=WAITS, mode={"urgency": "download_only"})
    one = executions(platform, rollout)[fleet[0]]
    reach(platform, one, S.STAGED)
    platform.clock.forward(-3600)
    platform.rollouts.operate(rollout, Act.ACTIVATE)
    platform.tick()
    assert {"kind": "proceed", "execution": one.id, "attempt": 1} in cancels(platform, fleet[0])
