"""Device classes and measured figures, whatever the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters import device_class_repository
from orchestrator.services.records import DeviceClassRecord, MeasuredRecord, VersionRecord
from schemas.budget import Budget, DeviceClassSpec
from schemas.device import DeviceState
from schemas.ids import new_id
from schemas.measure import Energy
from tests.contract.test_repositories import NOW, device
from tests.fakes.resolution import bench, file, manifest, variant

pytestmark = pytest.mark.integration


def spoken(name, **limits):
    spec = DeviceClassSpec(budget=Budget(**limits), note="of the north gate")
    return DeviceClassRecord(name=name, spec=spec, updated_at=NOW)


def figure(device_id, name="int8", p50=4.0, *, at=NOW, **more):
    made = bench(p50, **more)
    sha256 = file(name).sha256
    return MeasuredRecord(
        device_id=device_id, sha256=sha256, batch=made.batch, benchmark=made, at=at
    )


@pytest.fixture
def cams(uow):
    """Three devices of a class, and two versions that share a file."""
    ids = [new_id("dev", entropy=i) for i in range(3)]
    with uow() as tx:
        for one in ids:
            tx.devices.add(device(id=one, device_class="cam"))
        for number, names in ((1, ("int8", "fp32")), (2, ("int8",))):
            made = manifest(*(variant(name) for name in names))
            tx.models.add(
                VersionRecord(
                    model="digits",
                    version=number,
                    manifest=made.model_dump_json(),
                    manifest_sha256=str(number) * 64,
                    manifest_size=2,
                    job_id=None,
                    created_at=NOW,
                )
            )
    return ids


def test_a_class_is_there_when_it_was_spoken_of_or_a_device_is_in_it(uow, cams):
    with uow() as tx:
        tx.device_classes.put(spoken("server", max_size_mb=100))
        tx.device_classes.put(spoken("cam", max_size_mb=1))
        tx.device_classes.put(spoken("cam", max_size_mb=0.1))
        gone = device(device_class="attic", state=DeviceState.REVOKED)
        tx.devices.add(gone)
        tx.devices.add(device(device_class="pi"))
    with uow.read() as tx:
        assert tx.device_classes.get("cam") == spoken("cam", max_size_mb=0.1)
        assert tx.device_classes.get("pi") is None
        assert [one.name for one in tx.device_classes.all()] == ["cam", "server"]
        assert tx.device_classes.names(None, 10) == ["cam", "pi", "server"]
        assert tx.device_classes.names("cam", 1) == ["pi"]
        counted = tx.device_classes.devices(["cam", "server", "attic"])
        assert counted == {"cam": 3, "server": 0, "attic": 0}
    with uow() as tx:
        tx.device_classes.delete("cam")
        tx.device_classes.delete("never")
        assert tx.device_classes.get("cam") is None


def test_the_newest_figure_of_a_device_file_and_batch_counts(uow, cams):
    first, later = figure(cams[0]), figure(cams[0], p50=5.0, at=NOW + timedelta(seconds=1))
    for record in (first, later, first, figure(cams[0], batch=32)):
        with uow() as tx:
            tx.measured.put(record)
    with uow.read() as tx:
        assert sorted(tx.measured.batches(cams[0], first.sha256)) == [1, 32]
        (found,) = tx.measured.of_version("digits", 1)
        assert (found.p50_ms, found.at, found.device) == (5.0, later.at, cams[0])
        assert tx.measured.of_version("digits", 9) == ()


def test_a_classes_figures_are_medians_over_its_devices(uow, cams):
    other = new_id("dev")
    joules = Energy(millijoules=3, method="meter")
    with uow() as tx:
        tx.devices.add(device(id=other, device_class="server"))
        for one, p50 in zip(cams, (4.0, 900.0, 6.0), strict=True):
            tx.measured.put(figure(one, p50=p50, rss_growth_mb=p50))
        tx.measured.put(figure(other, p50=0.5, energy=joules, cpu_ms=0.4))
        tx.measured.put(figure(cams[0], "fp32", p50=9.0))
    with uow.read() as tx:
        fp32, cam, server = tx.measured.of_version("digits", 1)
        assert (cam.variant, cam.device_class, cam.devices, cam.device) == ("int8", "cam", 3, None)
        assert (cam.p50_ms, cam.p95_ms, cam.rss_growth_mb) == (6.0, 12.0, 6.0)
        assert (server.device, server.millijoules, server.cpu_ms) == (other, 3, 0.4)
        assert (fp32.variant, fp32.p50_ms) == ("fp32", 9.0)
        # The file is in version 2 too, and so are its figures.
        assert tx.measured.of_version("digits", 2) == (cam, server)


def test_figures_follow_the_device_and_leave_with_it(uow, cams):
    with uow() as tx:
        tx.measured.put(figure(cams[0]))
        tx.measured.put(figure(cams[1], p50=8.0))
    with uow() as tx:
        moved = tx.devices.get(cams[0])
        tx.devices.save(replace(moved, device_class="pi"))
        tx.devices.save(replace(tx.devices.get(cams[1]), state=DeviceState.REVOKED))
        (found,) = tx.measured.of_version("digits", 1)
        assert (found.device_class, found.p50_ms) == ("pi", 4.0)


def test_of_many_devices_the_newest_are_looked_at_and_all_are_counted(uow, cams, monkeypatch):
    monkeypatch.setattr(device_class_repository, "MAX_SAMPLES", 2)
    with uow() as tx:
        for i, (one, p50) in enumerate(zip(cams, (900.0, 4.0, 6.0), strict=True)):
            tx.measured.put(figure(one, p50=p50, at=NOW + timedelta(seconds=i)))
        tx.measured.put(figure(cams[0], "fp32", p50=9.0))
    with uow.read() as tx:
        fp32, int8 = tx.measured.of_version("digits", 1)
        assert (int8.devices, int8.p50_ms, int8.device) == (3, 5.0, None)
        assert (fp32.devices, fp32.device) == (1, cams[0])
