"""Telemetry over HTTP, by the SDK, and as Prometheus reads it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.client import Argosy
from orchestrator.client.errors import Invalid
from schemas.access import Role
from schemas.dataset import Baseline, Feature
from schemas.topics import Up
from schemas.window import encode, pack


@pytest.fixture
def fleet(platform):
    feature = Feature(name="mean", edges=(0, 1, 2), counts=(500, 500), over=4)
    manifest = platform.manifest()
    manifest = manifest.model_copy(update={"baseline": Baseline(n=1004, features=(feature,))})
    platform.models.register("digits", manifest, None)
    return platform.enroll(3)


@pytest.fixture
def sdk(platform):
    return Argosy("http://testserver", platform.key(Role.VIEWER), http=platform.client()._transport)


def metrics(platform):
    answer = platform.client(platform.key(Role.VIEWER)).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for one in family.samples:
            samples[one.name, tuple(sorted(one.labels.items()))] = one.value
    return answer.text, samples


def test_summaries_and_series_by_the_sdk(platform, fleet, sdk):
    for seq, device in enumerate(fleet):
        platform.window(device, seq, queue=pack({80: 3}), runs=50)
    (whole,) = sdk.telemetry.summary("digits", 1)
    assert (whole.n, whole.mean_batch, whole.seconds) == (300, 2.0, 15.0)
    assert whole.p50_ms < whole.queue.p95_ms
    devices = [row.device for row in sdk.telemetry.summary("digits", 1, by="device")]
    assert devices == sorted(fleet)
    since = platform.clock() - timedelta(minutes=5)
    (point,) = sdk.telemetry.series("digits", 1, bucket="1m", since=since)
    assert (point.n, point.bucket_seconds) == (300, 60)
    later = platform.clock() + timedelta(hours=2)
    assert list(sdk.telemetry.summary("digits", 1, since=later)) == []
    with pytest.raises(Invalid, match="before it begins"):
        list(sdk.telemetry.summary("digits", 1, since=later, until=since))
    assert list(sdk.telemetry.summary("digits", 1, role="shadow")) == []


def test_features_stand_beside_what_the_model_was_trained_on(platform, fleet, sdk):
    platform.window(fleet[0], features=[[0, 1, 2, 30]])
    platform.window(fleet[1], features=[[0, 0, 0, 20, 47]])
    (view,) = sdk.telemetry.features("digits", 1)
    assert (view.expected, view.counts) == ((500, 500), (50, 47))
    assert (view.under, view.over, view.nan) == (0, 1, 2)
    assert 0 < view.chance < view.psi < 1
    assert sdk.telemetry.features("digits", 1, variant="fp32") == ()


def test_prometheus_reads_counts_without_any_device(platform, fleet):
    labels = (
        ("device_class", "default"), ("model", "digits"), ("role", "active"),
        ("variant", "int8"), ("version", "1"),
    )  # fmt: skip
    for seq in range(2):
        platform.window(
            fleet[0],
            seq,
            n=20,
            errors=2,
            labelled=0,
            correct=0,
            latency=pack({0: 5, 40: 10, 41: 5}),
        )
    platform.receive(fleet[0], Up.TELE, encode(platform.envelope(1)))
    platform.receive(fleet[0], Up.TELE, b"nothing")
    text, found = metrics(platform)
    assert not any(device in text for device in fleet)
    assert found["argosy_device_samples_total", labels] == 40
    assert found["argosy_device_errors_total", labels] == 4
    for outcome, count in {"stored": 2, "repeated": 1, "malformed": 1, "old": 0}.items():
        assert found["argosy_windows_received_total", (("outcome", outcome),)] == count
    bucket = "argosy_device_latency_seconds_bucket"
    assert found[bucket, tuple(sorted((*labels, ("le", "3.2e-05"))))] == 30
    assert found[bucket, tuple(sorted((*labels, ("le", "6.4e-05"))))] == 40
    assert found["argosy_device_latency_seconds_count", labels] == 40
    request = (("method", "GET"), ("route", "/metrics"), ("status", "2xx"))
    assert metrics(platform)[1]["argosy_http_requests_total", request] == 1


def test_paths_of_strangers_make_no_series(platform):
    client = platform.client()
    for path in ("/v1/devices/dev_1", "/nothing/1", "/nothing/2"):
        client.get(path)
    client.request("BREW", "/pot")
    routes = {dict(labels).get("route") for _, labels in metrics(platform)[1]}
    assert routes == {None, "/v1/devices/{device_id}", "none"}


def test_what_is_out_of_bounds_is_refused(platform, fleet):
    client = platform.client(platform.key(Role.VIEWER))
    for query in ("by=hour", "since=yesterday", "device=x", "role=any", "bucket=2h", "limit=0"):
        for path in ("summary", "series"):
            answer = client.get(f"/v1/telemetry/{path}?model=digits&version=1&{query}")
            if answer.status_code == 200:  # an option of the other one
                assert query.partition("=")[0] in {"by", "bucket", "limit"}
            else:
                assert answer.status_code == 422
