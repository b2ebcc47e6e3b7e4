"""Pace, windows, urgency and edits of rollouts, from the API to what devices are sent."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest

from orchestrator.domain.acts import Act
from orchestrator.errors import IllegalTransition, PreconditionFailed
from schemas.access import Role
from schemas.gates import Gates
from schemas.pace import Growth, MaintenanceWindow, Mode, Pace, Urgency, WindowCovers
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveSpec, WaveState
from schemas.rollout_view import RolloutEdit
from schemas.topics import Down, down

S = ExecState
NIGHT = MaintenanceWindow(cron="0 2 * * *", minutes=120, covers=WindowCovers.ALL)
STAGED = [S.ACCEPTED, S.DOWNLOADING, S.VERIFIED, S.STAGED]
REST = [S.ACTIVATING, S.PROBATION, S.SUCCEEDED]


@pytest.fixture
def rolled(platform):
    """Starts a rollout in one wave to so many new devices that are there; its id."""
    platform.clock.now = noon(platform)
    platform.signing.tick()  # it is a day later
    platform.models.register("digits", platform.manifest(), None)

    def start(devices=3, **more):
        for device in platform.enroll(devices):
            platform.birth(device)
        plain = {"waves": (WaveSpec(percent=100),), "gates": Gates(max_failure_rate=1)}
        spec = RolloutSpec(model="digits", version=1, **{**plain, **more})
        plan = platform.rollouts.plan(spec)
        platform.rollouts.operate(plan.id, Act.START)
        platform.tick()
        return plan.id

    return start


def noon(platform):
    """Of tomorrow, outside of ``NIGHT``: what is signed already is older."""
    return (platform.clock.now + timedelta(days=1)).replace(hour=12, minute=0, second=0)


def executions(platform, rollout):
    return [one for wave in platform.rollouts.get(rollout).waves for one in wave.executions]


def states(platform, rollout):
    return dict(Counter(one.state for one in executions(platform, rollout)))


def report(platform, execution, steps, first=0, **more):
    for seq, state in enumerate(steps, first):
        platform.report(execution.device, execution.id, seq, state, **more)


def commands(platform, device):
    topic = down(device, Down.CMD)
    return [json.loads(payload)["kind"] for t, payload, _ in platform.broker.sent if t == topic]


def forward(platform, seconds):
    """So much later; the devices that are there say that they still are."""
    platform.clock.forward(seconds)
    platform.tick()


def test_offers_keep_to_their_rate_whatever_is_restarted(platform, rolled):
    rollout = rolled(10, pace=Pace(per_minute=24))  # two in five seconds
    for round_ in range(1, 5):
        assert states(platform, rollout)[S.OFFERED] == 2 * round_
        platform.engine = type(platform.engine)(platform.uow, platform.clock, worked=lambda: 0.0)
        forward(platform, 2)
        assert states(platform, rollout)[S.OFFERED] == 2 * round_
        forward(platform, 3.1)


def test_a_pause_is_not_made_up_for(platform, rolled):
    rollout = rolled(10, pace=Pace(per_minute=24))
    platform.rollouts.operate(rollout, Act.PAUSE)
    forward(platform, 60)
    platform.rollouts.operate(rollout, Act.RESUME)
    platform.tick()
    assert states(platform, rollout)[S.OFFERED] == 4


def test_a_rate_grows_with_success(platform, rolled):
    pace = Pace(per_minute=12, growth=Growth(factor=3, after=1))  # one in five seconds
    rollout = rolled(10, pace=pace)
    (first,) = [one for one in executions(platform, rollout) if one.state is S.OFFERED]
    report(platform, first, STAGED + REST)
    forward(platform, 5.1)
    assert states(platform, rollout) == {S.SUCCEEDED: 1, S.OFFERED: 3, S.SCHEDULED: 6}


def test_no_more_devices_are_at_work_at_once_than_may_be(platform, rolled):
    rollout = rolled(4, pace=Pace(concurrent=2))
    assert states(platform, rollout) == {S.OFFERED: 2, S.SCHEDULED: 2}
    first, second = (o for o in executions(platform, rollout) if o.state is S.OFFERED)
    report(platform, first, STAGED)
    platform.tick()
    assert states(platform, rollout) == {S.OFFERED: 1, S.STAGED: 1, S.SCHEDULED: 2}
    report(platform, first, REST, first=4)
    report(platform, second, [S.ACCEPTED, S.FAILED])
    platform.tick()
    assert states(platform, rollout)[S.OFFERED] == 2


def test_a_wave_that_its_pace_holds_up_is_not_taken_for_one_whose_devices_are_away(
    platform, rolled
):
    rollout = rolled(3, pace=Pace(per_minute=1))
    (first,) = [one for one in executions(platform, rollout) if one.state is S.OFFERED]
    report(platform, first, STAGED + REST)
    platform.tick()
    (wave,) = platform.rollouts.get(rollout).waves
    assert (wave.state, wave.stragglers) == (WaveState.RUNNING, False)


def test_nothing_is_offered_outside_of_a_window_that_covers_all(platform, rolled):
    rollout = rolled(2, windows=(NIGHT,), straggler_seconds=3600)
    absent = platform.enroll(1)
    assert states(platform, rollout) == {S.SCHEDULED: 2}
    platform.clock.forward(14 * 3600)
    platform.tick()
    assert states(platform, rollout) == {S.OFFERED: 2}
    assert absent


def test_stragglers_are_given_up_by_the_time_that_windows_were_open(platform, rolled):
    platform.enroll(1)  # never there
    rollout = rolled(1, windows=(NIGHT,), straggler_seconds=5000)
    platform.clock.forward(14 * 3600)
    platform.tick()
    (there,) = [one for one in executions(platform, rollout) if one.state is S.OFFERED]
    report(platform, there, STAGED + REST)
    platform.clock.forward(3600)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[1].stragglers
    platform.window(there.device)
    forward(platform, 6)
    forward(platform, 6)
    assert [w.state for w in platform.rollouts.get(rollout).waves] == [
        WaveState.PASSED,
        WaveState.RUNNING,
    ]
    forward(platform, 20 * 3600)  # no window was open for long enough
    assert states(platform, rollout)[S.SCHEDULED] == 1
    forward(platform, 4.5 * 3600)  # in the next night
    assert states(platform, rollout).get(S.SCHEDULED) is None


def test_who_may_wait_is_waited_for_and_who_waits_too_long_has_failed(platform, rolled):
    soft = Mode(urgency=Urgency.SOFT)
    rollout = rolled(2, mode=soft, max_deferral_seconds=7200, step_seconds=60)
    honest, other = executions(platform, rollout)
    until = platform.clock() + timedelta(hours=1)
    report(platform, honest, [S.ACCEPTED, S.DEFERRED], waits_until=until)
    report(platform, other, [S.ACCEPTED, S.DEFERRED], waits_until=until + timedelta(days=9))
    view = next(o for o in executions(platform, rollout) if o.id == honest.id)
    assert view.waits_until == until
    forward(platform, 3600)
    assert states(platform, rollout) == {S.DEFERRED: 2}
    report(platform, honest, [S.DOWNLOADING], first=2)
    forward(platform, 3600 + 180 + 1)  # what may be put off, the offer's time and a step
    ended = next(o for o in executions(platform, rollout) if o.id == other.id)
    assert ended.state is S.TIMED_OUT
    assert "of at most 7200 s" in ended.detail


def test_what_is_only_downloaded_goes_on_by_one_word(platform, rolled):
    rollout = rolled(3, mode=Mode(urgency=Urgency.DOWNLOAD_ONLY), pace=Pace(concurrent=2))
    early, slow = (o for o in executions(platform, rollout) if o.state is S.OFFERED)
    report(platform, early, STAGED)
    report(platform, slow, STAGED[:2])
    forward(platform, 200)
    assert states(platform, rollout)[S.STAGED] == 1
    assert commands(platform, early.device) == []
    platform.broker.up = False
    before = platform.rollouts.get(rollout)
    after = platform.rollouts.operate(rollout, Act.ACTIVATE)
    assert (after.revision, after.spec.mode) == (before.revision + 1, Mode())
    platform.tick()
    assert commands(platform, early.device) == []
    platform.broker.up = True
    platform.tick()
    assert commands(platform, early.device) == ["proceed"]
    report(platform, early, REST, first=4)
    platform.tick()
    # Offered before as to be downloaded only, staged after.
    report(platform, slow, STAGED[2:], first=2)
    platform.tick()
    assert commands(platform, slow.device) == ["proceed"]


def test_the_word_to_go_on_is_said_again_to_whoever_still_waits(platform, rolled):
    rollout = rolled(1, mode=Mode(urgency=Urgency.DOWNLOAD_ONLY))
    (one,) = executions(platform, rollout)
    report(platform, one, STAGED)
    platform.rollouts.operate(rollout, Act.ACTIVATE)
    platform.tick()
    platform.tick()
    assert commands(platform, one.device) == ["proceed"]
    report(platform, one, [S.STAGED], first=4)  # it lost the word with its power
    platform.tick()
    assert commands(platform, one.device) == ["proceed"] * 2
    report(platform, one, REST, first=5)
    platform.tick()
    assert commands(platform, one.device) == ["proceed"] * 2
    assert states(platform, rollout) == {S.SUCCEEDED: 1}


def test_who_is_told_to_go_on_and_does_not_has_failed(platform, rolled):
    rollout = rolled(1, mode=Mode(urgency=Urgency.DOWNLOAD_ONLY), step_seconds=60)
    (one,) = executions(platform, rollout)
    report(platform, one, STAGED)
    forward(platform, 86400)
    assert states(platform, rollout) == {S.STAGED: 1}
    platform.rollouts.operate(rollout, Act.ACTIVATE)
    forward(platform, 0)
    forward(platform, 61)
    assert states(platform, rollout) == {S.TIMED_OUT: 1}
    assert commands(platform, one.device) == ["proceed", "cancel"]


def test_a_rollout_takes_no_device_from_one_of_higher_priority_that_works(platform, rolled):
    high = rolled(2, priority=60)
    working, done = executions(platform, high)
    report(platform, working, STAGED)
    report(platform, done, STAGED + REST)
    everybody = (WaveSpec(percent=100),)
    spec = RolloutSpec(model="digits", version=1, waves=everybody)
    low = platform.rollouts.plan(spec).id
    platform.rollouts.operate(low, Act.START)
    platform.tick()
    found = {one.device: one for one in executions(platform, low)}
    assert states(platform, high) == {S.STAGED: 1, S.SUCCEEDED: 1}
    assert found[working.device].state is S.SUPERSEDED
    assert f"superseded by {high}, which has the priority 60" in found[working.device].detail
    assert found[done.device].state is S.ALREADY_INSTALLED


def test_that_another_rollout_has_the_device_is_told_before_a_window_opens(platform, rolled):
    waits = rolled(1, windows=(NIGHT,))
    platform.models.register("digits", platform.manifest(content=b"other"), None)
    spec = RolloutSpec(model="digits", version=2, waves=(WaveSpec(percent=100),))
    later = platform.rollouts.plan(spec).id
    platform.rollouts.operate(later, Act.START)
    platform.tick()
    (one,) = executions(platform, later)
    report(platform, one, STAGED + REST)
    (left,) = executions(platform, waits)
    assert (left.state, left.kept) == (S.SCHEDULED, f"superseded by {later}")
    api = platform.client(platform.key(Role.ADMIN))
    found = api.get(f"/v1/devices/{one.device}/why").json()["models"][0]["missing"]
    told = {reason["version"]: (reason["code"], reason["text"]) for reason in found}[1]
    assert told[0] == "superseded"
    assert f"superseded by {later}" in told[1]
    assert "opens" not in told[1]


def test_an_edit_names_the_revision_that_it_changes(platform, rolled):
    rollout = rolled(2, pace=Pace(concurrent=1))
    api = platform.client(platform.key(Role.RELEASER))
    path = f"/v1/rollouts/{rollout}"
    tag = api.get(path).headers["etag"]
    change = {"pace": {"per_minute": 600}, "priority": 70}
    missing = api.patch(path, json=change)
    assert (missing.status_code, missing.json()["code"]) == (428, "precondition_required")
    done = api.patch(path, json=change, headers={"If-Match": tag})
    assert done.status_code == 200
    assert done.json()["spec"]["priority"] == 70
    assert done.headers["etag"] == f'"{done.json()["revision"]}"' != tag
    late = api.patch(path, json={"priority": 1}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert "argosy rollout get" in late.json()["hint"]
    for weak in (f"W/{done.headers['etag']}", '"x"'):
        assert api.patch(path, json=change, headers={"If-Match": weak}).status_code == 412
    assert api.patch(path, json=change, headers={"If-Match": "3"}).status_code == 422
    same = api.patch(path, json=change, headers={"If-Match": "*"})
    assert same.json()["revision"] == done.json()["revision"]
    platform.tick()
    assert states(platform, rollout) == {S.OFFERED: 2}


def test_an_edit_stands_in_the_audit_log_with_what_was_before(platform, rolled):
    rollout = rolled(1)
    revision = platform.rollouts.get(rollout).revision
    change = RolloutEdit(windows=(NIGHT,), pace=Pace(per_minute=3))
    platform.rollouts.edit(rollout, change, {revision})
    with pytest.raises(PreconditionFailed):
        platform.rollouts.edit(rollout, change, {revision})
    api = platform.client(platform.key(Role.ADMIN))
    (entry,) = [e for e in api.get("/v1/audit").json()["items"] if e["action"] == "rollout.edit"]
    assert entry["detail"]["before"] == {"pace": Pace().model_dump(), "windows": []}
    assert entry["detail"]["after"]["pace"]["per_minute"] == 3


def test_what_is_over_is_not_edited(platform, rolled):
    rollout = rolled(1)
    platform.rollouts.operate(rollout, Act.ABORT)
    with pytest.raises(IllegalTransition, match="has ended"):
        platform.rollouts.edit(rollout, RolloutEdit(priority=1), None)
    assert platform.rollouts.get(rollout).state is RolloutState.ABORTED


def test_a_clock_that_is_set_back_lets_no_burst_through_and_holds_nobody_up(platform, rolled):
    rollout = rolled(10, pace=Pace(per_minute=24))  # two in five seconds
    platform.clock.forward(-3600)
    for _ in range(4):
        platform.tick()
    assert states(platform, rollout)[S.OFFERED] == 2
    forward(platform, 5.1)
    assert states(platform, rollout)[S.OFFERED] == 4


def test_what_the_pace_comes_to_now_is_shown(platform, rolled):
    rollout = rolled(6, pace=Pace(per_minute=12, growth=Growth(factor=3, after=1), concurrent=2))
    now = platform.rollouts.get(rollout).pace_now
    assert (now.per_minute, now.at_work, now.room) == (12, 1, 0)
    (first,) = [one for one in executions(platform, rollout) if one.state is S.OFFERED]
    report(platform, first, STAGED + REST)
    now = platform.rollouts.get(rollout).pace_now
    assert (now.per_minute, now.at_work, now.room) == (36, 0, 2)
    api = platform.client(platform.key(Role.ADMIN))

    def why():
        waits = next(o for o in executions(platform, rollout) if o.state is S.SCHEDULED)
        answer = api.get(f"/v1/devices/{waits.device}/why").json()
        (missing,) = answer["models"][0]["missing"]
        return missing["code"], missing["text"]

    code, text = why()
    assert code == "paced"
    assert "at 36 devices a minute now; 5 devices wait" in text
    platform.tick()
    assert "2 devices are at work" in why()[1]
