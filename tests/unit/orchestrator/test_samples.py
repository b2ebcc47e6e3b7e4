"""Samples: kept once, within bounds, streams apart, and given out on the record."""

from __future__ import annotations

import io

import numpy as np
import pytest

from orchestrator.client import Argosy
from orchestrator.client.errors import Forbidden, Invalid
from orchestrator.services.names_told import MAX_STRANGE
from orchestrator.services.ports import AuditQuery
from orchestrator.services.records import SamplePage
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry_retention import TelemetryRetention
from schemas.access import Role
from schemas.sample import Sample, Tensor, encode
from schemas.topics import Up


def sample(platform, seq=0, stream="uniform", **more) -> bytes:
    values = {
        "boot": b"b" * 16, "seq": seq, "model": "digits", "version": 1, "variant": "int8",
        "probability": 0.25, "at_ms": round(platform.clock().timestamp() * 1000), "synced": True,
        "inputs": [Tensor("x", "uint8", [2, 2], bytes([seq, 1, 2, 3]))],
        "predicted": 3, "confidence": 0.5,
    }  # fmt: skip
    return encode(Sample(format=1, stream=stream, **(values | more)))


@pytest.fixture
def device(platform):
    (made,) = platform.enroll(1)
    return made


@pytest.fixture
def sdk(platform):
    def connect(role=Role.OPERATOR):
        return Argosy("http://testserver", platform.key(role), http=platform.client()._transport)

    return connect


def entries(platform):
    with platform.uow.read() as tx:
        return tx.audit.entries(AuditQuery())


def kept(platform):
    with platform.uow.read() as tx:
        return dict(tx.samples.kept())


def test_a_sample_is_kept_once_and_comes_back_as_an_array(platform, device, sdk, tmp_path):
    for seq in (0, 1, 1, 2):
        platform.receive(device, Up.SAMPLE, sample(platform, seq))
    platform.receive(device, Up.SAMPLE, sample(platform, 9, "uncertain"))
    argosy = sdk()
    found = list(argosy.telemetry.samples("digits"))
    assert [(one.seq, one.stream) for one in found] == [
        (0, "uniform"), (1, "uniform"), (2, "uniform"), (9, "uncertain")
    ]  # fmt: skip
    assert all(one.inputs == () for one in found)
    target = tmp_path / "hard.npz"
    assert argosy.telemetry.save_samples("digits", 1, target, stream="uniform") == 3
    with np.load(io.BytesIO(target.read_bytes())) as saved:
        assert saved["input:x"].tolist() == [[[n, 1], [2, 3]] for n in (0, 1, 2)]
        assert saved["probability"].tolist() == [0.25] * 3
        assert (saved["predicted"].tolist(), saved["truth"].tolist()) == ([3] * 3, [-1] * 3)
    actions = [entry.action for entry in entries(platform)]
    assert actions.count("sample.export") == 1, "facts alone are no export"
    assert argosy.telemetry.save_samples("digits", 2, target, stream="uniform") == 0


def test_a_viewer_does_not_see_inputs_of_devices(platform, device, sdk):
    platform.receive(device, Up.SAMPLE, sample(platform))
    with pytest.raises(Forbidden):
        list(sdk(Role.VIEWER).telemetry.samples("digits"))


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"inputs": [Tensor("x", "uint8", [3, 2], b"1234")]}, "are no uint8 of shape"),
        ({"inputs": [Tensor("x", "object", [1], b"12345678")]}, "no type of numbers"),
        ({"inputs": [Tensor("y", "uint8", [4], b"1234")]}, "no input 'x'"),
        ({"inputs": [Tensor("x", "uint8", [4], b"1234")]}, "differ in shape"),
    ],
)
def test_what_a_device_says_of_its_bytes_is_not_believed(
    platform, device, sdk, tmp_path, more, error
):
    platform.receive(device, Up.SAMPLE, sample(platform, 0))
    platform.receive(device, Up.SAMPLE, sample(platform, 1, **more))
    with pytest.raises(Exception, match=error):
        sdk().telemetry.save_samples("digits", 1, tmp_path / "x.npz", stream="uniform")
    assert list(tmp_path.glob("*x.npz*")) == []


def test_pages_end_by_bytes_too_and_go_on(platform, device, sdk):
    big = [Tensor("x", "uint8", [200_000], bytes(200_000))]
    for seq in range(60):
        platform.receive(device, Up.SAMPLE, sample(platform, seq, inputs=big))
    found = list(sdk().telemetry.samples("digits", inputs=True))
    assert [one.seq for one in found] == list(range(60))


def test_the_oldest_make_room_and_streams_do_not_push_each_other_out(platform, device):
    size = len(sample(platform))
    bounded = SampleService(platform.uow, platform.clock, most=3 * size, most_in_all=5 * size)
    platform.inbox._samples = bounded  # the bounds alone differ
    platform.receive(device, Up.SAMPLE, sample(platform, 50, "uncertain"))
    for seq in range(6):
        platform.clock.forward(1)
        platform.receive(device, Up.SAMPLE, sample(platform, seq))
    views, _ = bounded.page(SamplePage(model="digits"), inputs=False)
    assert [one.seq for one in views] == [50, 3, 4, 5]
    for seq in range(51, 54):
        platform.clock.forward(1)
        platform.receive(device, Up.SAMPLE, sample(platform, seq, "uncertain"))
    assert sum(kept(platform).values()) <= 5 * size
    platform.clock.forward(31 * 86_400)
    retention = TelemetryRetention(platform.uow, platform.clock, bounded)
    while retention.tick():
        pass
    assert set(kept(platform).values()) == {0}


def test_invented_models_do_not_push_real_samples_out(platform, device):
    for seq in range(40):
        platform.receive(device, Up.SAMPLE, sample(platform, seq, model=f"m{seq}"))
    assert len(kept(platform)) == MAX_STRANGE


def test_a_malformed_sample_is_dropped(platform, device):
    for payload in (b"", b"\x00" * 300_000, sample(platform)[:-1], b"{}"):
        platform.receive(device, Up.SAMPLE, payload)
    assert kept(platform) == {}


@pytest.mark.parametrize(
    "cursor",
    ["1.dev.zz.3", f"{2**63}.dev_1.00.3", f"1.dev_1.00.{2**64}", "1.dev\0.00.3", "-1.d.00.1"],
)
def test_a_cursor_that_was_never_given_is_refused(platform, sdk, cursor):
    with pytest.raises(Invalid):
        sdk()._transport.raw("/v1/telemetry/samples", {"model": "digits", "cursor": cursor})
