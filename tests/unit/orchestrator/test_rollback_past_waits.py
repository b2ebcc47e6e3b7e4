"""A rollback gets through to a device that waits for another model; that is offered again later."""

from __future__ import annotations

import pytest

from orchestrator.adapters.unit_of_work import make_engine
from orchestrator.domain.acts import Act
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, RolloutState
from tests.unit.orchestrator import platform as harness
from tests.unit.orchestrator.test_rolling_back import (
    executions,
    only_rollback,
    reach,
    serves,
    start,
    through,
)

S = ExecState
NEVER = {"cron": "0 3 29 2 1", "minutes": 1}


@pytest.fixture(params=["sqlite", "postgresql"])
def waiting(request, tmp_path, monkeypatch):
    """A platform, a device of digits@2 that waits with faces@1 staged, and the two rollouts."""
    if request.param == "postgresql":
        url = request.getfixturevalue("migrated_postgres_url")
        (tmp_path / "argosy.db").touch()
        monkeypatch.setattr(harness, "make_engine", lambda _url: make_engine(url))
    platform = harness.Platform(tmp_path)
    for content in (b"one", b"two"):
        platform.models.register("digits", platform.manifest(content=content), None)
    faces = platform.manifest(content=b"faces").model_copy(update={"model": "faces"})
    platform.models.register("faces", faces, None)
    (device,) = platform.enroll()
    platform.birth(device)
    through(platform, start(platform, 1))
    bad = start(platform, 2)
    through(platform, bad)
    other = start(platform, 1, model="faces", windows=[NEVER])
    reach(platform, executions(platform, other)[device], S.STAGED)
    return platform, device, bad, other


def test_a_device_that_waits_for_another_models_window_is_led_back_now(waiting):
    platform, device, bad, other = waiting
    before = executions(platform, other)[device]
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    back = only_rollback(platform, bad)
    assert executions(platform, back.id)[device].state is S.OFFERED
    aside = executions(platform, other)[device]
    assert (aside.state, aside.attempt) == (S.SCHEDULED, 2)
    assert aside.detail == f"set aside for the rollback {back.id}"
    # The device says that it gave it up for the newer offer: no failure of that version.
    cause = DeviceCause.SUPERSEDED
    platform.report(device, before.id, 9, S.FAILED, cause=cause)
    through(platform, back.id)
    assert (serves(platform, device), platform.rollouts.get(bad).state) == (
        1,
        RolloutState.ROLLED_BACK,
    )
    platform.tick()
    again = executions(platform, other)[device]
    assert (again.state, again.attempt) == (S.OFFERED, 2)


def test_what_was_told_to_go_on_is_waited_for(waiting):
    platform, device, bad, other = waiting
    platform.rollouts.operate(other, Act.ACTIVATE)
    platform.engine.tick()
    platform.rollouts.operate(bad, Act.ROLLBACK)
    platform.tick()
    back = only_rollback(platform, bad)
    execution = executions(platform, back.id)[device]
    assert (execution.state, execution.waits_for) == (S.SCHEDULED, other)


def test_a_rollout_that_takes_nothing_back_waits_as_before(waiting):
    platform, device, _, other = waiting
    third = platform.manifest(content=b"three")
    platform.models.register("digits", third, None)
    newer = start(platform, 3)
    execution = executions(platform, newer)[device]
    assert (execution.state, execution.waits_for) == (S.SCHEDULED, other)
    assert executions(platform, other)[device].state is S.STAGED
