"""Rollouts when things go wrong in between: vanished devices, lost messages, late starts."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy.exc import InternalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.adapters.execution_repository import SqlExecutions
from orchestrator.adapters.rollout_repository import SqlRollouts
from orchestrator.adapters.unit_of_work import make_engine
from orchestrator.domain.acts import Act
from orchestrator.domain.logs import LogQuery
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import Forbidden, IllegalTransition, LeaseLost, Unavailable
from orchestrator.services.inbox import UpMessage
from orchestrator.services.job_history import JobHistoryService
from schemas.access import Role
from schemas.device import Death
from schemas.errors import DeviceCause
from schemas.job import ClaimRequest, JobProgress, LogLine
from schemas.jobfile import JobSpec
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import RolloutEdit
from schemas.selector import parse
from schemas.topics import Up, UpTopic
from tests.unit.orchestrator import platform as harness
from tests.unit.orchestrator.platform import BOOT, Platform
from tests.unit.orchestrator.test_rollout_service import desired, executions, start, succeed

S = ExecState
EVERYONE = [{"percent": 100}]


@pytest.fixture
def postgres(tmp_path, migrated_postgres_url, monkeypatch):
    (tmp_path / "argosy.db").touch()  # nothing to be copied there: it is not looked at
    monkeypatch.setattr(harness, "make_engine", lambda _url: make_engine(migrated_postgres_url))
    return Platform(tmp_path)


def fleet(platform, count):
    platform.models.register("digits", platform.manifest(), None)
    devices = platform.enroll(count)
    for device in devices:
        platform.birth(device)
    return devices


def leave(platform, device):
    platform.receive(device, Up.DEATH, Death(boot=BOOT, session=1))


def one_of(platform, rollout, execution):
    return next(e for e in executions(platform, rollout) if e.id == execution.id)


@pytest.fixture
def withdrawn(platform):
    """A rollout of which one device took the offer and the other vanished with it."""
    fleet(platform, 3)
    rollout = start(platform, waves=[{"count": 2}, *EVERYONE], offer_seconds=10)
    platform.tick()
    late, other = executions(platform, rollout, 0)
    leave(platform, late.device)
    platform.clock.forward(11)
    platform.report(other.device, other.id, 0, S.ACCEPTED)
    platform.tick()
    assert one_of(platform, rollout, late).state is S.SCHEDULED
    return rollout, late


def test_an_offer_is_taken_back_from_a_device_that_vanished(platform, withdrawn):
    _, late = withdrawn
    assert desired(platform, late.device) == b""


def test_an_abort_reaches_a_device_that_vanished_with_its_offer(platform, withdrawn):
    rollout, late = withdrawn
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    platform.tick()
    assert one_of(platform, rollout, late).state is S.CANCELLED
    cancels = [t for t, _, _ in platform.broker.sent if t == f"d/{late.device}/down/cmd"]
    assert cancels


def test_what_a_device_does_with_an_offer_it_heard_all_the_same_is_kept(platform, withdrawn):
    rollout, late = withdrawn
    platform.report(late.device, late.id, 1, S.REJECTED, cause=DeviceCause.EXPIRED)
    assert one_of(platform, rollout, late).state is S.REJECTED


def test_a_canary_that_vanishes_is_offered_again_when_it_is_back(platform):
    fleet(platform, 3)
    rollout = start(platform, offer_seconds=10)
    platform.tick()
    (canary,) = executions(platform, rollout, 0)
    leave(platform, canary.device)
    platform.clock.forward(11)
    platform.tick(8)
    view = platform.rollouts.get(rollout)
    assert view.state is RolloutState.RUNNING
    assert [w.state for w in view.waves] == [WaveState.RUNNING, WaveState.PENDING]
    platform.birth(canary.device, session=2)
    platform.tick()
    assert one_of(platform, rollout, canary).state is S.OFFERED


def test_withdrawing_ends_whatever_the_order_of_acknowledgements(platform):
    fleet(platform, 1)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    (one,) = executions(platform, rollout)
    platform.report(one.device, one.id, 0, S.ACCEPTED)
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    sent = platform.broker.sent
    before = len(sent)
    platform.publisher.tick()
    mid = next(i + 1 for i in range(before, len(sent)) if sent[i][0].endswith("desired"))
    platform.downlink.acknowledged(mid)
    platform.tick(50)
    assert len(sent) - before == 2


def test_a_cancel_that_the_broker_lost_is_said_again(platform):
    fleet(platform, 1)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    (one,) = executions(platform, rollout)
    platform.report(one.device, one.id, 0, S.ACCEPTED)
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    platform.tick()
    for provoke in (
        lambda: platform.birth(one.device, session=2),
        lambda: platform.report(one.device, one.id, 1, S.DOWNLOADING),
    ):
        platform.broker.sent.clear()
        provoke()
        platform.tick()
        assert {t.rpartition("/")[2] for t, _, _ in platform.broker.sent} == {"desired", "cmd"}


def test_a_long_probation_is_no_failure_while_the_device_serves(platform):
    fleet(platform, 1)
    rollout = start(platform, waves=EVERYONE, probation={"min_inferences": 5000, "max_seconds": 50})
    platform.tick()
    (one,) = executions(platform, rollout)
    platform.report(one.device, one.id, 0, S.PROBATION)
    for seq in range(40):
        platform.clock.forward(10)
        platform.birth(one.device)
        platform.window(one.device, seq)
        platform.tick(1)
    assert one_of(platform, rollout, one).state is S.PROBATION
    platform.clock.forward(301)
    platform.birth(one.device)
    platform.tick()
    assert one_of(platform, rollout, one).state is S.TIMED_OUT


def test_an_aborted_newer_rollout_supersedes_nothing(platform):
    fleet(platform, 2)
    old = start(platform, waves=EVERYONE)
    platform.clock.forward(1)
    new = start(platform, waves=EVERYONE)
    platform.rollouts.operate(new, RolloutEvent.ABORT)
    platform.tick()
    assert {e.state for e in executions(platform, old)} == {S.OFFERED}


def test_the_rollout_that_was_started_last_has_the_device(platform):
    fleet(platform, 2)
    early = platform.rollouts.plan(RolloutSpec(model="digits", version=1))
    platform.models.register("digits", platform.manifest(content=b"v2"), None)
    platform.clock.forward(1)
    later = start(platform, version=2, waves=EVERYONE)
    platform.tick()
    for execution in executions(platform, later):
        succeed(platform, execution)
    platform.clock.forward(1)
    platform.rollouts.operate(early.id, RolloutEvent.START)
    platform.tick()
    assert executions(platform, early.id)[0].state is S.OFFERED


def test_a_rollout_that_cannot_pass_is_not_resumed_in_vain(platform):
    fleet(platform, 2)
    rollout = start(platform)
    platform.tick()
    (one,) = executions(platform, rollout, 0)
    platform.report(one.device, one.id, 0, S.FAILED)
    platform.tick()
    assert platform.rollouts.get(rollout).pause_reason is PauseReason.ERROR_THRESHOLD
    view = platform.rollouts.get(rollout)
    assert "resume" not in view.acts
    assert {"promote", "retry", "edit", "abort"} <= set(view.acts)
    with pytest.raises(IllegalTransition, match=r"promote.*retry.*edit.*abort the rollout"):
        platform.rollouts.operate(rollout, RolloutEvent.RESUME)


def test_who_would_roll_back_what_has_ended_is_told_both_ways(platform):
    fleet(platform, 1)
    rollout = start(platform)
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    with pytest.raises(IllegalTransition, match="has ended") as refused:
        platform.rollouts.operate(rollout, Act.ROLLBACK)
    selector = "model.digits = 1"
    assert f"argosy rollout start digits@OLD --where '{selector}'" in refused.value.hint
    assert "argosy model revoke digits@1 --reason … --rollback" in refused.value.hint
    assert parse(selector)


def test_a_rollout_that_its_gates_let_pass_by_now_is_resumed(platform):
    fleet(platform, 2)
    rollout = start(platform)
    platform.tick()
    (one,) = executions(platform, rollout, 0)
    platform.report(one.device, one.id, 0, S.FAILED)
    platform.tick()
    view = platform.rollouts.get(rollout)
    loose = view.spec.gates.model_copy(update={"max_failure_rate": 1.0})
    edited = platform.rollouts.edit(rollout, RolloutEdit(gates=loose), None)
    assert "resume" in edited.acts
    platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    platform.tick()
    after = platform.rollouts.get(rollout)
    assert after.pause_reason is not PauseReason.ERROR_THRESHOLD
    assert after.waves[0].state is not WaveState.FAILED


def test_a_plan_that_waited_offers_documents_that_are_valid(platform):
    (device,) = fleet(platform, 1)
    plan = platform.rollouts.plan(RolloutSpec(model="digits", version=1))
    platform.clock.forward(31 * 86400)
    platform.birth(device)
    platform.signing.tick()
    platform.rollouts.operate(plan.id, RolloutEvent.START)
    platform.tick()
    signed = json.loads(desired(platform, device))["signed"]
    assert signed["expires"] > platform.clock().isoformat()


def test_one_rollouts_fault_does_not_stop_the_others(platform, monkeypatch):
    fleet(platform, 1)
    broken = start(platform, waves=EVERYONE)
    platform.clock.forward(1)
    good = start(platform, waves=EVERYONE)
    real = SqlRollouts.waves

    def failing(self, rollout_id):
        if rollout_id == broken:
            raise RuntimeError
        return real(self, rollout_id)

    monkeypatch.setattr(SqlRollouts, "waves", failing)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            platform.engine.tick()
    monkeypatch.undo()
    assert executions(platform, good)[0].state is S.OFFERED


@pytest.mark.parametrize(
    "fault", [PoolTimeout("pool"), InternalError("x", {}, Exception("read-only\nDETAIL: y"))]
)
def test_a_database_fault_acknowledges_nothing(platform, fault, monkeypatch):
    (device,) = fleet(platform, 1)

    def broken(*_args):
        raise fault

    monkeypatch.setattr(platform.devices, "take", broken)
    message = Death(boot=BOOT, session=1).model_dump_json().encode()
    topic = UpTopic(device, Up.DEATH)
    with pytest.raises(Unavailable) as caught:
        platform.inbox.handle([UpMessage(topic, message, retained=False)] * 2)
    assert "\n" not in caught.value.detail


SPEC = JobSpec.model_validate({"name": "digits", "task": "a:B", "stop": {"target": 0.9}})


def claimed(platform):
    job = platform.jobs.submit(SPEC)
    return job, platform.jobs.claim(ClaimRequest(agent="a"))


def test_one_job_registers_one_version_of_its_own_model_while_it_holds_its_lease(platform):
    job, _ = claimed(platform)
    first = platform.models.register("digits", platform.manifest(), job.id)
    again = platform.models.register("digits", platform.manifest(content=b"other"), job.id)
    assert (first.version, again.version, again.created) == (1, 1, False)
    other = platform.manifest().model_copy(update={"model": "other"})
    with pytest.raises(Forbidden, match="'digits'"):
        platform.models.register("other", other, job.id)
    platform.clock.forward(31)
    platform.jobs.expire_leases()
    with pytest.raises(LeaseLost):
        platform.models.register("digits", platform.manifest(content=b"late"), job.id)


@pytest.mark.integration
def test_postgresql_takes_what_drivers_and_devices_send(postgres):
    job, claim = claimed(postgres)
    line = LogLine(at=postgres.clock(), text="a\x00b")
    report = JobProgress(attempt=claim.attempt, seq=1_800_000_000_000_000, logs=(line,))
    postgres.jobs.progress(job.id, report)
    lines, _ = JobHistoryService(postgres.uow).logs(job.id, LogQuery())
    assert lines[0].text == "ab"
    fleet(postgres, 1)
    rollout = start(postgres, waves=EVERYONE)
    postgres.tick()
    (one,) = executions(postgres, rollout)
    postgres.report(
        one.device, one.id, 0, S.DOWNLOADING, bytes_done=1, bytes_total=3 * 2**30, detail="\x00"
    )
    assert one_of(postgres, rollout, one).state is S.DOWNLOADING


@pytest.mark.integration
def test_an_abort_beside_a_report_ends_both_on_postgresql(postgres, monkeypatch):
    fleet(postgres, 1)
    rollout = start(postgres, waves=EVERYONE)
    postgres.tick()
    (one,) = executions(postgres, rollout)
    real, threads = SqlExecutions.by_wave, []

    def raced(self, among):
        if not threads:
            threads.append(threading.Thread(target=succeed, args=(postgres, one)))
            threads[0].start()
        return real(self, among)

    monkeypatch.setattr(SqlExecutions, "by_wave", raced)
    postgres.rollouts.operate(rollout, RolloutEvent.ABORT)
    monkeypatch.undo()
    threads[0].join(20)
    assert not threads[0].is_alive()
    assert one_of(postgres, rollout, one).state is S.SUCCEEDED


def test_a_device_serves_what_it_says_after_a_late_success(platform):
    fleet(platform, 1)
    rollout = start(platform, waves=EVERYONE, step_seconds=60)
    platform.tick()
    (one,) = executions(platform, rollout)
    platform.report(one.device, one.id, 0, S.DOWNLOADING)
    platform.clock.forward(61)
    platform.tick()
    assert one_of(platform, rollout, one).state is S.TIMED_OUT
    platform.report(one.device, one.id, 1, S.SUCCEEDED)
    assert [one.version for one in platform.devices.get(one.device).active] == [1]
    with platform.uow() as tx:
        record = tx.rollouts.execution(one.id)
    assert record.late is S.SUCCEEDED


@pytest.mark.parametrize(
    "path", ["/v1/devices/a%00b", "/v1/jobs?cursor=%00", "/v1/audit?actor=a%00"]
)
def test_a_nul_in_an_address_is_refused_on_postgresql_too(postgres, path):
    answer = postgres.client(postgres.key(Role.ADMIN)).get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
