"""Enrollment by the real command against a real HTTPS server, good and bad."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.identity import load_identity
from edge_client.settings import Home
from schemas.enroll import BrokerAddress, Enrolled, EnrollRequest, JoinToken
from schemas.errors import PROBLEM_TYPE, Code, Exit, Problem
from schemas.ids import new_id
from tests.fakes.edge_trust import Signer
from tests.fakes.gateway import Ca, key_pem

pytestmark = pytest.mark.integration


class Platform:
    """The two routes of enrollment. Its fields are there to be got wrong."""

    def __init__(self) -> None:
        self.ca, self.signer = Ca(), Signer()
        self.shown_ca = self.ca.pem
        self.root_json = self.signer.root_json().decode()
        self.refusal: Problem | None = None
        self.raw: bytes | None = None
        self.issuer, self.key, self.name = self.ca, None, None
        self.requests: list[EnrollRequest] = []
        self.url = ""

    def token(self, **wrong) -> str:
        der = self.ca.certificate.public_bytes(serialization.Encoding.DER)
        fields = {
            "id": new_id("tok"),
            "secret": secrets.token_urlsafe(32),
            "ca_sha256": hashlib.sha256(der).hexdigest(),
            "root_sha256": hashlib.sha256(self.root_json.encode()).hexdigest(),
        }
        return str(JoinToken(**(fields | wrong)))

    def enroll(self, body: bytes) -> tuple[int, str, bytes]:
        request = EnrollRequest.model_validate_json(body)
        self.requests.append(request)
        if self.refusal is not None:
            return self.refusal.status, PROBLEM_TYPE, self.refusal.model_dump_json().encode()
        if self.raw is not None:
            return 200, "application/json", self.raw
        public_key = x509.load_pem_x509_csr(request.csr_pem.encode()).public_key()
        device = new_id("dev")
        answer = Enrolled(
            device=device,
            device_class="default",
            certificate_pem=self.issuer.issue(self.name or device, self.key or public_key).decode(),
            ca_pem=self.ca.pem.decode(),
            root_json=self.root_json,
            broker=BrokerAddress(host="127.0.0.1", port=8883),
            heartbeat_seconds=10,
        )
        return 201, "application/json", answer.model_dump_json().encode()


def handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/trust/ca.pem"
            self.answer(200, "text/plain", platform.shown_ca)

        def do_POST(self) -> None:
            assert self.path == "/v1/enroll"
            body = self.rfile.read(int(self.headers["content-length"]))
            self.answer(*platform.enroll(body))

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args) -> None:
            pass

    return Handler


@pytest.fixture(params=["https"])
def platform(request, tmp_path) -> Iterator[Platform]:
    platform = Platform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(platform))
    if request.param == "https":
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "s.key").write_bytes(key_pem(key))
        (tmp_path / "s.pem").write_bytes(platform.ca.issue("server", key.public_key(), server=True))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    platform.url = f"{request.param}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield platform
    server.shutdown()
    server.server_close()


def argosy_edge(*arguments: str, stdin: str | None = None, **env: str):
    return subprocess.run(
        [sys.executable, "-m", "edge_client", *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=20,
        env=os.environ | {"NO_COLOR": "1"} | env,
    )


def refused(result, code: Exit, *words: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("platform", ["https", "http"], indirect=True)
def test_a_device_gets_an_identity(platform, tmp_path):
    home = tmp_path / "home"
    token = platform.token()
    done = argosy_edge("enroll", "-", "--server", platform.url, "--home", str(home), stdin=token)
    assert done.returncode == 0, done.stderr
    identity = load_identity(Home(home))
    assert identity.record.device in done.stderr
    assert identity.root_json.decode() == platform.root_json
    assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    assert certificate.public_key() == key.public_key()
    assert platform.requests[0].hardware.providers

    again = argosy_edge("enroll", token, "--server", platform.url, "--home", str(home))
    refused(again, Exit.CONFLICT, "enrolled already", "--force")
    assert len(platform.requests) == 1
    forced = argosy_edge(
        "enroll", "--server", platform.url, "--home", str(home), "--force", ARGOSY_TOKEN=token
    )
    assert forced.returncode == 0, forced.stderr
    assert load_identity(Home(home)).record.device != identity.record.device
    leftovers = [p.name for p in home.iterdir() if p.name.startswith(".identity")]
    assert leftovers == []
    shown = argosy_edge("status", "--home", str(home), "-o", "json")
    assert json.loads(shown.stdout)["running"] is False


def wrong_ca(p: Platform) -> str:
    return p.token(ca_sha256="0" * 64)


def other_ca_shown(p: Platform) -> str:
    p.shown_ca = Ca().pem
    return p.token()


def wrong_root(p: Platform) -> str:
    return p.token(root_sha256="0" * 64)


def foreign_issuer(p: Platform) -> str:
    p.issuer = Ca()
    return p.token()


def foreign_key(p: Platform) -> str:
    p.key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return p.token()


def foreign_name(p: Platform) -> str:
    p.name = new_id("dev")
    return p.token()


def nonsense(p: Platform) -> str:
    p.raw = b"<html>"
    return p.token()


def spent(p: Platform) -> str:
    p.refusal = Problem(
        title="Spent", status=409, code=Code.TOKEN_SPENT, detail="the token was used up"
    )
    return p.token()


@pytest.mark.parametrize(
    ("spoil", "code", "word"),
    [
        (wrong_ca, Exit.FAILED, "not the one in the token"),
        (other_ca_shown, Exit.FAILED, "not the one in the token"),
        (wrong_root, Exit.FAILED, "trust root is not the one"),
        (foreign_issuer, Exit.FAILED, "not issued by the pinned authority"),
        (foreign_key, Exit.FAILED, "another key"),
        (foreign_name, Exit.FAILED, "another device"),
        (nonsense, Exit.FAILED, "did not answer as an Argosy server"),
        (spent, Exit.AUTH, "the token was used up"),
    ],
)
def test_what_is_not_right_leaves_no_identity(platform, tmp_path, spoil, code, word):
    home = tmp_path / "home"
    token = spoil(platform)
    result = argosy_edge("enroll", token, "--server", platform.url, "--home", str(home))
    refused(result, code, word)
    assert not (home / "identity").exists()
    if spoil in {wrong_ca, other_ca_shown}:
        assert platform.requests == []  # the secret was never sent


def test_mistakes_are_explained(tmp_path):
    home = ("--home", str(tmp_path))
    refused(
        argosy_edge("enroll", "nonsense", "--server", "http://x", *home),
        Exit.USAGE,
        "not a join token",
    )
    token = Platform().token()
    refused(argosy_edge("enroll", token, "--server", "ftp://x", *home), Exit.USAGE, "not a server")
    refused(
        argosy_edge("enroll", token, "--server", "http://127.0.0.1:9", *home),
        Exit.FAILED,
        "cannot reach",
    )
    refused(argosy_edge("run", *home), Exit.NOT_FOUND, "not enrolled", "argosy-edge enroll")
    refused(argosy_edge("run", "--rate", "0", *home), Exit.USAGE, "--rate")
