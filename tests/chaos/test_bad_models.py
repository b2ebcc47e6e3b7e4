"""A bad model is got rid of by the device alone, with the network cut.

Five devices get five bad models. Each loses the network when the files are whole, and is watched:
it must come back to the model before by itself. Then the network returns, and the server hears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.errors import DeviceCause
from schemas.rollout import EXEC_TERMINAL, ExecState
from tests.chaos.proxy import FAIR, Weather
from tests.chaos.stand import Puppet, Stand, bad_model, good_model, wait
from tests.fakes.edge_models import linear_onnx, slow_onnx, unloadable_onnx

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

S = ExecState
SECONDS = 60
FIRST = 500
MAKE: dict[str, Callable[[Stand], int]] = {
    "wrong golden vectors": lambda s: s.register(linear_onnx(501), promises=linear_onnx(502)),
    "crashes at load": lambda s: s.register(unloadable_onnx(503), promises=linear_onnx(503)),
    "crashes when asked": lambda s: s.register(good_model(504)),
    "slow after activation": lambda s: s.register(slow_onnx(505, depth=250)),
    "fails after activation": lambda s: s.register(bad_model(506)),
}
ENDS = {
    "wrong golden vectors": (S.FAILED, DeviceCause.GOLDEN_MISMATCH),
    "crashes at load": (S.FAILED, DeviceCause.LOAD_FAILED),
    "crashes when asked": (S.ROLLED_BACK, DeviceCause.BOOT_LOOP),
    "slow after activation": (S.ROLLED_BACK, DeviceCause.TOO_SLOW),
    "fails after activation": (S.ROLLED_BACK, DeviceCause.PROBATION_FAILED),
}


@dataclass
class Patient:
    """A device with a bad model. alone: how it ended before the network came back."""

    puppet: Puppet
    first: int
    bad: int
    rollout: str
    alone: tuple[str, object] | None = None


@pytest.fixture(scope="module")
def patients(stand: Stand, durable: Path) -> Iterator[dict[str, Patient]]:
    first = stand.register(good_model(FIRST))
    bad = {name: make(stand) for name, make in MAKE.items()}
    puppets = {
        name: Puppet.enroll(stand, name.replace(" ", "-"), durable, "bad", name.replace(" ", "-"))
        for name in MAKE
    }
    try:
        for puppet in puppets.values():
            puppet.start()
        rollout = stand.roll_out(first, "bad")
        ids = [puppet.id for puppet in puppets.values()]
        assert wait(
            lambda: all(stand.execution(rollout, one).state is S.SUCCEEDED for one in ids), SECONDS
        )
        yield _ill(stand, puppets, first, bad)
    finally:
        for puppet in puppets.values():
            puppet.kill()


def _ill(
    stand: Stand, puppets: dict[str, Puppet], first: int, bad: dict[str, int]
) -> dict[str, Patient]:
    found = {}
    for name, puppet in puppets.items():
        puppet.stop_at("Verified:after")
        if name == "crashes when asked":
            puppet.crash_with(bad[name])
        rollout = stand.roll_out(bad[name], name.replace(" ", "-"))
        found[name] = Patient(puppet, first, bad[name], rollout)
    wait(lambda: all(p.stopped() for p in puppets.values()), SECONDS)
    for puppet in puppets.values():
        puppet.line.set(Weather(refuse=True))
        puppet.go_on()

    def over() -> bool:
        for puppet in puppets.values():
            if not puppet.running:
                puppet.start()  # as a service manager does
        return all(p.state() is not None and p.state()[0] == "Ended" for p in puppets.values())

    wait(over, SECONDS, every=0.2)
    for patient in found.values():
        patient.alone = patient.puppet.state()
        patient.puppet.line.set(FAIR)
    return found


@pytest.mark.parametrize("name", MAKE)
def test_a_device_gets_rid_of_it_alone(
    stand: Stand, patients: dict[str, Patient], name: str
) -> None:
    patient, (end, cause) = patients[name], ENDS[name]
    puppet = patient.puppet
    assert patient.alone == ("Ended", end.value), puppet.tail()
    assert puppet.running
    assert puppet.serves() == puppet.points_to() == patient.first, puppet.tail()
    crashes = [event for event in puppet.events() if event["what"] == "crashed"]
    assert bool(crashes) == (name == "crashes when asked")
    assert len(crashes) <= 4

    def heard() -> bool:
        return stand.execution(patient.rollout, puppet.id).state in EXEC_TERMINAL

    assert wait(heard, SECONDS), puppet.tail()
    record = stand.execution(patient.rollout, puppet.id)
    assert record.state is end
    assert record.cause is cause, record
    assert [one.version for one in stand.device(puppet.id).active] == [patient.first]
