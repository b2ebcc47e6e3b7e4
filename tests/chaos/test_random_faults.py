"""Faults drawn by a seed, while a good version and then a bad one go to a fleet.

    pytest tests/chaos --seed 17

does again what failed as seed 17: the faults, their times and their victims follow from the
seed alone. What the machine makes of the same times may differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.client.errors import ArgosyError
from schemas.rollout import RolloutSpec, RolloutState
from schemas.rollout_view import RolloutView
from tests.chaos import invariants
from tests.chaos.faults import Storm
from tests.chaos.proxy import FAIR
from tests.chaos.schedule import draw
from tests.chaos.stand import MODEL, Puppet, Stand, bad_model, good_model, wait

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEVICES = 3
STORM_SECONDS = 12.0
QUIET_SECONDS = 60.0
SETTLED = {RolloutState.SUCCEEDED, RolloutState.PAUSED, RolloutState.ABORTED}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The one seed of --seed; else one that CI runs and some more."""
    if "seed" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--seed", default=None)
        many = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 22)]
        metafunc.parametrize("seed", [asked] if asked is not None else [1, *many])


class Operator:
    """Rolls a good version out, then a bad one, whatever is away meanwhile."""

    def __init__(self, stand: Stand, tag: str, good: int, bad: int) -> None:
        self._stand, self._tag, self._left = stand, tag, [good, bad]
        self._every = itertools.count()
        self.rollouts: list[str] = []

    def act(self) -> None:
        """Look now and then; start the next one when the last is over."""
        if next(self._every) % 25 == 0:
            try:
                if self.settled and self._left:
                    self._start(self._left[0])
                    self._left.pop(0)
            except (ArgosyError, httpx.HTTPError):
                return  # the server is away: the next look may find it

    @property
    def last(self) -> RolloutView | None:
        return self._stand.argosy.rollouts.get(self.rollouts[-1]) if self.rollouts else None

    @property
    def settled(self) -> bool:
        last = self.last
        return last is None or last.state in SETTLED

    @property
    def done(self) -> bool:
        return not self._left and self.settled

    def _start(self, version: int) -> None:
        spec = RolloutSpec.model_validate(
            {
                "model": MODEL,
                "version": version,
                "tags": [self._tag],
                "waves": [{"count": 1}, {"percent": 100}],
                "gates": {
                    # Of the good one nothing may stop the fleet; of the bad one anything does.
                    "max_failure_rate": 1.0 if len(self._left) > 1 else 0.1,
                    "max_error_rate": 1.0,
                    "min_inferences": 1,
                    "soak_seconds": 0,
                    "evidence_seconds": 5,
                },
                "offer_seconds": 20,
                "step_seconds": 20,
                "straggler_seconds": 20,
            }
        )
        made = self._stand.argosy.rollouts.create(spec).id
        self.rollouts.append(made)
        self._stand.argosy.rollouts.start(made)


@pytest.fixture(scope="module")
def versions(stand: Stand) -> list[int]:
    """The first, a good one and a bad one."""
    return [stand.register(made) for made in (good_model(1), good_model(2), bad_model(3))]


@pytest.fixture
def fleet(
    stand: Stand, versions: list[int], durable: Path, seed: int
) -> Iterator[tuple[str, list[Puppet]]]:
    """Devices of their own for each seed, which serve the first version."""
    tag = f"seed-{seed}"
    puppets = [
        Puppet.enroll(stand, f"s{seed}-d{number}", durable, tag) for number in range(DEVICES)
    ]
    try:
        for puppet in puppets:
            puppet.start()
        spec = RolloutSpec.model_validate(
            {
                "model": MODEL,
                "version": versions[0],
                "tags": [tag],
                "waves": [{"percent": 100}],
                "gates": {"min_inferences": 1, "soak_seconds": 0},
            }
        )
        first = stand.argosy.rollouts.create(spec).id
        stand.argosy.rollouts.start(first)
        assert wait(lambda: stand.argosy.rollouts.get(first).state is RolloutState.SUCCEEDED, 60)
        yield tag, puppets
    finally:
        for puppet in puppets:
            puppet.kill()


def calm(storm: Storm) -> None:
    """All faults are over: what was killed runs again, and every line is fair."""
    for part in ("broker", "server"):
        if part not in storm.stand.running:
            storm.stand.begin(part)
        storm.stand.ready(part)
    for puppet in storm.puppets:
        puppet.disk.full.unlink(missing_ok=True)
        puppet.line.set(FAIR)
    supervise(storm)


def supervise(storm: Storm) -> None:
    """Start agents that have ended, as systemd does: one whose journal is whole again has."""
    for puppet in storm.puppets:
        if not puppet.running:
            puppet.start()


def wrong(storm: Storm, operator: Operator) -> list[str]:
    """Everything that does not hold."""
    found: list[str] = []
    if not operator.done:
        found.append(f"the rollouts are not over: {operator.last}")
    for puppet in storm.puppets:
        found += invariants.always_a_model(puppet)
        found += invariants.only_genuine(puppet)
        found += invariants.telemetry_arrived(puppet)
        found += invariants.records_converged(puppet, operator.rollouts)
    for rollout in operator.rollouts:
        found += invariants.waves_in_order(storm.stand, rollout)
    return found


def test_after_any_storm_everything_holds(
    stand: Stand, versions: list[int], fleet: tuple[str, list[Puppet]], seed: int
) -> None:
    tag, puppets = fleet
    storm = Storm(stand, puppets, draw(seed, devices=DEVICES, seconds=STORM_SECONDS))
    operator = Operator(stand, tag, versions[1], versions[2])
    storm.run(operator.act)
    calm(storm)

    def quiet() -> bool:
        supervise(storm)
        operator.act()
        return operator.done and not wrong(storm, operator)

    wait(quiet, QUIET_SECONDS, every=0.1)
    found = wrong(storm, operator)
    if found:
        pytest.fail(
            "\n".join(
                [
                    f"do it again with: pytest tests/chaos --seed {seed}",
                    *found,
                    "what was done:",
                    *storm.diary,
                    *(f"--- {puppet.name}\n{puppet.tail()}" for puppet in puppets),
                ]
            )
        )
