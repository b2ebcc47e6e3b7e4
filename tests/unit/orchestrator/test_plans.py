"""Plans: selectors, fleets and exclusions; what a draft shows; drafts that grow old."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain.acts import Act
from orchestrator.errors import Invalid, NotFound
from orchestrator.services.planning import DRAFT_DAYS
from orchestrator.services.ports import AuditQuery
from orchestrator.services.records import FleetRecord
from schemas.device import ActiveModel
from schemas.rollout import RolloutSpec, RolloutState

MODEL = {"model": "digits", "version": 1}


@pytest.fixture
def fleet(platform):
    """Four cameras and two gateways; three of them are tagged, one is not there."""
    platform.models.register("digits", platform.manifest(), None)
    cams, gateways = platform.enroll(4, "cam"), platform.enroll(2, "gateway")
    tagged = (cams[0], cams[1], gateways[0])
    for device in (*cams, *gateways)[:-1]:
        platform.birth(device)
    for device in tagged:
        tag(platform, device, "lab")
    return cams, gateways, tagged


def tag(platform, device, *tags):
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(device), tags=tags))


def plan(platform, **more):
    return platform.rollouts.plan(RolloutSpec.model_validate(MODEL | more))


def members(view):
    return [{one.device for one in wave.executions} for wave in view.waves]


def save_fleet(platform, name, selector):
    now = platform.clock()
    with platform.uow() as tx:
        record = FleetRecord(name=name, selector=selector, created_at=now, updated_at=now)
        tx.fleets.put(record)


def test_all_of_a_target_must_fit_and_none_of_what_is_excluded(platform, fleet):
    cams, gateways, _ = fleet
    save_fleet(platform, "labs", "tag = lab")
    both = members(plan(platform, fleet="labs", where="class = cam"))
    assert sorted(map(len, both)) == [1, 1]
    assert set.union(*both) == set(cams[:2])
    view = plan(platform, fleet="labs", exclude="class = cam")
    assert members(view) == [{gateways[0]}]
    with pytest.raises(NotFound, match="no fleet 'halls'"):
        plan(platform, fleet="halls")


def test_a_fleet_is_what_it_was_when_the_plan_was_frozen(platform, fleet):
    *_, tagged = fleet
    save_fleet(platform, "labs", "tag = lab")
    view = plan(platform, fleet="labs", waves=[{"percent": 100}])
    save_fleet(platform, "labs", "tag = hall")
    assert members(platform.rollouts.get(view.id)) == [set(tagged)]
    with platform.uow.read() as tx:
        assert tx.rollouts.get(view.id).fleet_where == "tag = lab"


def test_a_wave_by_selector_takes_whom_it_matches(platform, fleet):
    cams, gateways, tagged = fleet
    waves = [{"where": "tag = lab"}, {"where": "class = gateway"}, {"percent": 100}]
    view = plan(platform, waves=waves)
    assert members(view) == [set(tagged), {gateways[1]}, set(cams[2:])]


def test_what_is_left_out_is_said(platform, fleet):
    again = {"where": "tag = lab and class = cam"}
    view = plan(platform, waves=[{"where": "tag = lab"}, again, {"count": 1}])
    assert [wave.size for wave in view.waves] == [3, 1]
    assert "2 devices of the target are in no wave" in " ".join(view.estimate.notes)
    assert "1 of its waves would be empty" in " ".join(view.estimate.notes)


def test_a_canary_that_nobody_matches_is_refused_and_not_left_out(platform, fleet):
    waves = [{"where": "tag = moon"}, {"percent": 100}]
    with pytest.raises(Invalid, match="wave 1: no active device of the target matches tag = moon"):
        plan(platform, waves=waves)
    assert platform.rollouts.page(None, 10) == []
    # A dynamic one may wait for all of its devices, not for its canary alone: joiners go last.
    with pytest.raises(Invalid, match="wave 1"):
        plan(platform, waves=waves, dynamic=True)
    assert plan(platform, where="tag = moon", waves=waves, dynamic=True).waves == ()


@pytest.mark.parametrize(
    "huge",
    [
        {"gates": {"min_inferences": 10**400}},
        {"pace": {"per_minute": 1, "growth": {"factor": 1.5, "after": 10**400}}},
        {"pace": {"concurrent": 10**400}},
        {"waves": [{"count": 10**400}]},
        {"probation": {"max_memory_mb": 10**400}},
    ],
)
def test_figures_that_no_float_holds_are_refused(platform, fleet, huge):
    with pytest.raises(ValueError, match="less than or equal"):
        plan(platform, **huge)


def test_a_draft_says_who_is_there_who_has_it_and_what_is_to_be_sent(platform, fleet):
    cams, *_ = fleet
    manifest = platform.manifest()
    int8 = manifest.variant("int8")
    active = ActiveModel(model="digits", version=1, variant="int8", sha256=int8.file.sha256)
    platform.birth(cams[0], active=(active,))
    view = plan(platform)
    each = int8.file.size + int8.golden.file.size
    cam, gateway = view.preview
    assert (cam.devices, cam.offline, cam.installed, cam.bytes) == (4, 0, 1, 3 * each)
    assert (gateway.devices, gateway.offline, gateway.installed) == (2, 1, 0)
    assert gateway.bytes == 2 * each
    cost = view.estimate
    assert (cost.devices, cost.offline, cost.incompatible, cost.installed) == (6, 1, 0, 1)
    assert cost.bytes == 5 * each
    assert cost.seconds > 0
    assert platform.rollouts.get(view.id).estimate == cost
    platform.rollouts.operate(view.id, Act.START)
    started = platform.rollouts.get(view.id)
    assert (started.preview, started.estimate) == ((), None)


def test_what_starts_is_exactly_what_was_planned(platform, fleet):
    view = plan(platform, waves=[{"count": 2}, {"percent": 100}])
    for device in platform.enroll(3, "cam"):
        platform.birth(device)
    platform.rollouts.operate(view.id, Act.START)
    platform.tick()
    assert members(platform.rollouts.get(view.id)) == members(view)


def test_a_rollback_leads_to_an_older_version_that_is_there(platform, fleet):
    platform.models.register("digits", platform.manifest(content=b"newer"), None)
    assert plan(platform, version=2, rollback_to=1).spec.rollback_to == 1
    with pytest.raises(Invalid, match="not older"):
        plan(platform, version=1, rollback_to=2)
    with pytest.raises(NotFound):
        plan(platform, version=2, rollback_to=7)


def test_drafts_that_nobody_starts_are_discarded(platform, fleet):
    old, started = plan(platform), plan(platform)
    platform.rollouts.operate(started.id, Act.START)
    platform.clock.forward(timedelta(days=DRAFT_DAYS).total_seconds() - 60)
    young = plan(platform)
    platform.rollouts.tick()
    assert platform.rollouts.get(old.id).state is RolloutState.DRAFT
    platform.clock.forward(61)
    platform.rollouts.tick()
    with pytest.raises(NotFound):
        platform.rollouts.get(old.id)
    assert {one.id for one in platform.rollouts.page(None, 10)} == {started.id, young.id}
    with platform.uow.read() as tx:
        entries = tx.audit.entries(AuditQuery(action="rollout.discard"))
    assert [entry.subject for entry in entries] == [old.id]
