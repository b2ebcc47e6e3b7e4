"""People by the command line, against the real API over HTTPS with an authority of its own."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvicorn

from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.cli.main import run
from orchestrator.client.profiles import Profiles
from schemas.access import Role
from schemas.errors import Exit
from tests.unit.orchestrator.platform import Platform

pytestmark = pytest.mark.integration

_START_SECONDS = 30


@dataclass
class Served:
    platform: Platform
    url: str
    ca: Path
    ca_sha256: str
    token: str


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The real application with a real TLS listener."""
    folder = tmp_path_factory.mktemp("people")
    platform = Platform(folder)
    platform.ca.ensure_server(("127.0.0.1",))
    (folder / "ca.pem").write_text(platform.ca.pem)
    context = platform.app.state.context
    platform.app.state.context = replace(context, public_url="https://127.0.0.1")
    config = uvicorn.Config(
        platform.app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        ssl_certfile=folder / "ca/server.pem",
        ssl_keyfile=folder / "ca/server.key",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    url, token = f"https://127.0.0.1:{port}", platform.key(Role.ADMIN)
    yield Served(platform, url, folder / "ca.pem", platform.ca.ca_sha256(), token)
    platform.stopping.set()
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def argosy(tmp_path, monkeypatch, capsys):
    """Run a command line as a user of one's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("ARGOSY_URL", "ARGOSY_TOKEN", "ARGOSY_HOME", "ARGOSY_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def call(*argv, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = run(list(argv))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_nobody_is_trusted_blindly_and_no_token_is_sent(served, argosy):
    code, _, err = argosy("login", served.url, "--token", "-", stdin=served.token)
    assert code == Exit.AUTH
    assert "--ca-sha256" in err
    code, _, err = argosy(
        "login", served.url, "--token", "-", "--ca-sha256", "0" * 64, stdin=served.token
    )
    assert code == Exit.AUTH
    assert served.ca_sha256 in err
    assert Profiles.of().names() == []


def test_an_authority_that_does_not_vouch_is_refused(served, argosy, tmp_path):
    other = tmp_path / "other.pem"
    other.write_text(CertificateAuthority.open_or_create(tmp_path / "other").pem)
    code, _, err = argosy(
        "login", served.url, "--token", "-", "--ca", str(other), stdin=served.token
    )
    assert code == Exit.AUTH
    assert "not signed by" in err
    assert Profiles.of().names() == []


def test_people_sign_in_get_rights_and_are_written_down(served, argosy):
    digest = ":".join(served.ca_sha256[i : i + 2] for i in range(0, 64, 2)).upper()
    code, out, err = argosy(
        "login", served.url, "--token", "-", "--ca-sha256", digest, stdin=served.token + "\n"
    )
    assert code == 0, err
    assert "admin" in out
    assert served.token not in out + err

    code, made, _ = argosy("api-token", "create", "ann", "-r", "viewer", "--ttl", "30d")
    assert code == 0
    code, out, err = argosy(
        *("login", served.url, "--token", made.strip(), "--ca", str(served.ca)),
        *("--profile", "ann", "-o", "json"),
    )
    assert json.loads(out)["role"] == "viewer"
    assert "command line" in err
    code, out, _ = argosy("profile", "ls", "-o", "json")
    assert [(one["name"], one["in_use"]) for one in json.loads(out)] == [
        ("ann", True),
        ("default", False),
    ]
    code, _, err = argosy("audit", "ls")
    assert code == Exit.AUTH
    assert "audit:read" in err

    mine = ("--profile", "default")
    code, out, _ = argosy("audit", "ls", *mine, "--action", "api_token.create", "--detail")
    assert "ann" in out
    listed = argosy("audit", "ls", *mine)[1].splitlines()
    assert max(map(len, listed)) <= 80
    assert made.strip() not in out
    assert argosy("audit", "verify", "--profile", "default")[0] == 0
    token_id = made.split("_")[1:3]
    code, out, _ = argosy("api-token", "revoke", "_".join(token_id), "--profile", "default")
    assert code == 0
    assert argosy("whoami")[0] == Exit.AUTH
    assert argosy("logout")[0] == 0
    assert argosy("profile", "use", "default")[0] == 0
    assert "admin" in argosy("whoami")[1]
    listed = argosy("api-token", "ls", "--all")[1].splitlines()
    assert max(map(len, listed)) <= 80


def test_a_log_that_was_cut_is_told_by_name_and_exit_code(served, argosy):
    stdin = served.token
    argosy("login", served.url, "--token", "-", "--ca", str(served.ca), stdin=stdin)
    for n in range(3):
        with served.platform.uow() as tx:
            tx.audit.add("test.done", f"s{n}")
    assert argosy("audit", "verify")[0] == 0
    with served.platform.database.begin() as connection:
        last = connection.exec_driver_sql("SELECT max(seq) FROM audit").scalar()
        connection.exec_driver_sql("DELETE FROM audit WHERE seq = ?", (last,))
    code, out, err = argosy("audit", "verify", "-o", "json")
    assert code == Exit.GATE_FAILED
    assert json.loads(out)["bad"] == last
    assert f"entry {last}" in err
    assert argosy("audit", "verify", "--forget")[0] == 0
