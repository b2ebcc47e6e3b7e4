"""Every state of an update with every fault in it: each pair is a test of its own.

Eleven devices go through an update at once. Each stops in a state of its own, right after that
state is in the journal; then the fault happens to all of them; then they go on. So a fault costs
one update, and its row of the table is eleven devices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas.rollout import EXEC_TERMINAL, ExecState
from tests.chaos.stand import (
    Puppet,
    Stand,
    activations,
    bad_model,
    good_model,
    wait,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STATES = {
    "accepted": "Accepted",
    "deferred": "Deferred",
    "downloading": "Downloading",
    "verified": "Verified",
    "staged": "Staged",
    "waiting": "Waiting",
    "shadowing": "Shadowing",
    "activating": "Activating",
    "probation": "OnProbation",
    "reverting": "Reverting",
    "succeeded": "Ended",
}
"""By the name in the table: the class of the state in the device's journal."""

AT_ONCE = {
    "staged": "Shadowing:before",
    "activating": "OnProbation:before",
    "reverting": "Ended:before",
}
"""States whose work is done as soon as it is begun: it is done there, and not yet journalled."""

SHADOW = {"seconds": 0.2, "min_compared": 1, "max_seconds": 5, "min_agreement": None}
"""So that each update goes through that state, and none fails in it: versions differ here."""

FAULTS = ("sigkill", "power_cut", "broker_restart", "orchestrator_restart")
JITTER = {"jitter_seconds": 0.5}
"""So that each update waits before its download."""

WORD = {"urgency": "download_only"}
ROLES = {"reverting": "bad", "waiting": "word"}
"""What a device gets: a version that fails, one that waits for a word, else a good one."""
REACH, CONVERGE = 60, 120


def point(name: str, where: str) -> str:
    """Where a device stops (see puppet.py): a download in the middle."""
    if where == "done":
        return AT_ONCE.get(name, f"{STATES[name]}:done")
    return f"{STATES[name]}:{5 if (name, where) == ('downloading', 'after') else where}"


def role(puppet: Puppet) -> str:
    return ROLES.get(puppet.name, "good")


@dataclass
class Cell:
    """What became of one device after a fault."""

    puppet: Puppet
    old: int
    new: int
    point: str
    reached: bool
    record: Any
    events: list[dict[str, Any]]

    @property
    def wanted(self) -> ExecState:
        return ExecState.ROLLED_BACK if role(self.puppet) == "bad" else ExecState.SUCCEEDED

    @property
    def version(self) -> int:
        return self.old if role(self.puppet) == "bad" else self.new


@dataclass
class Table:
    """A platform with a device for each state, all on the first version."""

    stand: Stand
    puppets: dict[str, Puppet]
    bad: int
    seed: int

    def next_version(self) -> int:
        self.seed += 1
        return self.stand.register(good_model(self.seed))

    def row(self, fault: str, where: str) -> dict[str, Cell]:
        """One update of all devices, with one fault in the middle."""
        version = self.next_version()
        begun = time.time()
        before = {name: p.points_to() or 0 for name, p in self.puppets.items()}
        for name, puppet in self.puppets.items():
            puppet.stop_at(point(name, where))
        rollouts = {
            "good": self.stand.roll_out(version, "good", shadow=SHADOW, pace=JITTER),
            "word": self.stand.roll_out(version, "word", mode=WORD),
            "bad": self.stand.roll_out(self.bad, "bad"),
        }
        wait(lambda: all(p.stopped() for p in self.puppets.values()), REACH)
        reached = {name: p.stopped() for name, p in self.puppets.items()}
        self.strike(fault)
        cells = {}
        for name, puppet in self.puppets.items():
            record = self.converged(puppet, rollouts[role(puppet)])
            new = self.bad if role(puppet) == "bad" else version
            events = puppet.events(begun)
            at = point(name, where)
            cells[name] = Cell(puppet, before[name], new, at, reached[name], record, events)
        return cells

    def strike(self, fault: str) -> None:
        puppets = self.puppets.values()
        for puppet in puppets:
            puppet.order.unlink(missing_ok=True)
        match fault:
            case "sigkill":
                for puppet in puppets:
                    puppet.kill()
                    puppet.start()
            case "power_cut":
                for puppet in puppets:
                    puppet.cut_power()
                    puppet.start()
            case "broker_restart" | "orchestrator_restart":
                part = "broker" if fault == "broker_restart" else "server"
                self.stand.kill(part)
                for puppet in puppets:
                    puppet.go_on()
                self.stand.begin(part)
                self.stand.ready(part)
            case _:
                raise AssertionError(fault)

    def converged(self, puppet: Puppet, rollout: str) -> Any:
        """The server's record once it is over, and the device too; or as it is after a while."""
        told = False

        def over() -> bool:
            nonlocal told
            state = puppet.state()
            if state == ("Waiting", None) and not told:
                self.stand.activate(rollout)
                told = True
            record = self.stand.execution(rollout, puppet.id)
            device = self.stand.device(puppet.id)
            return (
                record.state in EXEC_TERMINAL
                and state is not None
                and state[0] == "Ended"
                and [one.version for one in device.active] == [puppet.points_to()]
            )

        wait(over, CONVERGE, every=0.2)
        return self.stand.execution(rollout, puppet.id)


@pytest.fixture(scope="module")
def table(stand: Stand, durable: Path) -> Iterator[Table]:
    first = stand.register(good_model(100))
    puppets = {
        name: Puppet.enroll(stand, name, durable, "all", ROLES.get(name, "good")) for name in STATES
    }
    table = Table(stand, puppets, stand.register(bad_model(1000)), seed=100)
    try:
        for puppet in puppets.values():
            puppet.start()
        rollout = stand.roll_out(first, "all")
        for puppet in puppets.values():
            record = table.converged(puppet, rollout)
            assert record.state is ExecState.SUCCEEDED, (record, puppet.tail())
        yield table
    finally:
        for puppet in puppets.values():
            puppet.kill()


@pytest.fixture(scope="module")
def row(request: pytest.FixtureRequest, table: Table) -> dict[str, Cell]:
    fault, where = request.param
    return table.row(fault, where)


def check(cell: Cell) -> None:
    puppet, stand = cell.puppet, cell.puppet.stand
    assert cell.reached, f"it was not stopped at {cell.point}: {puppet.tail()}"
    stops = [f"{e['state']}:{e['where']}" for e in cell.events if e["what"] == "stopped"]
    assert stops == [cell.point]
    # A verified model serves, and never was there none.
    serving = [e["slot"] for e in cell.events if e["what"] == "serves"]
    assert None not in serving
    assert puppet.running, puppet.tail()
    assert puppet.serves() == puppet.points_to() == cell.version, puppet.tail()
    loaded = {e["sha256"] for e in cell.events if e["what"] == "loaded"}
    assert loaded <= stand.genuine()
    # The server knows what the device did.
    assert puppet.state() == ("Ended", cell.wanted.value), puppet.tail()
    assert cell.record.state is cell.wanted, (cell.record, puppet.tail())
    active = stand.device(puppet.id).active
    assert [one.version for one in active] == [cell.version]
    # It was done once.
    assert activations(cell.events, cell.new) == 1, cell.events


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("row", [(fault, "after") for fault in FAULTS], indirect=True, ids=FAULTS)
def test_an_update_survives(row: dict[str, Cell], state: str) -> None:
    check(row[state])


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "row",
    [(fault, where) for fault in FAULTS for where in ("before", "done")],
    indirect=True,
    ids="-".join,
)
def test_an_update_survives_elsewhere_in_a_state(row: dict[str, Cell], state: str) -> None:
    check(row[state])
