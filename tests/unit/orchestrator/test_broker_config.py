from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from orchestrator.adapters import broker
from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.process_tree import MAX_DEATHS, restart_delay
from orchestrator.home import Home
from orchestrator.settings import load
from orchestrator.supervisor import mark_of
from schemas.topics import Up


def listeners(text: str) -> list[list[str]]:
    parts = text.split("\nlistener ")[1:]
    return [f"listener {part}".splitlines() for part in parts]


def test_the_devices_listener_wants_certificates_and_the_servers_is_on_loopback() -> None:
    home = Home(Path("/srv/argosy"))
    settings = load({}, home=home.path, mqtt_host="192.0.2.1", mqtt_port=9883)
    gateway = Gateway("127.0.0.1", 21000, "gateway", "secret")
    text = broker.configuration(settings, home, gateway, "ada")
    devices, server = listeners(text)
    assert devices[0] == "listener 9883 192.0.2.1"
    for line in (
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "crlfile /srv/argosy/ca/crl.pem",
        "allow_anonymous false",
        "acl_file /srv/argosy/broker/acl",
    ):
        assert line in devices
    assert not any(line.startswith("password_file") for line in devices)
    assert server[0] == "listener 21000 127.0.0.1"
    assert "allow_anonymous false" in server
    assert "secret" not in text
    assert "per_listener_settings true" in text.splitlines()
    assert "user ada" in text.splitlines()


def test_the_devices_access_list_knows_no_gateway() -> None:
    assert broker.device_acl().splitlines() == [
        "user argosy-canary",
        "topic deny #",
        *(f"pattern write d/%u/up/{leaf}" for leaf in Up),
        "pattern read d/%u/down/#",
        "pattern read m/#",
    ]
    assert "gateway" not in broker.device_acl()


def test_the_password_line_is_pbkdf2_as_mosquitto_has_it() -> None:
    line = broker.password_line("gateway", "secret", b"0123456789ab")
    user, rest = line.strip().split(":", 1)
    _, kind, rounds, salt, digest = rest.split("$")
    assert (user, kind) == ("gateway", "7")
    assert base64.b64decode(salt) == b"0123456789ab"
    expected = hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789ab", int(rounds), 64)
    assert base64.b64decode(digest) == expected


@pytest.mark.parametrize(
    ("url", "gateway"),
    [
        (
            "mqtts://me:p%40ss@broker.example:9000",
            Gateway("broker.example", 9000, "me", "p@ss", tls=True),
        ),
        ("mqtts://broker.example", Gateway("broker.example", 8883, "gateway", "", tls=True)),
        ("mqtt://broker.example", Gateway("broker.example", 1883, "gateway", "")),
    ],
)
def test_a_broker_elsewhere_is_reached_by_its_url(
    url: str, gateway: Gateway, tmp_path: Path
) -> None:
    settings = load({}, home=tmp_path, broker_url=url)
    home = Home(tmp_path)
    home.prepare()
    assert broker.prepare(settings, home) == gateway == broker.read_gateway(home)
    assert not (home.broker / "mosquitto.conf").exists()


def test_every_file_of_the_broker_is_its_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    broker.prepare(load({}, home=tmp_path), home)
    files = [p for p in home.broker.iterdir() if p.is_file()]
    assert {p.name for p in files} == {
        "acl",
        "acl-gateway",
        "gateway.json",
        "mosquitto.conf",
        "passwd",
    }
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}


def test_a_damaged_gateway_record_is_made_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.gateway_json.write_text('{"host": "evil.example", "what": 1}')
    assert broker.read_gateway(home) is None
    assert broker.prepare(load({}, home=tmp_path), home).host == "127.0.0.1"


def test_restarts_wait_longer_each_time_and_end() -> None:
    deaths: list[float] = []
    delays = []
    for now in range(MAX_DEATHS):
        deaths.append(float(now))
        delays.append(restart_delay(deaths, float(now)))
    assert delays == [0.2, 0.4, 0.8, 1.6, None]


def test_old_deaths_are_forgiven() -> None:
    assert restart_delay([0.0, 1.0, 2.0, 3.0, 100.0], 100.0) == 0.2
    assert restart_delay([40.0 * i for i in range(1000)], 40.0 * 999) == 0.4


def test_a_homes_mark_is_the_same_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert mark_of(Home(tmp_path / "link")) == mark_of(Home(tmp_path / "home"))
    assert mark_of(Home(tmp_path)) != mark_of(Home(tmp_path / "home"))
