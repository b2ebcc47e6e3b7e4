"""What devices measure comes in over ``up/bench``: stored once, of registered files alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.services.measured import MAX_BATCHES
from schemas.device import DeviceState
from schemas.measure import BenchReport
from schemas.topics import Up
from tests.fakes.resolution import bench


@pytest.fixture
def device(platform):
    platform.models.register("digits", platform.manifest(), None)
    return platform.enroll(device_class="cam")[0]


def report(platform, p50=4.0, **more):
    values = {
        "model": "digits",
        "version": 1,
        "variant": "int8",
        "sha256": platform.manifest().variant("int8").file.sha256,
        "benchmarks": (bench(p50), bench(p50 * 20, batch=32)),
        "at": platform.clock(),
    }
    return BenchReport.model_validate({**values, **more})


def found(platform, version=1):
    with platform.uow.read() as tx:
        return tx.measured.of_version("digits", version)


def test_figures_are_kept_under_the_class_of_the_devices_record(platform, device):
    claimed = bench(4.0, device_class="server")
    platform.receive(device, Up.BENCH, report(platform, benchmarks=(claimed,)))
    (one,) = found(platform)
    assert (one.variant, one.device_class, one.device) == ("int8", "cam", device)
    assert (one.p50_ms, one.p95_ms, one.devices) == (4.0, 8.0, 1)


def test_a_repeat_and_a_late_older_report_change_nothing(platform, device):
    older = report(platform)
    platform.clock.forward(60)
    newer = report(platform, p50=5.0)
    for message in (older, newer, older, newer):
        platform.receive(device, Up.BENCH, message)
    (one,) = found(platform)
    assert (one.p50_ms, one.at, one.devices) == (5.0, newer.at, 1)


def test_a_clock_that_runs_ahead_does_not_keep_later_figures_out(platform, device):
    ahead = report(platform, at=platform.clock() + timedelta(days=3650))
    platform.receive(device, Up.BENCH, ahead)
    platform.clock.forward(60)
    platform.receive(device, Up.BENCH, report(platform, p50=5.0))
    assert [one.p50_ms for one in found(platform)] == [5.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "other"}, "there is no such version"),
        ({"version": 2}, "there is no such version"),
        ({"variant": "int4"}, "it has no such variant"),
        ({"sha256": "0" * 64}, f"not {'0' * 64}"),
    ],
)
def test_what_is_not_registered_is_dropped_with_a_line(platform, device, caplog, wrong, words):
    with caplog.at_level(logging.WARNING):
        platform.receive(device, Up.BENCH, report(platform, **wrong))
    assert words in caplog.text
    assert found(platform) == ()


def test_a_device_that_may_not_take_part_is_not_heard(platform, device, caplog):
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(device), state=DeviceState.SUSPENDED))
    platform.receive(device, Up.BENCH, report(platform))
    assert caplog.text.count("the device may not take part") == 1
    platform.receive("dev_0000000000000000", Up.BENCH, report(platform))
    with platform.uow() as tx:
        tx.devices.save(replace(tx.devices.get(device), state=DeviceState.REVOKED))
    platform.receive(device, Up.BENCH, report(platform))
    assert found(platform) == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b'{"model": "digits"}',
        b'{"model":"digits","version":1,"variant":"int8","sha256":"x","benchmarks":[],"at":0}',
    ],
)
def test_a_malformed_report_is_dropped_and_the_next_is_taken(platform, device, caplog, payload):
    platform.receive(device, Up.BENCH, payload)
    assert "malformed bench" in caplog.text
    platform.receive(device, Up.BENCH, report(platform))
    assert len(found(platform)) == 1


def test_times_that_no_clock_gives_are_malformed(platform, device, caplog):
    text = report(platform).model_dump_json()
    for figure in ("-1", "NaN", "1e300"):
        platform.receive(
            device, Up.BENCH, text.replace('"p50_ms":4.0', f'"p50_ms":{figure}').encode()
        )
    assert caplog.text.count("malformed bench") == 3
    assert found(platform) == ()


def test_a_device_fills_only_so_many_rows_of_a_file(platform, device, caplog):
    for start in range(0, 3 * MAX_BATCHES, 8):
        batches = tuple(bench(1, batch=1 + start + i) for i in range(8))
        platform.receive(device, Up.BENCH, report(platform, benchmarks=batches))
    sha256 = report(platform).sha256
    with platform.uow.read() as tx:
        assert len(tx.measured.batches(device, sha256)) == MAX_BATCHES
    assert f"more than {MAX_BATCHES} batch sizes" in caplog.text
    # What is kept already can still be renewed.
    platform.clock.forward(60)
    platform.receive(device, Up.BENCH, report(platform, p50=7.0))
    assert found(platform)[0].p50_ms == 7.0
