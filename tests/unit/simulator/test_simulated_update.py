"""A simulated device's updates: the order of its reports, and what calls it off."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain import execution as machine
from orchestrator.simulator.profile import Effect, Profile, Work
from orchestrator.simulator.walk import Walk
from schemas.device import ActiveModel
from schemas.errors import DeviceCause
from schemas.ids import new_id
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import Assignment, Command, ExecState, Probation, Shadow
from schemas.trust import signable
from tests.fakes.simulated import Host

S = ExecState
WHOLE = [
    S.ACCEPTED, S.DOWNLOADING, S.VERIFIED, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED,
]  # fmt: skip


def offer(host: Host, **more) -> Assignment:
    fields = {
        "device": host.id,
        "device_class": "default",
        "execution": new_id("exe"),
        "attempt": 1,
        "rollout": new_id("rol"),
        "model": "digits",
        "version": 2,
        "variant": "int8",
        "manifest_sha256": "a" * 64,
        "probation": Probation(min_inferences=10),
    }
    return Assignment.model_validate(fields | more)


def document(assignment: Assignment, sequence: int) -> bytes:
    custom = signable(assignment.model_dump(mode="json"))
    targets = {f"device/{assignment.device}/{assignment.execution}": {"custom": custom}}
    return json.dumps({"signed": {"version": sequence, "targets": targets}}).encode()


@pytest.fixture
def host() -> Host:
    return Host()


def started(host: Host, sequence: int = 1, **more) -> tuple[Walk, Assignment]:
    walk, assignment = Walk(host), offer(host, **more)
    walk.desired(document(assignment, sequence))
    return walk, assignment


def cancel(assignment: Assignment) -> Command:
    return Command(kind="cancel", execution=assignment.execution, attempt=assignment.attempt)


def test_an_update_goes_through_all_its_states_and_serves(host):
    started(host)
    host.forward(60)
    assert host.states == WHOLE
    assert [one.seq for one in host.reports] == list(range(len(WHOLE)))
    assert host.active["digits"].version == 2
    assert len(host.offers) == 1


def test_the_same_document_again_is_answered_by_the_last_report(host):
    walk, assignment = started(host)
    host.forward(60)
    last = host.reports[-1]
    walk.desired(document(assignment, 1))
    assert host.reports[-1] == last
    assert len(host.reports) == len(WHOLE) + 1
    assert len(host.offers) == 1


def test_what_serves_already_succeeds_at_once(host):
    host.active["digits"] = ActiveModel(model="digits", version=2, variant="int8", sha256="f" * 64)
    started(host)
    assert host.states == [S.SUCCEEDED]


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"device_class": "camera"}, DeviceCause.WRONG_CLASS),
        ({"device": new_id("dev")}, DeviceCause.WRONG_DEVICE),
    ],
)
def test_what_is_for_another_is_refused(host, more, cause):
    started(host, **more)
    assert [(one.state, one.cause) for one in host.reports] == [(S.REJECTED, cause)]


def test_an_older_document_is_refused_and_what_is_under_way_goes_on(host):
    walk, _ = started(host, sequence=5)
    old = offer(host)
    walk.desired(document(old, 4))
    assert host.reports[-1].cause is DeviceCause.BELOW_FLOOR
    assert host.reports[-1].execution == old.execution
    host.forward(60)
    assert host.states[-1] is S.SUCCEEDED
    assert walk.floor == 5


@pytest.mark.parametrize("payload", [b"", b"{}", b"no json", b'{"signed": {"targets": {}}}'])
def test_what_is_no_document_changes_nothing(host, payload):
    Walk(host).desired(payload)
    assert host.reports == []


def test_a_cancel_before_the_swap_ends_it_and_the_model_before_serves(host):
    walk, assignment = started(host)
    walk.command(cancel(assignment))
    host.forward(60)
    assert (host.reports[-1].state, host.reports[-1].cause) == (S.FAILED, DeviceCause.CANCELLED)
    assert host.active == {}
    assert host.stops == [assignment.rollout]


def test_a_cancel_after_the_swap_comes_too_late(host):
    walk, assignment = started(host)
    while S.PROBATION not in host.states:
        host.forward(0.1)
    walk.command(cancel(assignment))
    late = host.reports[-1]
    assert (late.state, late.cause) == (S.PROBATION, DeviceCause.CANCEL_TOO_LATE)
    host.forward(60)
    assert host.states[-1] is S.SUCCEEDED


def test_a_cancel_of_what_it_does_not_know_is_answered(host):
    unknown = Command(kind="cancel", execution=new_id("exe"), attempt=1)
    Walk(host).command(unknown)
    assert host.disowned == [unknown.execution]


@pytest.mark.parametrize("state", [S.DOWNLOADING, S.STAGED, S.ACTIVATING, S.PROBATION])
def test_a_newer_document_replaces_the_update_and_leaves_no_unproven_model(host, state):
    before = ActiveModel(model="digits", version=1, variant="int8", sha256="f" * 64)
    host.active["digits"] = before
    walk, first = started(host)
    while state not in host.states:
        host.forward(0.02)
    second = offer(host, version=3)
    walk.desired(document(second, 2))
    host.forward(60)
    of_first = [one for one in host.reports if one.execution == first.execution]
    swapped = state in {S.ACTIVATING, S.PROBATION}
    assert of_first[-1].state is (S.ROLLED_BACK if swapped else S.FAILED)
    assert of_first[-1].cause is DeviceCause.SUPERSEDED
    assert of_first[-1].retryable is swapped
    assert host.states[-1] is S.SUCCEEDED
    assert host.active["digits"].version == 3


def test_a_version_that_crashes_is_put_back(host):
    profile = Profile(versions=(Effect(version=2, crash=1.0),))
    host = Host(profile)
    before = ActiveModel(model="digits", version=1, variant="int8", sha256="f" * 64)
    host.active["digits"] = before
    started(host)
    host.forward(60)
    assert (host.reports[-1].state, host.reports[-1].cause) == (
        S.ROLLED_BACK,
        DeviceCause.BOOT_LOOP,
    )
    assert host.active["digits"] == before


def test_a_version_that_is_much_slower_is_put_back_by_the_device_itself():
    host = Host(Profile(versions=(Effect(version=2, latency=9.0),)))
    host.active["digits"] = ActiveModel(model="digits", version=1, variant="int8", sha256="f" * 64)
    started(host)
    host.forward(60)
    assert host.reports[-1].cause is DeviceCause.TOO_SLOW


def test_download_only_waits_in_staged_for_a_word(host):
    mode = Mode(urgency=Urgency.DOWNLOAD_ONLY)
    walk, assignment = started(host, mode=mode)
    host.forward(3600)
    assert host.states[-1] is S.STAGED
    word = Command(kind="proceed", execution=assignment.execution, attempt=1)
    walk.command(word)
    host.forward(60)
    assert host.states[-1] is S.SUCCEEDED


def test_a_window_that_covers_all_holds_the_download_and_says_until_when(host):
    window = MaintenanceWindow(cron="0 14 * * *", minutes=30, covers=WindowCovers.ALL)
    started(host, windows=(window,))
    host.forward(60)
    assert host.states == [S.ACCEPTED, S.DEFERRED]
    assert host.reports[-1].waits_until.hour == 14
    host.forward(2 * 3600)
    assert host.states[-1] is S.SUCCEEDED


def test_a_device_that_waits_out_its_jitter_says_so_and_until_when(host):
    begun = host.now()
    started(host, jitter_seconds=600)
    assert host.states == [S.ACCEPTED, S.DEFERRED]
    told = host.reports[-1]
    assert 0 < (told.waits_until - begun).total_seconds() < 600
    assert told.detail.startswith("waits out its random part of the jitter until ")
    host.forward(600 + 60)
    assert host.states[2:] == WHOLE[1:]
    other = Host()
    walk, assignment = started(other, jitter_seconds=86400)
    walk.command(Command(kind="proceed", execution=assignment.execution, attempt=1))
    other.forward(20)  # whoever is told to goes on at once
    assert other.states[-1] is S.SUCCEEDED


def test_a_soft_update_is_put_off_once_and_no_longer_than_it_may():
    host = Host(Profile(work=Work(defer=1.0, defer_seconds=600)))
    mode = Mode(urgency=Urgency.SOFT)
    started(host, mode=mode, max_deferral_seconds=100)
    host.forward(99)
    assert host.states[-1] is S.DEFERRED
    host.forward(60)
    assert host.states[-1] is S.SUCCEEDED
    assert host.states.count(S.DEFERRED) == 1


def test_a_shadow_that_disagrees_ends_the_update():
    host = Host(Profile(versions=(Effect(version=2, accuracy=-0.5),)))
    host.active["digits"] = ActiveModel(model="digits", version=1, variant="int8", sha256="f" * 64)
    started(host, shadow=Shadow(seconds=5, min_agreement=0.9))
    host.forward(60)
    assert S.SHADOWING in host.states
    assert host.reports[-1].cause is DeviceCause.SHADOW_DISAGREED


def test_the_next_run_goes_on_counting_and_says_the_end_again(host):
    walk, assignment = started(host)
    host.forward(60)
    again = Walk(host, walk.floor, walk.seen)
    again.desired(document(assignment, 1))
    assert host.reports[-1].state is S.SUCCEEDED
    assert host.reports[-1].seq == len(WHOLE) - 1
    middle, other = started(host, sequence=2, version=5)
    host.forward(0.1)
    resumed = Walk(host, middle.floor, middle.seen)
    before = host.reports[-1].seq
    resumed.desired(document(other, 2))
    assert host.reports[-1].seq == before + 1


def test_the_servers_table_takes_every_report_in_its_turn(host):
    """Held against the machine that judges the reports of real devices."""
    walk, assignment = started(host)
    while S.PROBATION not in host.states:
        host.forward(0.1)
    walk.command(cancel(assignment))
    host.forward(60)
    record, _ = machine.step(machine.Execution(), machine.Offered(), host.clock)
    for one in host.reports:
        told = machine.Reported(one.attempt, one.seq, one.state, one.cause)
        record, _ = machine.step(record, told, host.clock)
        assert (record.state, record.seq) == (one.state, one.seq)
    assert record.state is S.SUCCEEDED
