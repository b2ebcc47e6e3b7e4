"""The checks after a storm find what they are there to find."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.rollout import ExecState
from tests.chaos import invariants
from tests.chaos.stand import activations

ME = "dev_me"


def event(what: str, pid: int = 1, **more: Any) -> dict[str, Any]:
    return {"what": what, "pid": pid, **more}


def serves(version: int | None, pid: int = 1) -> dict[str, Any]:
    return event("serves", pid, slot=None if version is None else {"version": version})


def state(name: str, sequence: int, device: str = ME, outcome: str | None = None) -> dict[str, Any]:
    return event(
        "state", state=name, sequence=sequence, device=device, outcome=outcome, key=["exe_1", 1]
    )


@dataclass
class Puppet:
    """A device that said this of itself."""

    said: list[dict[str, Any]]
    running: bool = True
    now: int | None = 1
    pointer: int | None = 1
    windows: list[tuple[bytes, int, int]] = field(default_factory=list)
    record: ExecState = ExecState.SUCCEEDED
    late: str | None = None
    active: int | None = 1
    name: str = "puppet"
    id: str = ME

    @property
    def stand(self) -> Any:
        return SimpleNamespace(
            genuine=lambda: {"good"},
            rows=lambda query, *_: [(self.late,)] if "late" in query else self.windows,
            execution=lambda *_: SimpleNamespace(id="exe_1", attempt=1, state=self.record),
            device=lambda _: SimpleNamespace(
                active=() if self.active is None else (SimpleNamespace(version=self.active),)
            ),
        )

    def events(self) -> list[dict[str, Any]]:
        return self.said

    def serves(self) -> int | None:
        return self.now

    def points_to(self) -> int | None:
        return self.pointer

    def state(self) -> tuple[str, Any] | None:
        states = [one for one in self.said if one["what"] == "state"]
        return (states[-1]["state"], states[-1]["outcome"]) if states else None

    def tail(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("puppet", "wrong"),
    [
        (Puppet([serves(None), serves(1)]), 0),
        (Puppet([serves(1), event("starts", 2), serves(1, 2)]), 0),
        (Puppet([serves(1), event("starts", 2), serves(None, 2)]), 1),
        (Puppet([serves(1), event("starts", 2), event("state", 2)]), 1),
        (Puppet([serves(None)]), 1),
        (Puppet([serves(1)], running=False), 1),
        (Puppet([serves(1)], now=None), 1),
        (Puppet([serves(1)], now=2), 1),
    ],
)
def test_a_device_without_a_model_is_found(puppet: Any, wrong: int) -> None:
    assert len(list(invariants.always_a_model(puppet))) == wrong


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([event("loaded", sha256="good"), state("Accepted", 1), state("Accepted", 2)], 0),
        ([event("loaded", sha256="other")], 1),
        ([state("Accepted", 2), state("Accepted", 1)], 1),
        ([state("Accepted", 1, device="dev_other")], 1),
    ],
)
def test_what_is_not_genuine_is_found(said: list[dict[str, Any]], wrong: int) -> None:
    puppet: Any = Puppet(said)
    assert len(list(invariants.only_genuine(puppet))) == wrong


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [
        ([(b"\x0b", 0, 1), (b"\x0b", 1, 1)], 0),
        ([(b"\x0b", 0, 1)], 1),
        ([(b"\x0b", 0, 2), (b"\x0b", 1, 1)], 1),
    ],
)
def test_lost_and_doubled_windows_are_found(kept: list[tuple[bytes, int, int]], wrong: int) -> None:
    said = [event("acknowledged", boot="0b", seq=seq) for seq in (0, 1)]
    puppet: Any = Puppet(said, windows=kept)
    assert len(list(invariants.telemetry_arrived(puppet))) == wrong


@pytest.mark.parametrize(
    ("puppet", "wrong"),
    [
        (Puppet([state("Ended", 1, outcome="SUCCEEDED")]), 0),
        (Puppet([state("Ended", 1, outcome="FAILED")]), 1),
        (Puppet([state("Ended", 1, outcome="SUCCEEDED")], record=ExecState.DOWNLOADING), 1),
        (Puppet([state("Ended", 1, outcome="SUCCEEDED")], record=ExecState.TIMED_OUT), 1),
        (
            Puppet(
                [state("Ended", 1, outcome="SUCCEEDED")],
                record=ExecState.TIMED_OUT,
                late="SUCCEEDED",
            ),
            0,
        ),
        (Puppet([state("Downloading", 1)], record=ExecState.DOWNLOADING), 1),
        (Puppet([state("Ended", 1, outcome="SUCCEEDED")], active=2), 1),
    ],
)
def test_records_that_differ_are_found(puppet: Any, wrong: int) -> None:
    assert len(list(invariants.records_converged(puppet, ["rol_1"]))) == wrong


@pytest.mark.parametrize(
    ("happened", "wrong"),
    [
        ([("wave", 0, "PASSED"), ("wave", 1, "RUNNING"), ("execution", 1, "OFFERED")], 0),
        ([("wave", 0, "FAILED"), ("wave", 1, "RUNNING")], 1),
        ([("wave", 0, "RUNNING"), ("execution", 1, "OFFERED"), ("wave", 0, "PASSED")], 1),
        ([("execution", 1, "SCHEDULED")], 0),
    ],
)
def test_a_wave_that_began_too_early_is_found(
    happened: list[tuple[str, int, str]], wrong: int
) -> None:
    rows = [(kind, json.dumps({"wave": wave, "state": state})) for kind, wave, state in happened]
    stand: Any = SimpleNamespace(rows=lambda *_: rows)
    assert len(list(invariants.waves_in_order(stand, "rol_1"))) == wrong


def test_activations_are_counted_but_not_those_that_a_power_cut_undid() -> None:
    swap = {"what": "pointer", "before": 1, "after": 2}
    again = {"what": "pointer", "before": 2, "after": 2}
    back = {"what": "pointer", "before": 2, "after": 1}
    undone, kept = {"what": "starts", "pointer": 1}, {"what": "starts", "pointer": 2}
    assert activations([swap, kept, again], 2) == 1
    assert activations([swap, undone, swap], 2) == 1
    assert activations([swap, back], 2) == 1
    assert activations([swap, back, swap], 2) == 2
