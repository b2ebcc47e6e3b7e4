"""Operators' acts before real agents: shipped, staged, led back, revoked, joined; also killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import psutil
import pytest

from orchestrator.client import Argosy
from schemas.device import DeviceView, Presence
from schemas.device_why import Hindrance, ModelWhy, Origin
from schemas.rollout import ExecState, RolloutState
from schemas.rollout_view import ExecutionView, RolloutView
from tests.fakes.edge_models import linear_onnx
from tests.fakes.gateway import Device, mosquitto_path
from tests.fakes.mixed_fleet import MODEL, MixedFleet, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]

S = ExecState
ALL = [{"percent": 100}]
QUICK = {"telemetry": [], "min_inferences": 1, "soak_seconds": 0}
LONG = QUICK | {"soak_seconds": 3600}
PROVEN_SOON = {"min_inferences": 1, "max_latency_ratio": None}
NEVER_PROVEN = PROVEN_SOON | {"min_inferences": 1_000_000, "max_seconds": 3600}
SECONDS = 60

_seeds = count(1)


class Fleet(MixedFleet):
    """Agents that serve one version, and what is done to them."""

    @property
    def names(self) -> set[str]:
        return {one.id for one in self.agents}

    def new_version(self) -> int:
        return self.register(linear_onnx(1, padding=100 * next(_seeds)))

    def ship(self, version: int, **spec: object) -> str:
        wanted = {"waves": ALL, "gates": QUICK, "probation": PROVEN_SOON} | spec
        return self.roll_out(version, **wanted)

    def shipped(self, version: int, **spec: object) -> RolloutView:
        view = self.ended(self.ship(version, **spec), SECONDS)
        assert view.state is RolloutState.SUCCEEDED, (view.reason, view.waves)
        self.all_serve(version)
        return view

    def base(self) -> int:
        """A version that all serve; shipped where they do not agree."""
        serving = self.serving()
        if set(serving) <= {None} or len(serving) > 1:
            version = self.new_version()
            self.shipped(version)
            return version
        return next(iter(serving))

    def all_serve(self, version: int) -> None:
        until(lambda: self.serving() == {version: self.count}, f"version {version}", SECONDS)

    def executions(self, rollout: str) -> dict[str, ExecutionView]:
        return {one.device: one for one in self.argosy.rollouts.devices(rollout)}

    def all_are(self, rollout: str, state: ExecState) -> None:
        def found() -> bool:
            return {one.state for one in self.executions(rollout).values()} == {state}

        until(found, f"{state} everywhere", SECONDS)

    def all_wait(self, rollout: str) -> None:
        """Staged, and the server says that it waits."""

        def found() -> bool:
            progress = self.argosy.rollouts.get(rollout).waves[0].progress
            return progress.states == {S.STAGED: self.count} and progress.waiting == self.count

        until(found, "all to be staged and to wait", SECONDS)

    def why(self, device: str) -> ModelWhy:
        return next(one for one in self.argosy.devices.why(device).models if one.model == MODEL)

    def devices(self) -> list[DeviceView]:
        return list(self.argosy.devices.list())

    def kill_server(self) -> None:
        with suppress(psutil.Error):
            self.site.server().kill()

    def is_led_back(self, children: tuple[RolloutView, ...], base: int, away: int) -> set[str]:
        """Every agent serves what it served before, and not a byte was fetched for it.

        Returns:
            Who was led back: whoever had switched.
        """
        self.all_serve(base)
        for child in children:
            assert child.takes_back == away
            view = self.ended(child.id, SECONDS)
            assert view.state is RolloutState.SUCCEEDED, view.reason
        ended = [one for child in children for one in self.argosy.rollouts.devices(child.id)]
        led = {one.device for one in ended}
        assert led
        assert {one.state for one in ended} == {S.SUCCEEDED}
        # Of one that had it in its memory still there is no figure at all.
        assert {one.bytes_fetched for one in ended} <= {0, None}
        for device in self.devices():
            why = self.why(device.id)
            assert why.version == base, why
            assert (why.origin is Origin.ROLLBACK) == (device.id in led), why
            assert (why.rollout in {one.id for one in children}) == (device.id in led)
            assert [one.version for one in device.desired] == [base]
            assert device.drifted_at is None
            assert not device.rolled_back
        return led


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("acts"), real=3, simulated=0, versions=[])
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def edge(device: Device, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_client", *words, "--home", str(device.home.root)],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def rolled_back(fleet: Fleet, rollout: str) -> tuple[RolloutView, ...]:
    """Its rollbacks, once it is over."""
    view = fleet.ended(rollout, SECONDS)
    assert (view.state, view.left) == (RolloutState.ROLLED_BACK, {}), (view.reason, view.left)
    return tuple(fleet.argosy.rollouts.get(one) for one in view.rollbacks)


def gone(fleet: Fleet, agent: Device) -> bool:
    return fleet.argosy.devices.get(agent.id).presence is Presence.OFFLINE


def revoked(argosy: Argosy, version: int) -> tuple[RolloutView, ...]:
    """The rollbacks of a version that was revoked."""

    def found() -> tuple[RolloutView, ...]:
        views = argosy.rollouts.list()
        return tuple(v for v in views if v.takes_back == version and v.rollback_of is None)

    return until(found, "a rollback of the revoked version", SECONDS)


def is_told(fleet: Fleet, rollout: str, away: int) -> None:
    """Each agent's explanation says that the version was taken back, and why."""
    for agent in fleet.agents:
        (missing,) = fleet.why(agent.id).missing
        assert (missing.version, missing.rollout) == (away, rollout)
        assert missing.code is Hindrance.TAKEN_BACK, missing
        assert "misses the left lane" in missing.text


