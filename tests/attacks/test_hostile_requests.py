"""Requests that are meant to break out of where they belong."""

from __future__ import annotations

import hashlib
import json
import socket
import time

import pytest

from tests.attacks.intruder import LOOPBACK
from tests.fakes import hostile_onnx
from tests.fakes.edge_models import linear_onnx, model_file, release

pytestmark = pytest.mark.integration

SQL = (
    "' OR 1=1 --",
    "'; DROP TABLE devices; --",
    '" OR ""="',
    "1 UNION SELECT secret_hash FROM keys",
    "%' OR '1'='1",
)


def raw(site, head: str, body: bytes = b"") -> bytes:
    """What is answered to bytes that no client of ours would send."""
    with socket.create_connection((LOOPBACK, site.port), 20) as sock:
        try:
            sock.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
            found = b""
            while piece := sock.recv(65536):
                found += piece
        except ConnectionError:
            pass
        return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def secret(site):
    """A file beside the artifacts that nobody may read."""
    path = site.home.path / "secret.json"
    path.write_text("TOP-SECRET")
    yield path
    path.unlink()


@pytest.mark.parametrize(
    "trick",
    [
        "../secret.json", "..%2fsecret.json", "%2e%2e%2fsecret.json", "..%252fsecret.json",
        "....//secret.json", "%2fetc%2fpasswd", "/etc/passwd", "..\\secret.json",
        "1.root.json%00.png", "1.root.json/../../../secret.json", "..", "%00", "%ff%fe",
        "a" * 5000, "{HOME}/secret.json", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_name_leads_to_no_file(site, secret, trick):
    trick = trick.replace("{HOME}", str(site.home.path))
    token = site.admin_token
    for place in (
        "/v1/artifacts/{}", "/v1/trust/metadata/{}", "/v1/jobs/{}", "/v1/jobs/{}/logs",
        "/v1/jobs/{}/profile", "/v1/devices/{}", "/v1/models/{}", "/v1/rollouts/{}",
    ):  # fmt: skip
        head = f"GET {place.format(trick)} HTTP/1.1\nhost: x\nconnection: close\n"
        answer = raw(site, head + f"authorization: Bearer {token}")
        assert b"TOP-SECRET" not in answer
        assert b"root:x:0" not in answer
        assert status(answer) in {307, 400, 401, 404, 405, 409, 414, 422}, (place, answer[:300])
    put = f"PUT /v1/artifacts/{trick} HTTP/1.1\nhost: x\nconnection: close\n"
    answer = raw(site, put + f"authorization: Bearer {token}\ncontent-length: 4", b"evil")
    assert status(answer) in {307, 400, 404, 405, 422}
    assert secret.read_text() == "TOP-SECRET"


def test_an_artifact_is_what_its_name_says(site, admin, secret):
    data = b"genuine"
    sha256 = hashlib.sha256(data).hexdigest()
    assert admin.put(f"/v1/artifacts/{sha256}", content=b"tampered").json()["code"] == (
        "digest_mismatch"
    )
    assert admin.get(f"/v1/artifacts/{sha256}").status_code == 404
    assert admin.put(f"/v1/artifacts/{sha256}", content=data).status_code == 200
    assert admin.get(f"/v1/artifacts/{sha256}").content == data
    for range_ in ("bytes=99-", "bytes=-0"):
        assert admin.get(f"/v1/artifacts/{sha256}", headers={"range": range_}).status_code == 416
    assert admin.get(f"/v1/artifacts/{sha256}", headers={"range": "bytes=0-9" * 20}).content == data


def test_sql_in_a_parameter_is_text(site, admin):
    """Each query and path parameter of each reading route, with what would open a database."""
    devices = len(admin.get("/v1/devices", params={"limit": 500}).json()["items"])
    spec = admin.get("/openapi.json").json()
    tried = 0
    for path, methods in spec["paths"].items():
        operation = methods.get("get")
        if operation is None or path == "/v1/events":
            continue
        names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
        places = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
        for text in SQL:
            filled = path
            for name in places:
                filled = filled.replace("{" + name + "}", text.replace("/", "").replace("%", "%25"))
            query = dict.fromkeys(names, text)
            for params in (query, *({name: text} for name in names)) if names else ({},):
                answer = admin.get(filled, params=params)
                tried += 1
                assert answer.status_code < 500, (path, params, answer.text)
                assert "secret_hash" not in answer.text.replace(text, "")
                is_json = "json" in answer.headers["content-type"]
                if answer.status_code == 200 and places and is_json and "items" in answer.json():
                    assert answer.json()["items"] == [], (path, params)
    assert tried > 100
    assert len(admin.get("/v1/devices", params={"limit": 500}).json()["items"]) == devices
    with_state = admin.get("/v1/devices", params={"state": "ACTIVE' OR '1'='1"})
    assert with_state.status_code == 422


def test_nothing_of_a_request_becomes_a_header(site):
    for target in (
        "/v1/jobs?name=%0d%0aset-cookie:%20evil=1",
        "/v1/nothing%0d%0aset-cookie:%20evil=1",
        "/v1/events?subject=%0d%0aset-cookie:%20evil=1&after=%0d%0a",
        "/v1/artifacts/%0d%0aset-cookie:%20evil=1",
    ):
        head = f"GET {target} HTTP/1.1\nhost: evil.example\nx-request-id: evil\nconnection: close\n"
        answer = raw(site, head + f"authorization: Bearer {site.admin_token}\nlast-event-id: x")
        top = answer.partition(b"\r\n\r\n")[0].lower()
        assert b"set-cookie" not in top
        assert b"evil" not in top
        assert b"x-request-id" in top
    smuggled = "POST /v1/enroll HTTP/1.1\nhost: x\nconnection: close\ncontent-length: 4\n"
    smuggled += "transfer-encoding: chunked"
    answer = raw(site, smuggled, b"0\r\n\r\nGET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") <= 2
    assert b" 200 " not in answer


@pytest.mark.parametrize(
    "body",
    [
        b'{"ttl_seconds": NaN}', b'{"ttl_seconds": Infinity}', b'{"max_uses": 1e999}',
        b'{"note": "\\ud800"}', b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"\xff\xfe",
        b'{"max_uses": ' + b"9" * 10_000 + b"}", b'{"note": "\\u0000"}', b'{"tags": {"a": 1}}',
        b'{"note": "' + b"x" * 300 + b'"}', b'{"tags": ["' + b'","'.join([b"a"] * 100) + b'"]}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_as_one(admin, body):
    kind = {"content-type": "application/json"}
    answer = admin.post("/v1/tokens", content=body, headers=kind)
    assert answer.status_code == 422, answer.text
    assert len(answer.content) < 100_000
    assert "Traceback" not in answer.text
    assert admin.post("/v1/tokens", content=b"{}", headers=kind).status_code == 201


def test_a_body_may_only_be_so_large(site, admin):
    large = {"content-type": "application/json"}
    refused = admin.post("/v1/tokens", content=b" " * (8 * 1024**2 + 1), headers=large)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    with site.http() as anybody:
        refused = anybody.post("/v1/enroll", content=b" " * 200_000, headers=large)
        assert refused.status_code == 413
    announced = "POST /v1/enroll HTTP/1.1\nhost: x\ncontent-length: 99999999999999"
    began = time.monotonic()
    assert status(raw(site, announced, b"{")) == 413
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("last", ["-1", "abc", "1 OR 1=1", "9" * 18, "9" * 19, "0x10", "1e3"])
def test_a_foreign_event_id_neither_breaks_nor_blinds_a_reader(site, admin, last):
    """Where it is taken, the stream goes on with what happens from now on."""
    with site.http(site.admin_token) as reader:
        headers = {"last-event-id": last.encode("latin-1")}
        with reader.stream("GET", "/v1/events", headers=headers) as stream:
            if stream.status_code != 200:
                assert stream.status_code in {400, 422}
                return
            site.enroll()
            for line in stream.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["kind"] == "device":
                    return
    pytest.fail("the reader heard nothing")


BOMBS = [one for one in hostile_onnx.GUARDED if "loop" in one.name or "extern" in one.name][:4]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda one: one.name)
def test_a_bomb_is_not_registered(site, admin, bomb):
    """It is uploaded, for bytes are bytes; but no version may name it."""
    bomb = bomb.build()
    version = release(linear_onnx(1), name="bomb")
    manifest = json.loads(version.manifest)
    genuine = manifest["variants"][0]["file"]
    bad = model_file("model.onnx", bomb)
    for data in (bomb, *version.files.values()):
        sha256 = hashlib.sha256(data).hexdigest()
        assert admin.put(f"/v1/artifacts/{sha256}", content=data).status_code == 200
    manifest["variants"][0]["file"] = genuine | json.loads(bad.model_dump_json())
    answer = admin.post("/v1/models/bomb/versions", json=manifest)
    assert answer.status_code == 422, answer.text
    assert site.register("not-a-bomb") == 1
