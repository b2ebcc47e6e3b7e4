"""Links to files, by people to whom they were not given, against a server that runs."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.settings import Home
from orchestrator.adapters.link_key import open_link_key
from orchestrator.domain.link import LIFETIME_SECONDS, Link, path_of, sign
from schemas.transfer import CHUNK_BYTES
from tests.attacks.intruder import LOOPBACK, WAIT, until
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.gateway import Device

pytestmark = pytest.mark.integration

BIG = 32 * 1024**2
MIDDLING = 6 * 1024**2
FETCHED = {"VERIFIED", "STAGED", "ACTIVATING", "PROBATION", "SUCCEEDED"}


@pytest.fixture(scope="module")
def links(site):
    """Makes links as the server does; and a file that devices may fetch, its digest."""
    site.register("linked")
    with site.http(site.admin_token) as admin:
        version = admin.get("/v1/models/linked/versions/1").json()
    sha256 = version["manifest"]["variants"][0]["file"]["sha256"]
    key = open_link_key(site.home.link_key)

    def link(device, *, file=sha256, lives=LIFETIME_SECONDS, by=key):
        made = Link(file, device, int(time.time()) + lives)
        return path_of(made, sign(by, made))

    link.sha256 = sha256
    return link


def register(admin, version):
    for sha256, data in version.files.items():
        assert admin.put(f"/v1/artifacts/{sha256}", content=data).status_code == 200
    name = json.loads(version.manifest)["model"]
    form = {"content-type": "application/json"}
    made = admin.post(f"/v1/models/{name}/versions", content=version.manifest, headers=form)
    assert made.status_code == 201, made.text


def fetch(site, path, **headers):
    with site.http() as anybody:
        return anybody.get(path, headers=headers)


def test_the_genuine_link_is_honoured_and_no_other(site, links):
    device = site.enroll().device
    genuine = links(device)
    answer = fetch(site, genuine)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == links.sha256
    other = site.enroll().device
    code = hashlib.sha256(b"code of a job").hexdigest()
    with site.http(site.admin_token) as admin:
        assert admin.put(f"/v1/artifacts/{code}", content=b"code of a job").status_code == 200
    refused = {
        "another key": links(device, by=b"x" * 32),
        "expired": links(device, lives=-1),
        "for ever": links(device, lives=10 * 365 * 86400),
        "another device": genuine.replace(device, other),
        "nobody": links("dev_0000000000000000"),
        "another file": genuine.replace(links.sha256, code),
        "not for devices": links(device, file=code),
        "longer": genuine.replace("expires=", "expires=9"),
        "twice": f"{genuine}&expires=99999999999",
        "empty": genuine[: genuine.index("signature=")] + "signature=",
    }
    for what, path in refused.items():
        answer = fetch(site, path)
        assert answer.status_code in {403, 404, 422}, what
        assert b"code of a job" not in answer.content, what


def test_a_real_device_fetches_by_its_link_and_the_broker_carries_none_of_it(site, admin, tmp_path):
    """The control: what is attacked here does work."""
    home = Home(tmp_path / "device")
    token = site.join_token(tags=["links"])
    options = Options(token=token, server=site.url, wait=60, force=True)
    name = enroll_device(home, options, Voice(say=print, pending=print)).record.device
    register(admin, release(linear_onnx(8, padding=MIDDLING), name="by-link"))
    waves = [{"percent": 100}]
    spec = {"model": "by-link", "version": 1, "tags": ["links"], "waves": waves}
    rollout = admin.post("/v1/rollouts", json=spec).json()["id"]
    device = Device(home, name, ("--no-bench", "--https"))

    def fetched():
        (wave, *_) = admin.get(f"/v1/rollouts/{rollout}").json()["waves"]
        return next((one for one in wave["executions"] if one["state"] in FETCHED), None)

    with site.observer() as observer:
        observer.subscribe("d/+/down/chunk")
        try:
            device.start()
            until(lambda: site.device(name)["presence"] == "ONLINE", "the device")
            admin.post(f"/v1/rollouts/{rollout}/start").raise_for_status()
            found = until(fetched, "the model to be fetched")
        finally:
            device.kill()
    assert found["bytes_fetched"] >= MIDDLING
    carried = [payload for _, payload in list(observer.heard.queue)]
    # The golden vectors are smaller than a chunk: not worth a link.
    assert sum(map(len, carried)) <= 2 * CHUNK_BYTES, device.log()


def test_a_revoked_device_gets_nothing_by_its_links(site, links, admin):
    device = site.enroll().device
    path = links(device)
    assert fetch(site, path).status_code == 200
    assert admin.post(f"/v1/devices/{device}/revoke", json={}).status_code == 200
    assert fetch(site, path).status_code == 403


def test_a_link_is_no_token_and_a_token_no_link(site, links):
    device = site.enroll().device
    path = links(device)
    signature = parse_qs(urlsplit(path).query)["signature"][0]
    with site.http(signature) as anybody:
        assert anybody.get("/v1/devices").status_code == 401
    with site.http(site.admin_token) as admin:
        assert admin.get(path[: path.index("?")]).status_code == 422
        assert admin.get(path[:-4] + "0000").status_code in {200, 403}


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 80, 2)),
        "bytes=0-,0-,0-,0-,0-,0-,0-",
        "bytes=" + ",".join(["0-"] * 5000),
        "bytes=-99999999999999999999",
        "bytes=99999999999999999999-",
        "bytes=5-2",
        "items=0-5",
        "bytes=\x000-5",
    ],
)
def test_no_range_makes_the_server_send_more_than_the_file(site, links, wanted):
    path = links(site.enroll().device)
    whole = len(fetch(site, path).content)
    with socket.create_connection((LOOPBACK, site.port), 10) as sock:
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nrange: {wanted}\r\nconnection: close\r\n\r\n"
        sock.sendall(head.encode())
        found = b""
        while piece := sock.recv(65536):
            found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in {200, 206, 400, 416, 422}
    assert len(body) <= max(whole, 2048)
    assert b"multipart" not in head


def test_a_download_ends_soon_after_its_device_is_revoked(site, links, admin):
    """Who reads slowly would otherwise hold the file for as long as they like."""
    version = release(linear_onnx(7, padding=BIG), name="linked-big")
    register(admin, version)
    big = max(version.files, key=lambda sha256: len(version.files[sha256]))
    device = site.enroll().device
    path, got, revoked = links(device, file=big), 0, False
    deadline = time.monotonic() + WAIT
    with socket.create_connection((LOOPBACK, site.port), 10) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        while piece := sock.recv(64 * 1024):
            got += len(piece)
            if not revoked:
                assert b"200 OK" in piece
                admin.post(f"/v1/devices/{device}/revoke", json={}).raise_for_status()
                revoked = True
            assert time.monotonic() < deadline, "it goes on and on"
            time.sleep(0.03)  # as a slow link would
    assert got < BIG


def test_the_signature_is_in_no_log(site, links):
    path = links(site.enroll().device)
    for one in (path, path[:-2] + "00", links("dev_0000000000000000")):
        fetch(site, one)
    signature = parse_qs(urlsplit(path).query)["signature"][0]
    logs = [*(site.home.path / "logs").glob("*.log"), site.folder / "up.log"]
    assert logs
    for log in logs:
        assert signature[:-2].encode() not in log.read_bytes(), log.name