def test_a_promoted_rollout_is_rolled_back(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    waves = [{"count": 1}, {"count": 1}, {"percent": 100}]
    rollout = fleet.ship(new, waves=waves, gates=LONG)
    until(lambda: fleet.serving() == {base: fleet.count - 1, new: 1}, "the first wave", SECONDS)
    fleet.argosy.rollouts.promote(rollout)
    until(lambda: fleet.serving() == {base: fleet.count - 2, new: 2}, "the second wave", SECONDS)
    fleet.argosy.rollouts.promote(rollout)
    fleet.all_are(rollout, S.SUCCEEDED)  # and soaks on
    fleet.argosy.rollouts.rollback(rollout, reason="misses the left lane")
    assert fleet.is_led_back(rolled_back(fleet, rollout), base, new) == fleet.names
    is_told(fleet, rollout, new)


def test_a_rollback_is_carried_through_by_a_server_that_is_killed(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    rollout = fleet.ship(new, gates=LONG)
    until(lambda: fleet.serving().get(new), "the first to have switched", SECONDS)
    fleet.argosy.rollouts.rollback(rollout, reason="misses the left lane")
    fleet.kill_server()
    until(lambda: fleet.argosy.rollouts.get(rollout).rollbacks, "its rollback", SECONDS)
    fleet.kill_server()
    assert fleet.is_led_back(rolled_back(fleet, rollout), base, new) <= fleet.names


def test_a_rollback_during_probation_needs_no_byte(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    rollout = fleet.ship(new, probation=NEVER_PROVEN)
    fleet.all_are(rollout, S.PROBATION)
    fleet.argosy.rollouts.rollback(rollout, reason="misses the left lane")
    assert fleet.is_led_back(rolled_back(fleet, rollout), base, new) == fleet.names
    is_told(fleet, rollout, new)


def test_what_is_staged_is_activated_and_revoked_also_where_agents_are_killed(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    rollout = fleet.ship(new, mode={"urgency": "download_only"})
    fleet.all_wait(rollout)
    first, second, third = fleet.agents
    for agent in fleet.agents:
        (missing,) = fleet.why(agent.id).missing
        assert (missing.version, missing.code) == (new, Hindrance.WAITS_FOR_WORD)
    fetched = {one.device: one.bytes_fetched for one in fleet.executions(rollout).values()}
    assert all(fetched.values())
    first.kill()
    first.start()
    second.kill()
    assert fleet.serving() == {base: fleet.count}
    fleet.argosy.rollouts.activate(rollout)
    second.start()
    assert fleet.ended(rollout, SECONDS).state is RolloutState.SUCCEEDED
    fleet.all_serve(new)
    done = fleet.executions(rollout).values()
    assert {one.device: one.bytes_fetched for one in done} == fetched
    assert {one.attempt for one in done} == {1}

    third.kill()
    until(lambda: gone(fleet, third), "its end", SECONDS)
    fleet.argosy.models.revoke(MODEL, new, "mislabelled", rollback=True)
    children = revoked(fleet.argosy, new)
    until(lambda: fleet.serving() == {base: 2, new: 1}, "those that are there", SECONDS)
    third.start()
    assert fleet.is_led_back(children, base, new) == fleet.names
    assert fleet.argosy.rollouts.get(rollout).state is RolloutState.SUCCEEDED
    for agent in fleet.agents:
        why = fleet.why(agent.id)
        assert f"took back {MODEL}@{new}, which was revoked" in why.text
        assert new not in {one.version for one in why.missing}


def test_one_is_put_off_one_goes_on_by_itself_and_activation_takes_all(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    opens = datetime.now(UTC) + timedelta(hours=1)
    window = {"cron": f"{opens.minute} {opens.hour} * * *", "minutes": 360}
    rollout = fleet.ship(
        new, mode={"urgency": "soft"}, windows=[window], max_deferral_seconds=5 * 3600
    )
    fleet.all_wait(rollout)
    first, second, third = fleet.agents
    later = datetime.now(UTC) + timedelta(hours=2)
    edge(first, "defer", "--for", "2h")
    until(lambda: fleet.executions(rollout)[first.id].waits_until >= later, "a later time", 20)
    assert fleet.executions(rollout)[third.id].waits_until < later
    (put_off,), (waits,) = fleet.why(first.id).missing, fleet.why(third.id).missing
    assert (put_off.code, waits.code) == (Hindrance.DEFERRED, Hindrance.WINDOW)
    assert "put off by hand" in put_off.text
    edge(second, "proceed")
    until(lambda: fleet.serving() == {base: 2, new: 1}, "one to switch", SECONDS)
    fleet.argosy.rollouts.activate(rollout)
    assert fleet.ended(rollout, SECONDS).state is RolloutState.SUCCEEDED
    fleet.all_serve(new)


def test_who_enrolls_later_joins_a_dynamic_rollout_and_is_led_back_with_it(fleet: Fleet) -> None:
    base, new = fleet.base(), fleet.new_version()
    rollout = fleet.ship(new, dynamic=True)
    fleet.all_are(rollout, S.SUCCEEDED)
    late = fleet.add_agent()
    fleet.all_serve(new)
    fleet.all_are(rollout, S.SUCCEEDED)
    assert fleet.why(late.id).rollout == rollout
    # In a wave of joiners; or of stragglers, where it took long until it was there.
    assert fleet.argosy.rollouts.get(rollout).waves[1].joiners
    assert fleet.executions(rollout)[late.id].wave > 0
    fleet.argosy.rollouts.rollback(rollout)
    view = fleet.ended(rollout, SECONDS)
    assert (view.state, view.left) == (RolloutState.ROLLED_BACK, {"nothing to go back to": 1})
    until(lambda: fleet.serving() == {base: 3, new: 1}, "what they served before", SECONDS)
