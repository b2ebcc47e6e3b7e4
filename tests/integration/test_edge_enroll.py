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

from edge_client.enroll_command import Options, Voice, enroll_device, make_key
from edge_client.errors import (
    CertificateError,
    EnrollError,
    EnrollPendingError,
    NotAdmittedError,
    ServerError,
    UsageError,
)
from edge_client.identity import is_enrolled, load_identity
from edge_client.settings import Home
from schemas.enroll import (
    BrokerAddress,
    Enrolled,
    EnrollPending,
    EnrollRequest,
    JoinToken,
    fingerprint,
)
from schemas.errors import PROBLEM_TYPE, Code, Exit, Problem
from schemas.ids import new_id
from tests.fakes.edge_certificates import HOUR, certificate, now
from tests.fakes.edge_kill import killed_at_each_step, without_fsync
from tests.fakes.edge_trust import Signer
from tests.fakes.gateway import Ca, key_pem, until

pytestmark = pytest.mark.integration


REJECTED = Problem(
    title="Rejected", status=403, code=Code.REJECTED, detail="an operator rejected the device"
)


def spki(public_key) -> str:
    der = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


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
        self.devices: dict[str, str] = {}
        self.approved: bool | None = True
        self.public_ca: Ca | None = None
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
        key = spki(public_key)
        device = self.devices.setdefault(key, new_id("dev"))
        if self.approved is None:
            pending = EnrollPending(device=device, fingerprint=fingerprint(key), retry_seconds=1)
            return 202, "application/json", pending.model_dump_json().encode()
        if self.approved is False:
            return 403, PROBLEM_TYPE, REJECTED.model_dump_json().encode()
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
    if request.param == "proxy":
        platform.public_ca = Ca()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(platform))
    if request.param != "http":
        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "s.key").write_bytes(key_pem(key))
        issuer = platform.public_ca or platform.ca
        (tmp_path / "s.pem").write_bytes(issuer.issue("server", key.public_key(), server=True))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if request.param == "http" else "https"
    platform.url = f"{scheme}://127.0.0.1:{server.server_port}"
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


def enroll_here(platform: Platform, home: Home, token: str, **options):
    """The command, without a process of its own. Returns the identity, and what was said."""
    said: list[str] = []
    voice = Voice(say=said.append, pending=lambda pending: said.append(pending.fingerprint))
    told = {"token": token, "server": platform.url, "wait": 0.0} | options
    return enroll_device(home, Options(**told), voice), said


def test_a_device_waits_for_approval_and_a_kill_does_not_cost_its_place(platform, tmp_path):
    platform.approved = None
    home, token = tmp_path / "home", platform.token()
    command = [sys.executable, "-m", "edge_client", "enroll", token]
    command += ["--server", platform.url, "--home", str(home), "--qr-text"]
    with (tmp_path / "said").open("w") as said:
        waiting = subprocess.Popen(command, stderr=said)
        until(lambda: len(platform.requests) > 1, "a second question")
        waiting.kill()
        waiting.wait(10)
    (key,) = platform.devices
    text = (tmp_path / "said").read_text()
    assert fingerprint(key) in text
    assert f"argosy device approve {platform.devices[key]}" in text
    assert "▀" in text or "█" in text  # the code
    shown = argosy_edge("status", "--home", str(home))
    refused(shown, Exit.NOT_FOUND, "waits for approval", fingerprint(key))
    platform.approved = True
    identity, said = enroll_here(platform, Home(home), token)
    assert identity.record.device == platform.devices[key]
    assert "going on" in said[0]
    assert not (home / "enrollment").exists()


def test_an_operator_may_take_too_long_or_say_no(platform, tmp_path):
    platform.approved = None
    home, token = Home(tmp_path / "home"), platform.token()
    with pytest.raises(EnrollPendingError, match="nobody has approved") as caught:
        enroll_here(platform, home, token)
    assert caught.value.exit is Exit.TIMED_OUT
    platform.approved = False
    with pytest.raises(NotAdmittedError, match="rejected") as said_no:
        enroll_here(platform, home, token)
    assert said_no.value.exit is Exit.AUTH
    assert not home.enrollment.exists()
    assert len(platform.devices) == 1


