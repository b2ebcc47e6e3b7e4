"""Experiments on every database: kept as they are, found by state, their devices' figures read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from orchestrator.adapters import experiment_repository
from orchestrator.adapters.database import differences
from orchestrator.domain.rollup import DeviceHour, Kept, Sums
from orchestrator.services.records import ExecutionRecord, ExperimentRecord, WindowRecord
from schemas.device import DeviceState
from schemas.experiment import Difference, ExperimentSpec, ExperimentState
from schemas.gates import Metric
from schemas.ids import new_id
from schemas.rollout import ExecState
from schemas.window import Window
from tests.contract.test_repositories import NOW, device, rollout

pytestmark = pytest.mark.integration

SPEC = ExperimentSpec(model="digits", a=1, b=2, baseline_seconds=600)


@pytest.fixture
def experiment(uow):
    """One with two devices in each arm, of which one of b serves nothing yet."""
    arms = [rollout(), rollout()]
    record = ExperimentRecord(
        id=new_id("exp"),
        spec=SPEC,
        model="digits",
        state=ExperimentState.RUNNING,
        rollout_a=arms[0].id,
        rollout_b=arms[1].id,
        requested_by="admin:key",
        created_at=NOW,
    )
    states = [
        ExecState.SUCCEEDED,
        ExecState.ALREADY_INSTALLED,
        ExecState.SUCCEEDED,
        ExecState.OFFERED,
    ]
    devices = [device(state=DeviceState.ACTIVE) for _ in states]
    with uow() as tx:
        for one in devices:
            tx.devices.add(one)
        for number, arm in enumerate(arms):
            its = slice(2 * number, 2 * number + 2)
            pairs = zip(devices[its], states[its], strict=True)
            made = [execution(arm, one, state) for one, state in pairs]
            tx.rollouts.add(arm, (), made)
        tx.experiments.add(record)
    return record, [one.id for one in devices]


def execution(arm, one, state):
    return ExecutionRecord(
        id=new_id("exe"), rollout_id=arm.id, device_id=one.id, wave=0, state=state, updated_at=NOW
    )


def window(device_id, seq, version, seconds, **figures):
    start = round(NOW.timestamp() * 1000) + seconds * 1000
    counted = Window(about=0, seq=seq, start_ms=start, synced=True, length_ms=1000, **figures)
    return WindowRecord(
        device_id=device_id, boot=b"b" * 16, seq=seq, model="digits", version=version,
        variant="int8", role="active", start_ms=start, received_ms=start, n=counted.n,
        errors=counted.errors, lost=0, labelled=0, correct=0,
        body=msgspec.msgpack.encode(Kept(counted)),
    )  # fmt: skip


def test_an_experiment_is_kept_whole_and_found_by_its_state(uow, engine, experiment):
    record, _ = experiment
    shown = Difference(metric=Metric.RSS, value=1.5, low=1.25, high=2.0, better="a", words="b …")
    ended = replace(
        record, state=ExperimentState.STOPPED, kept="a", kept_rollout=record.rollout_a,
        differences=(shown,), notes=("half",), reason="by me", ended_at=NOW,
    )  # fmt: skip
    with uow() as tx:
        assert tx.experiments.in_state({ExperimentState.RUNNING}, "digits") == [record]
        assert tx.experiments.in_state({ExperimentState.RUNNING}, "other") == []
        tx.experiments.save(ended)
    with uow.read() as tx:
        assert tx.experiments.get(record.id) == ended
        assert tx.experiments.page(None, 5) == [ended]
        assert tx.experiments.page(record.id, 5) == []
        assert tx.experiments.in_state({ExperimentState.RUNNING}) == []
    assert differences(engine) == []


def test_its_devices_are_counted_and_named(uow, experiment):
    record, devices = experiment
    with uow.read() as tx:
        assert tx.experiments.members(record.rollout_b) == frozenset(devices[2:])
        head = tx.experiments.head(record.rollout_b)
        assert (head.devices, head.serving) == (2, 1)


def test_each_window_counts_in_its_span_once(uow, experiment, monkeypatch):
    record, (one, other, third, idle) = experiment
    hour = round(NOW.timestamp()) // 3600
    left = (hour + 1) * 3600 - round(NOW.timestamp())
    with uow() as tx:
        tx.telemetry.add(
            [
                window(one, 0, 7, -601, n=1),  # before the past
                window(one, 1, 7, -600, n=10, errors=2),
                window(one, 2, 7, 0, n=100),  # another version: it had not switched yet
                window(one, 3, 1, left - 1, n=1000, rss_mib=5),
                window(one, 4, 1, left, n=10_000),  # is in the hour below
                window(other, 0, 1, -1, n=20),
                window(third, 0, 1, 5, n=30),  # of arm b, with the version of a
                window(idle, 0, 2, 5, n=40),
            ]
        )
        for n in range(1, 4):
            key = DeviceHour("digits", 1, hour + n, one, "active", "int8")
            tx.telemetry.keep({key: Sums(windows=1, n=10**4 * n, confidence=[1])}, {})
    with uow.read() as tx:
        seen = tx.experiments.observed(record, NOW + timedelta(hours=4))
        monkeypatch.setattr(experiment_repository, "HOURS", 4)
        coarse = tx.experiments.observed(record, NOW + timedelta(hours=4))
    first, second = sorted(seen.arms["a"], key=lambda figures: figures.device != one)
    assert (first.pre.n, first.pre.errors) == (10, 2)
    assert (first.post.n, first.post.rss_mib) == (1000 + 60_000, 5)
    assert first.post.confidence[0] == 3
    assert (second.pre.n, second.post) == (20, None)
    assert [(figures.device, figures.post) for figures in seen.arms["b"]] == [(third, None)]
    assert seen.notes == ()
    thinned = next(figures for figures in coarse.arms["a"] if figures.device == one)
    assert 1000 < thinned.post.n < 61_000
    assert any("one in" in note for note in coarse.notes)
