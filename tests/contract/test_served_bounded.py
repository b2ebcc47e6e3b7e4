"""What devices of a wave infer is read in bounded parts, and says the same as all of it would."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from orchestrator.adapters import served_repository
from orchestrator.domain.judge import Served
from schemas.rollout import ExecState, RolloutSpec
from tests.contract.test_execution_sets import BEFORE, execution, stored
from tests.contract.test_repositories import milliseconds, rollout, window

MINUTE = 60_000


def a_wave(uow, devices, **gates):
    of = rollout(created_at=BEFORE, spec=RolloutSpec(model="digits", version=1, gates=gates))
    records = [execution(of, n, ExecState.SUCCEEDED) for n in range(devices)]
    return of, [one.device_id for one in stored(uow, of, records)]


def tell(tx, device, figures, start=0):
    """A window a minute from the rollout's beginning on, the newest last."""
    first = milliseconds(BEFORE) + start * MINUTE
    for seq, its in enumerate(figures):
        at = {"start_ms": first + seq * MINUTE, "received_ms": first + seq * MINUTE}
        tx.telemetry.add([window(device, start + seq, **at, **its)])


def test_whoever_infers_once_a_minute_is_seen_to_have_inferred_enough(uow, monkeypatch):
    """However few windows are read: with each there is one inference at least."""
    monkeypatch.setattr(served_repository, "_WINDOWS", 1)
    of, (rare, idle) = a_wave(uow, 2, min_inferences=20)
    one, none = {"n": 1, "errors": 0, "labelled": 0, "correct": 0}, {"n": 0, "errors": 0}
    with uow() as tx:
        # Between any two inferences it was idle for two minutes.
        tell(tx, rare, [one, {**none, "labelled": 0, "correct": 0}] * 20)
        tell(tx, idle, [one] * 19)
        found = tx.executions.served(of, 0)
    assert found == Served(devices=2, least=19, voters=1, errors=0.0)


def test_only_the_newest_windows_of_a_device_count_where_there_are_many(uow, monkeypatch):
    monkeypatch.setattr(served_repository, "_WINDOWS", 1)
    of, (device,) = a_wave(uow, 1, min_inferences=5)
    with uow() as tx:
        tell(tx, device, [{"n": 10, "errors": 10, "labelled": 0, "correct": 0}] * 30)
        tell(tx, device, [{"n": 10, "errors": 1}] * 5, start=30)
        found = tx.executions.served(of, 0)
    assert (found.least, found.voters, found.errors) == (50, 1, pytest.approx(0.1))
    assert (found.labelling, found.correct, found.labels) == (1, pytest.approx(0.9), 5)


def test_of_a_large_wave_the_same_devices_are_looked_at_each_time(uow, monkeypatch):
    monkeypatch.setattr(served_repository, "_DEVICES", 3)
    monkeypatch.setattr(served_repository, "_FEWEST", 2)
    of, devices = a_wave(uow, 8, min_inferences=1)
    with uow() as tx:
        for n, device in enumerate(devices):
            tell(tx, device, [{"n": 2**n, "errors": 0, "labelled": 0, "correct": 0}])
        first = tx.executions.served(of, 0)
        assert (first.devices, first.voters) == (3, 3)
        assert tx.executions.served(of, 0) == first


def test_a_read_takes_as_many_statements_for_many_devices_as_for_one(engine, uow):
    counted = []
    for devices in (1, 30):
        of, names = a_wave(uow, devices, min_inferences=5)
        with uow() as tx:
            for name in names:
                tell(tx, name, [{"n": 10}] * 3)
        said = []
        with uow.read() as tx:
            event.listen(engine, "before_cursor_execute", note := lambda *a: said.append(a[2]))  # noqa: B023
            assert tx.executions.served(of, 0).voters == devices
            event.remove(engine, "before_cursor_execute", note)
        counted.append(len(said))
    assert counted[0] == counted[1] <= 2


def test_a_read_takes_no_longer_where_devices_have_told_much(engine, uow, monkeypatch):
    """Where SQLite reads from the rollout's begin on, it looks for the newest at each window."""
    if engine.dialect.name != "sqlite":
        pytest.skip("only SQLite tells how many steps a statement took")
    monkeypatch.setattr(served_repository, "_WINDOWS", 1)
    steps = []
    for windows in (20, 400):
        of, (device,) = a_wave(uow, 1, min_inferences=5)
        with uow() as tx:
            tell(tx, device, [{"n": 10}] * windows)
        with engine.connect() as connection, Session(connection) as session:
            counted: list[int] = []
            driver = connection.connection.driver_connection
            driver.set_progress_handler(lambda: counted.append(1), 10)  # noqa: B023
            assert served_repository.SqlServed(session).served(of, 0).voters == 1
            driver.set_progress_handler(None, 0)
        steps.append(len(counted))
    assert steps[1] < 1.5 * steps[0] + 10