def test_a_token_may_be_for_a_key_that_is_there_already(platform, tmp_path):
    path = tmp_path / "device.key"
    sha256, _ = make_key(path)
    identity, _ = enroll_here(platform, Home(tmp_path / "home"), platform.token(), key=path)
    assert list(platform.devices) == [sha256]
    assert identity.seen.roots


def test_the_whole_command_may_be_pasted(platform, tmp_path):
    pasted = f"argosy-edge enroll {platform.token()} --server {platform.url}"
    identity, _ = enroll_here(platform, Home(tmp_path / "home"), pasted, server=None)
    assert identity.record.server == platform.url
    with pytest.raises(UsageError, match="what was pasted says"):
        enroll_here(platform, Home(tmp_path / "other"), pasted, server="https://elsewhere")


@pytest.mark.parametrize("platform", ["proxy"], indirect=True)
def test_a_proxy_with_a_public_certificate_is_believed_only_by_the_systems_roots(
    platform, tmp_path, monkeypatch
):
    home, token = Home(tmp_path / "home"), platform.token()
    with pytest.raises(ServerError, match="neither of the platform's authority"):
        enroll_here(platform, home, token)
    assert platform.requests == []  # the secret was never sent
    assert platform.public_ca is not None
    (tmp_path / "system.pem").write_bytes(platform.public_ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    identity, _ = enroll_here(platform, home, token)
    assert identity.ca.read_bytes() == platform.ca.pem
    platform.shown_ca = platform.public_ca.pem  # the pin counts there too
    with pytest.raises(EnrollError, match="not the one in the token"):
        enroll_here(platform, Home(tmp_path / "other"), platform.token())


@pytest.mark.parametrize("platform", ["http"], indirect=True)
def test_killed_at_any_step_the_same_command_goes_on_as_the_same_device(
    platform, tmp_path, monkeypatch
):
    without_fsync(monkeypatch)
    token = platform.token()
    homes = iter(Home(tmp_path / f"home{n}") for n in range(999))
    home = next(homes)

    def prepare() -> None:
        nonlocal home
        home = next(homes)
        home.create()
        platform.devices.clear()

    for _ in killed_at_each_step(prepare, lambda: enroll_here(platform, home, token)):
        if home.enrollment.exists() or not is_enrolled(home):
            enroll_here(platform, home, token)
        identity = load_identity(home)
        # A key that was sent is the key of the device: nothing is spent twice.
        assert list(platform.devices.values()) == [identity.record.device]
        assert not home.enrollment.exists()


@pytest.mark.parametrize("platform", ["http"], indirect=True)
def test_enrolled_anew_it_says_what_is_kept_and_what_is_dropped(platform, tmp_path):
    home = Home(tmp_path / "home")
    first, _ = enroll_here(platform, home, platform.token())
    (home.blobs / "model").write_bytes(b"model")
    platform.devices = Same(first.record.device)
    again, said = enroll_here(platform, home, platform.token(), force=True)
    assert again.record.device == first.record.device
    assert "the same device as before" in said[-1]
    platform.devices = {}
    other, said = enroll_here(platform, home, platform.token(), force=True)
    assert other.record.device != first.record.device
    assert first.record.device in said[0]
    assert (home.blobs / "model").exists()


class Same(dict):
    """As for a token that was made for one device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def setdefault(self, key: str, _default: str) -> str:
        self[key] = self.device
        return self.device


@pytest.mark.parametrize("platform", ["http"], indirect=True)
def test_with_a_wrong_clock_nothing_is_sent(platform, tmp_path):
    ca = platform.ca
    ca.certificate = certificate(
        "test CA", ca.key.public_key(), ca, start=now() + HOUR, authority=True
    )
    platform.shown_ca = ca.pem
    with pytest.raises(CertificateError, match="not valid yet") as caught:
        enroll_here(platform, Home(tmp_path / "home"), platform.token())
    assert "set this device's clock" in str(caught.value.hint)
    assert platform.requests == []


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
