"""Plans that are written by portions: others write in between, and nothing of half a plan stays."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from orchestrator.adapters.rollout_repository import SqlRollouts
from orchestrator.adapters.tables import ExecutionRow, RolloutRow, WaveRow
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import NotFound, Revoked
from orchestrator.services import planning
from orchestrator.services import rollouts as service
from orchestrator.services.revocation import RevocationService
from schemas.model import RevokeRequest
from schemas.rollout import RolloutSpec

SPEC = RolloutSpec(model="digits", version=1)
TABLES = (RolloutRow, WaveRow, ExecutionRow)


@pytest.fixture
def resting(platform, monkeypatch):
    """Five devices and portions of two; what is done while a plan rests."""
    platform.models.register("digits", platform.manifest(), None)
    platform.enroll(5)
    monkeypatch.setattr(planning, "PORTION", 2)
    doing = []
    platform.rollouts = service.RolloutService(
        platform.uow, platform.clock, platform.trust, rest=lambda _: [do() for do in doing]
    )
    return doing


def revoke(platform, asked):
    RevocationService(platform.uow, platform.clock).revoke("digits", 1, asked, by="me")


def rows(platform):
    """How many rollouts, waves and executions the database holds."""
    with platform.uow.read() as tx:
        count = select(func.count())
        return [tx.rollouts._session.scalar(count.select_from(table)) for table in TABLES]


def test_others_write_between_portions_and_see_no_half_plan(platform, resting):
    seen = []

    def look():
        (late,) = platform.enroll(1)  # a writing transaction of somebody else
        platform.rollouts.tick()  # takes nothing away from a plan in the making
        seen.append((late, len(platform.rollouts.page(None, 10))))

    resting.append(look)
    view = platform.rollouts.plan(SPEC)
    assert [listed for _, listed in seen] == [0, 0]
    assert sum(wave.size for wave in view.waves) == 5
    assert [one.id for one in platform.rollouts.page(None, 10)] == [view.id]
    assert platform.rollouts.operate(view.id, RolloutEvent.START).state == "RUNNING"


def test_a_plan_that_fails_in_the_middle_leaves_nothing(platform, resting, monkeypatch):
    whole = SqlRollouts.schedule

    def breaks(self, rollout_id, members, at):
        if len(members) == 1:
            msg = "the disk is full"
            raise OSError(msg)
        whole(self, rollout_id, members, at)

    monkeypatch.setattr(SqlRollouts, "schedule", breaks)
    with pytest.raises(OSError, match="full"):
        platform.rollouts.plan(SPEC)
    assert rows(platform) == [0, 0, 0]


def test_a_version_that_is_revoked_meanwhile_is_not_planned(platform, resting):
    asked = RevokeRequest(reason="leaks")
    resting.append(lambda: revoke(platform, asked))
    with pytest.raises(Revoked):
        platform.rollouts.plan(SPEC)
    assert rows(platform) == [0, 0, 0]


def test_what_a_killed_server_left_of_a_plan_is_removed(platform, resting, monkeypatch):
    class Killed(BaseException):
        pass

    def dies():
        raise Killed

    resting.append(dies)
    monkeypatch.setattr(planning.PlanningService, "_discard", lambda *_: None)
    with pytest.raises(Killed):
        platform.rollouts.plan(SPEC)
    monkeypatch.undo()
    resting.clear()
    kept = platform.rollouts.plan(SPEC)
    assert rows(platform) == [2, 4, 7]
    again = service.RolloutService(platform.uow, platform.clock, platform.trust, lambda _: None)
    assert [one.id for one in again.page(None, 10)] == [kept.id]
    again.tick()
    assert rows(platform) == [1, 2, 5]
    again.tick()
    assert rows(platform) == [1, 2, 5]
    with pytest.raises(NotFound):
        again.get("rol_nothing")


def test_a_rollout_says_why_it_stands_still_and_by_whom(platform):
    platform.models.register("digits", platform.manifest(), None)
    platform.enroll(1)
    one, other = platform.rollouts.plan(SPEC), platform.rollouts.plan(SPEC)
    platform.rollouts.operate(one.id, RolloutEvent.START)
    view = platform.rollouts.operate(one.id, RolloutEvent.PAUSE, "the line is down")
    assert view.reason == "by platform: the line is down"
    assert platform.rollouts.operate(one.id, RolloutEvent.PAUSE, "again").reason == view.reason
    assert platform.rollouts.operate(one.id, RolloutEvent.RESUME).reason is None
    assert platform.rollouts.operate(other.id, RolloutEvent.ABORT).reason == "by platform"
    revoke(platform, RevokeRequest(reason="leaks"))
    assert platform.rollouts.get(one.id).reason == "digits@1 was revoked: leaks"
