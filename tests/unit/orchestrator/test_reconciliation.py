"""What births tell is held against what the server believes, and the gap is closed."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain.rollout import RolloutEvent
from schemas.device import Birth, ExecutionSeen
from schemas.errors import DeviceCause
from schemas.rollout import ExecReport, ExecState
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, HARDWARE
from tests.unit.orchestrator.test_rollout_service import assignment, desired, executions, start

S = ExecState
EVERYONE = [{"percent": 100}]


@pytest.fixture
def one(platform):
    """A device that was offered version 1, with its execution."""
    platform.models.register("digits", platform.manifest(), None)
    (device,) = platform.enroll()
    platform.birth(device)
    platform.rollout = start(platform, waves=EVERYONE)
    platform.tick()
    return now(platform)


def now(platform):
    (found,) = executions(platform, platform.rollout)
    return found


def record(platform, execution):
    with platform.uow.read() as tx:
        return tx.rollouts.execution(execution)


def seen(execution, state, seq, attempt=1):
    return ExecutionSeen(execution=execution, attempt=attempt, state=state, seq=seq)


def reborn(platform, device, *, boot="c", session=1, **more):
    platform.clock.forward(1)
    platform.receive(device, Up.BIRTH, birth_of(boot, session, **more))


def birth_of(boot, session, **more):
    return Birth(boot=boot * 32, session=session, uptime=1, hardware=HARDWARE, **more)


def sent_to(platform, device):
    return [topic.rpartition("/")[2] for topic, _, _ in platform.broker.sent if device in topic]


def test_a_record_goes_to_where_the_device_says_it_is(platform, one):
    platform.birth(one.device, session=2, execution=seen(one.id, "STAGED", 4))
    assert now(platform).state is S.STAGED
    platform.report(one.device, one.id, 4, S.STAGED, detail="said in full")
    assert now(platform).detail == "said in full"
    platform.report(one.device, one.id, 3, S.VERIFIED)
    assert now(platform).state is S.STAGED


def test_an_end_whose_report_was_lost_is_asked_for(platform, one):
    platform.report(one.device, one.id, 0, S.ACCEPTED)
    before = desired(platform, one.device)
    platform.broker.sent.clear()
    platform.birth(one.device, execution=seen(one.id, "SUCCEEDED", 7))
    platform.tick()
    assert now(platform).state is S.ACCEPTED
    assert desired(platform, one.device) == before
    platform.report(one.device, one.id, 7, S.SUCCEEDED)
    platform.broker.sent.clear()
    platform.birth(one.device, execution=seen(one.id, "SUCCEEDED", 7))
    platform.tick()
    assert sent_to(platform, one.device) == []


def test_an_offer_that_never_came_is_repeated_by_a_heartbeat_and_not_at_once(platform, one):
    platform.broker.sent.clear()
    platform.birth(one.device)
    platform.tick()
    assert sent_to(platform, one.device) == []
    platform.clock.forward(15)
    platform.birth(one.device)
    platform.tick()
    assert sent_to(platform, one.device) == ["desired"]


def test_a_lost_journal_is_offered_as_another_attempt(platform, one):
    for seq, state in enumerate((S.ACCEPTED, S.DOWNLOADING)):
        platform.report(one.device, one.id, seq, state)
    reborn(platform, one.device)
    platform.tick()
    offered = assignment(desired(platform, one.device))
    assert (offered.execution, offered.attempt) == (one.id, 2)
    assert json.loads(desired(platform, one.device))["signed"]["version"] == 2
    platform.report(one.device, one.id, 9, S.STAGED)  # of the attempt that was lost
    assert now(platform).state is S.OFFERED
    report = ExecReport(execution=one.id, attempt=2, seq=0, boot=BOOT, uptime=1, state=S.SUCCEEDED)
    platform.receive(one.device, Up.EXEC, report)
    assert now(platform).state is S.SUCCEEDED


def test_a_heartbeat_that_a_report_overtook_starts_nothing_anew(platform, one):
    platform.report(one.device, one.id, 0, S.ACCEPTED)
    platform.birth(one.device)
    assert (now(platform).state, now(platform).attempt) == (S.ACCEPTED, 1)


def test_what_goes_on_with_what_was_cancelled_is_told_so_again(platform, one):
    platform.report(one.device, one.id, 0, S.ACCEPTED)
    platform.rollouts.operate(platform.rollout, RolloutEvent.ABORT)
    platform.tick()
    platform.broker.sent.clear()
    platform.birth(one.device, execution=seen(one.id, "DOWNLOADING", 1))
    platform.tick()
    assert set(sent_to(platform, one.device)) == {"cmd", "desired"}
    platform.report(one.device, one.id, 2, S.FAILED, cause=DeviceCause.CANCELLED)
    platform.broker.sent.clear()
    platform.birth(one.device, session=2, execution=seen(one.id, "FAILED", 2))
    platform.tick()
    assert sent_to(platform, one.device) == []


def test_a_device_that_is_above_our_numbers_is_offered_with_a_higher_one(platform, one):
    refused = {"cause": DeviceCause.BELOW_FLOOR, "detail": "sequence 1 is below 900"}
    platform.report(one.device, one.id, 0, S.REJECTED, **refused)
    assert now(platform).state is S.OFFERED
    platform.tick()
    version = json.loads(desired(platform, one.device))["signed"]["version"]
    assert version == int(platform.clock().timestamp())
    platform.report(one.device, one.id, 1, S.REJECTED, **refused)
    assert now(platform).state is S.REJECTED


def test_a_device_that_serves_what_it_was_never_given_has_drifted_until_it_fits(platform, one):
    platform.report(one.device, one.id, 0, S.SUCCEEDED)
    mine = platform.devices.get(one.device).active
    foreign = (mine[0].model_copy(update={"sha256": "0" * 64}),)
    platform.birth(one.device, active=mine)
    assert platform.devices.get(one.device).drifted_at is None
    platform.birth(one.device, active=foreign)
    since = platform.clock()
    platform.clock.forward(10)
    platform.birth(one.device, active=foreign)
    view = platform.devices.get(one.device)
    assert (view.drifted_at, view.desired, view.active) == (since, mine, foreign)
    platform.birth(one.device, active=mine)
    assert platform.devices.get(one.device).drifted_at is None


def test_a_model_that_was_put_back_by_hand_is_seen_and_stays_desired(platform, one):
    platform.report(one.device, one.id, 0, S.SUCCEEDED)
    mine = platform.devices.get(one.device).active
    platform.birth(
        one.device, session=2, rolled_back=True, execution=seen(one.id, "ROLLED_BACK", 1)
    )
    view = platform.devices.get(one.device)
    assert (view.rolled_back, view.active, view.desired) == (True, (), mine)
    platform.report(one.device, one.id, 1, S.ROLLED_BACK, cause=DeviceCause.OPERATOR)
    found = record(platform, one.id)
    assert (found.state, found.late, found.cause) == (
        S.SUCCEEDED,
        S.ROLLED_BACK,
        DeviceCause.OPERATOR,
    )


def test_a_device_that_lost_its_model_with_its_journal_is_offered_it_again(platform, one):
    platform.report(one.device, one.id, 0, S.SUCCEEDED)
    platform.broker.sent.clear()
    reborn(platform, one.device)
    platform.tick()
    again = assignment(desired(platform, one.device))
    assert (again.execution, now(platform).state) == (one.id, S.SUCCEEDED)
    assert json.loads(desired(platform, one.device))["signed"]["version"] == 2


def test_progress_is_stored_and_told_once_a_second(platform, one):
    def downloads(*figures):
        for seq, done in figures:
            more = {"bytes_done": done, "bytes_total": 100}
            platform.report(one.device, one.id, seq, S.DOWNLOADING, **more)

    def told():
        with platform.uow.read() as tx:
            found = tx.events.after(0, platform.rollout, 1000)
        return [e.data["bytes_done"] for e in found if e.data.get("state") == "DOWNLOADING"]

    downloads((0, 1), (1, 2), (2, 3))
    platform.clock.forward(1)
    downloads((3, 50), (4, 60))
    assert told() == [1, 50]
    assert now(platform).bytes_done == 50
    platform.report(one.device, one.id, 5, S.VERIFIED, bytes_done=100, bytes_total=100)
    assert now(platform).bytes_done == 100
