"""Links to files: given out, honoured, refused; and the key that signs them."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from orchestrator.adapters.link_key import open_link_key
from orchestrator.domain.link import LIFETIME_SECONDS, Link, Verdict, judge, sign
from orchestrator.errors import Invalid, TooMany, Unavailable
from orchestrator.services.links import MAX_DOWNLOADS, MAX_OF_DEVICE, LinkService
from orchestrator.settings import load
from schemas.enroll import TokenRequest
from schemas.transfer import CHUNK_BYTES
from tests.unit.orchestrator.platform import Platform

KEY = b"k" * 32
LINK = Link("a" * 64, "dev_0123456789abcdef", 1_000_600)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A platform with one device and a version, and a link to a file of it."""
    platform = Platform(tmp_path_factory.mktemp("links"))
    manifest = platform.manifest("int8")
    platform.models.register("digits", manifest, None)
    (device,) = platform.enroll()
    return platform, device, manifest.variants[0].file


def get(platform, path, **headers):
    with platform.client() as client:
        return client.get(path, headers={"accept-encoding": "identity", **headers})


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.GOOD),
        ({"now": 1_000_599.9}, Verdict.GOOD),
        ({"now": 1_000_600}, Verdict.EXPIRED),
        ({"now": 0}, Verdict.EXPIRED),
        ({"link": Link("b" * 64, LINK.device, LINK.expires)}, Verdict.FORGED),
        ({"link": Link(LINK.sha256, "dev_0123456789abcdeg", LINK.expires)}, Verdict.FORGED),
        ({"link": Link(LINK.sha256, LINK.device, LINK.expires + 1)}, Verdict.FORGED),
        ({"key": b"K" * 32}, Verdict.FORGED),
        ({"signature": ""}, Verdict.FORGED),
        ({"signature": "é" * 64}, Verdict.FORGED),
    ],
)
def test_a_link_holds_for_its_file_device_and_time_alone(change, verdict):
    given = {"key": KEY, "link": LINK, "signature": sign(KEY, LINK), "now": 1_000_000}
    assert judge(**{**given, **change}) is verdict


