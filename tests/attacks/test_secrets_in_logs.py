"""Whatever is done, no secret is written anywhere but into the file that is for it."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas.enroll import JoinToken
from tests.attacks.intruder import Site, new_key, until
from tests.attacks.test_certificates import renewal

pytestmark = pytest.mark.integration

KEEPERS = re.compile(
    r"credentials\.json|worker\.json|link\.key|broker/gateway\.json|trust/keys/.*\.pem|ca/.*\.key"
    r"|identity[^/]*/.*|profiles/.*|profiles\.json"
)
"""Files that are for secrets, by their path below the folder of a program."""


def pem_body(text: str) -> str:
    """A line out of the middle of a key's text: base64 that appears nowhere else."""
    lines = [line for line in text.splitlines() if line and not line.startswith("-----")]
    return max(lines, key=len)


def without_keepers(folder) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not KEEPERS.fullmatch(str(path.relative_to(folder)))
    }


def leaks(secrets: dict[str, str], places: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (what, where)
        for what, secret in secrets.items()
        for where, data in places.items()
        if secret.encode() in data
    ]


@dataclass
class Ledger:
    """The secrets that were made, by what they are; and what programs said meanwhile."""

    site: Site
    secrets: dict[str, str] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)

    @property
    def device(self) -> Path:
        return self.site.folder / "device"

    def platform(self) -> None:
        home = self.site.home
        self.secrets["the first admin's token"] = home.credentials().token
        self.secrets["the agent's token"] = home.worker().token
        gateway = json.loads((home.broker / "gateway.json").read_text())
        self.secrets["the broker's password"] = gateway["password"]
        self.secrets["the key of links"] = home.link_key.read_text().strip()
        for path in (*home.ca.rglob("*.key"), *(home.path / "trust" / "keys").glob("*.pem")):
            self.secrets[f"the key {path.name}"] = pem_body(path.read_text())

    def devices(self) -> str:
        """Enroll by command and by hand, well and badly; renew; run for a moment."""
        site, token = self.site, self.site.join_token(max_uses=3)
        secret = self.secrets["a join token's secret"] = JoinToken.parse(token).secret
        for text, home in ((token, self.device), (token[:-2], site.folder / "none")):
            done = site.run(
                "edge_client", "enroll", text, "--server", site.url, "--home", str(home)
            )
            assert (done.returncode == 0) is (text == token), done.stderr
            self.said[f"enroll {home.name}"] = (done.stdout + done.stderr).encode()
        keys = [p.read_text() for p in self.device.rglob("*") if p.is_file() and is_key(p)]
        assert keys
        self.secrets["the device's key"] = pem_body(keys[0])
        assert renewal(site, site.enroll(token)).status_code == 200
        assert site.ask(token.replace(secret, "x" * 43), new_key()).is_error

        asked = site.run("edge_client", "status", "--home", str(self.device), "-o", "json")
        name: str = json.loads(asked.stdout)["device"]
        log = site.folder / "device.log"
        with log.open("wb") as output:
            agent = subprocess.Popen(
                [sys.executable, "-m", "edge_client", "run", "--home", str(self.device)],
                env=site.env,
                stdout=output,
                stderr=output,
            )
        try:
            until(lambda: site.device(name)["presence"] == "ONLINE", "the device", 60)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(30)
        self.said["device.log"] = log.read_bytes()
        return name

    def people(self) -> None:
        """Tokens and sessions, by HTTP and by command, well and badly."""
        site = self.site
        with site.http(site.admin_token) as admin:
            made = admin.post("/v1/api-tokens", json={"name": "logs", "role": "admin"}).json()
        token = made["token"]
        self.secrets["an API token"] = token[-43:]
        with site.http() as browser:
            signed_in = browser.post("/v1/session", json={"token": token})
            self.secrets["the session's cookie"] = next(iter(browser.cookies.values()))
            self.secrets["the session's CSRF value"] = signed_in.json()["csrf"]
            assert browser.get("/v1/jobs").status_code == 200
            assert browser.post("/v1/session", json={"token": token + "x"}).is_error
        for shown in (token, token[:-3] + "xyz"):
            config = {name: str(site.folder / "user") for name in ("HOME", "XDG_CONFIG_HOME")}
            ran = subprocess.run(
                [sys.executable, "-m", "orchestrator.cli", "login", site.url, "--token", "-"],
                env=site.env | config,
                input=shown,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (ran.returncode == 0) is (shown == token), ran.stderr
            self.said[f"login {ran.returncode}"] = (ran.stdout + ran.stderr).encode()
        for wrong in (token + "x", token[:-3] + "xyz"):
            with site.http(wrong, source="127.0.0.20") as stranger:
                assert stranger.get("/v1/jobs").status_code == 401

    def ask_around(self, device: str) -> None:
        """What the API tells of all this."""
        with self.site.http(self.site.admin_token) as admin:
            self.said["audit"] = admin.get("/v1/audit", params={"limit": 1000}).content
            with admin.stream("GET", "/v1/events", params={"after": 0}) as events:
                told = self.said["events"] = b""
                for piece in events.iter_bytes():
                    told = self.said["events"] = told + piece
                    if device.encode() in told:
                        break
            for path in ("tokens", "api-tokens", "devices", "trust", "authority"):
                self.said[path] = admin.get(f"/v1/{path}").content


def is_key(path: Path) -> bool:
    return b"PRIVATE KEY-----" in path.read_bytes()


@pytest.fixture(scope="module")
def life(site):
    """Everything that handles secrets, done once."""
    ledger = Ledger(site)
    ledger.platform()
    device = ledger.devices()
    ledger.people()
    ledger.ask_around(device)
    return ledger


def test_no_secret_is_logged_told_or_kept_beside_its_file(site, life):
    secrets, said, device = life.secrets, life.said, life.device
    assert len(secrets) >= 12
    assert min(len(secret) for secret in secrets.values()) >= 22
    written = without_keepers(site.home.path) | without_keepers(device)
    names = {path.rsplit("/", 1)[-1] for path in written}
    assert {"server.log", "broker.log", "argosy.db"} <= names
    shown_once = {"the first admin's token"}
    up = {"up.log": (site.folder / "up.log").read_bytes()}
    secret_but_first = {k: v for k, v in secrets.items() if k not in shown_once}
    assert leaks(secrets, written | said) + leaks(secret_but_first, up) == []
    for what in shown_once:
        assert up["up.log"].count(secrets[what].encode()) <= 1


def test_the_search_would_find_them(site, life):
    """The control: where they belong they are found, so elsewhere they would be too."""
    secrets, said, device = life.secrets, life.said, life.device
    everything = {
        str(path): path.read_bytes()
        for folder in (site.home.path, device)
        for path in folder.rglob("*")
        if path.is_file()
    }
    found = {what for what, _ in leaks(secrets, everything)}
    shown = {
        "a join token's secret", "an API token", "the session's cookie", "the session's CSRF value",
    }  # fmt: skip
    assert set(secrets) - found <= shown
    assert b"device.enroll" in said["audit"]
    assert b"session.start" in said["audit"]
    assert b"data:" in said["events"]


def test_files_with_secrets_are_their_owners_alone(site, life):
    seen = 0
    for folder in (site.home.path, life.device):
        for path in folder.rglob("*"):
            if path.is_file() and (is_key(path) or path.suffix == ".json"):
                seen += is_key(path)
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0, folder
    assert seen >= 9