def test_a_device_fetches_a_file_and_parts_of_it(served):
    platform, device, file = served
    offer = platform.links.offer(device, file.sha256)
    assert offer.expires_in == LIFETIME_SECONDS
    whole = get(platform, offer.path)
    assert (whole.status_code, len(whole.content)) == (200, file.size)
    assert whole.headers["etag"] == f'"{file.sha256}"'
    part = get(platform, offer.path, range="bytes=3-9", **{"if-range": f'"{file.sha256}"'})
    assert (part.status_code, part.content) == (206, whole.content[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{file.size}"
    beyond = get(platform, offer.path, range=f"bytes={file.size}-")
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{file.size}"
    assert not platform.links._under_way


def test_a_file_of_many_chunks_comes_whole(served):
    platform, device, _ = served
    data = os.urandom(9 * CHUNK_BYTES + 5)
    file = platform.file("big.bin", data)
    links = LinkService(platform.clock, KEY, serves=lambda _: True, admits=lambda _: True)
    object.__setattr__(platform.app.state.context, "links", links)
    try:
        offer = links.offer(device, file.sha256)
        assert get(platform, offer.path).content == data
        part = get(platform, offer.path, range=f"bytes={CHUNK_BYTES}-{7 * CHUNK_BYTES - 1}")
        assert part.content == data[CHUNK_BYTES : 7 * CHUNK_BYTES]
    finally:
        object.__setattr__(platform.app.state.context, "links", platform.links)


def test_what_nobody_signed_is_refused(served):
    platform, device, file = served
    path = platform.links.offer(device, file.sha256).path
    for forged in (
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        path.replace(file.sha256, "0" * 64),
        path.replace("expires=", "expires=1"),
        path.replace(device, device[:-1] + ("0" if device[-1] != "0" else "1")),
    ):
        answer = get(platform, forged)
        assert answer.status_code == 403, forged
        assert dict(parse_qsl(urlsplit(forged).query))["signature"] not in answer.text


def test_malformed_links_are_refused_before_anything_is_computed(served):
    platform, device, file = served
    path = platform.links.offer(device, file.sha256).path
    for bad in (
        path.split("?")[0],
        path + "0",
        path.replace("expires=", "expires=-"),
        path.replace("expires=", "expires=" + "9" * 30),
        path.replace(device, "dev_x"),
        path.replace(file.sha256, "../etc/passwd"),
    ):
        assert get(platform, bad).status_code in {404, 422}, bad


def test_a_link_ends_with_its_time_its_device_and_its_version(served):
    platform, _, file = served
    token = platform.tokens.create(TokenRequest(max_uses=1)).token
    device = platform.join(token).device
    path = platform.links.offer(device, file.sha256).path
    platform.clock.now += timedelta(seconds=LIFETIME_SECONDS)
    assert get(platform, path).status_code == 403
    path = platform.links.offer(device, file.sha256).path
    assert get(platform, path).status_code == 200
    assert get(platform, platform.links.offer(device, "0" * 64).path).status_code == 404
    platform.admission.revoke(device, "lost")
    refused = get(platform, path)
    assert refused.status_code == 403
    assert "not active" in refused.json()["detail"]


def test_a_device_has_few_downloads_at_once_and_all_together_too(served):
    platform, device, file = served
    links = platform.links
    for _ in range(MAX_OF_DEVICE):
        links.begin(device)
    answer = get(platform, links.offer(device, file.sha256).path)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
    for _ in range(MAX_OF_DEVICE):
        links.end(device)
    for number in range(MAX_DOWNLOADS):
        links.begin(f"dev_{number}")
    with pytest.raises(TooMany, match="all devices"):
        links.begin("dev_another")
    for number in range(MAX_DOWNLOADS):
        links.end(f"dev_{number}")
    assert get(platform, links.offer(device, file.sha256).path).status_code == 200


def test_downloads_together_keep_to_the_rate(served):
    platform, device, _ = served
    now = [100.0]
    links = LinkService(
        platform.clock,
        KEY,
        serves=lambda _: True,
        admits=lambda _: True,
        rate=10 * CHUNK_BYTES,
        monotonic=lambda: now[0],
    )
    sent = 0
    while now[0] < 110:
        wait = links.wait()
        now[0] += wait + 1e-6  # a clock does move
        if wait == 0:
            links.sent(4 * CHUNK_BYTES)
            sent += 4
    assert sent == pytest.approx(100, abs=6)
    assert links.offer(device, "a" * 64) is not None


def test_no_links_are_given_out_where_they_are_off(served):
    platform, device, file = served
    quiet = LinkService(
        platform.clock, KEY, serves=lambda _: True, admits=lambda _: True, offering=False
    )
    assert quiet.offer(device, file.sha256) is None


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "link.key"
    key = open_link_key(path)
    assert len(key) == 32
    assert open_link_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["link.key"]
    assert open_link_key(path, "ab" * 32) == b"\xab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_a_damaged_key_is_told(tmp_path, text):
    path = tmp_path / "link.key"
    path.write_text(text)
    with pytest.raises(Unavailable, match="damaged"):
        open_link_key(path)


def test_a_key_from_outside_is_checked_and_never_shown(tmp_path):
    env = {"HOME": str(tmp_path), "ARGOSY_LINK_KEY": "AB" * 32, "ARGOSY_HTTPS_LINKS": "off"}
    settings = load(env)
    assert (settings.link_key, settings.https_links) == ("ab" * 32, False)
    assert "abab" not in repr(settings)
    with pytest.raises(Invalid, match="64 hex digits") as error:
        load(env | {"ARGOSY_LINK_KEY": "c0ffee"})
    assert "c0ffee" not in str(error.value)
