from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import Invalid
from orchestrator.settings import load

ANYWHERE = "0.0.0.0"  # noqa: S104 - read, never bound


def test_the_defaults() -> None:
    settings = load({"HOME": "/users/ada"})
    assert settings.home == Path("/users/ada/.argosy")
    assert settings.url == "http://127.0.0.1:8420"
    assert settings.database == "sqlite:////users/ada/.argosy/argosy.db"
    assert settings.embedded_broker
    assert settings.embedded_agent
    assert not settings.tls


def test_an_override_goes_before_the_environment_and_none_is_no_override() -> None:
    env = {"ARGOSY_HOME": "/srv/argosy", "ARGOSY_PORT": "9000", "ARGOSY_HOST": "127.0.0.2"}
    settings = load(env, port=9100, host=None)
    assert (settings.home, settings.port, settings.host) == (Path("/srv/argosy"), 9100, "127.0.0.2")


def test_children_read_the_same_settings_back() -> None:
    settings = load(
        {"ARGOSY_HOME": "/srv/argosy"},
        host=ANYWHERE,
        public_url="https://argosy.example/",
        broker_url="mqtts://gateway:pass%20word@broker.example:8883",
        embedded_agent=False,
        tick_seconds=0.05,
        certificate_days=3,
        transfer_rate=1_000_000,
        broadcast_from=0,
    )
    assert load(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8420"),
        ("localhost", "http://localhost:8420"),
        ("::1", "http://[::1]:8420"),
        (ANYWHERE, "https://127.0.0.1:8420"),
        ("10.0.0.5", "https://10.0.0.5:8420"),
        ("argosy.lan", "https://argosy.lan:8420"),
    ],
)
def test_beyond_loopback_there_is_tls(host: str, url: str) -> None:
    assert load({}, host=host).url == url


def test_the_certificate_holds_every_name_that_the_server_is_reached_by() -> None:
    settings = load(
        {}, host=ANYWHERE, public_url="https://argosy.example:443", mqtt_public_host="mq.example"
    )
    names = set(settings.names)
    assert {"localhost", "127.0.0.1", "::1", "argosy.example", "mq.example"} == names
    assert settings.advertised_url == "https://argosy.example:443"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "not a whole number"),
        ("PORT", "0", "not a whole number"),
        ("PORT", "65536", "not a port"),
        ("PORT", "٣", "not a whole number"),
        ("HOST", "http://x", "not a host name"),
        ("HOME", "/a\nb", "control characters"),
        ("PUBLIC_URL", "argosy.example", "not a URL"),
        ("PUBLIC_URL", "ftp://argosy.example", "not a URL"),
        ("BROKER_URL", "https://broker", "not a URL"),
        ("BROKER_URL", "mqtts://broker:99999", "not a URL"),
        ("DATABASE_URL", "argosy.db", "not a database URL"),
        ("EMBEDDED_AGENT", "maybe", "neither true nor false"),
        ("LEASE_SECONDS", "nan", "not a number of seconds"),
        ("LEASE_SECONDS", "-1", "not a number of seconds"),
        ("TICK_SECONDS", "fast", "not a number of seconds"),
        ("CERTIFICATE_DAYS", "1.5", "not a whole number"),
        ("TRANSFER_RATE", "0", "not a whole number"),
        ("BROADCAST_RATE", "1000", "less than a chunk a second"),
        ("BROADCAST_FROM", "-1", "not a whole number"),
    ],
)
def test_what_is_wrong_is_told_by_the_settings_name(name: str, value: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as told:
        load({f"ARGOSY_{name}": value})
    assert told.value.detail.startswith(f"ARGOSY_{name}:")
    assert "\n" not in told.value.detail


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(Invalid) as told:
        load({"ARGOSY_BROKER_URL": "http://me:hunter2@broker"})
    assert "hunter2" not in told.value.detail


def test_contradictions_are_told() -> None:
    with pytest.raises(Invalid, match="both use port 9000"):
        load({}, port=9000, mqtt_port=9000)
    with pytest.raises(Invalid, match="no broker is named"):
        load({}, embedded_broker=False)
    with pytest.raises(Invalid, match="use https"):
        load({}, host=ANYWHERE, public_url="http://argosy.example")
    with pytest.raises(Invalid, match="no setting 'prot'"):
        load({}, prot=1)


def test_a_broker_elsewhere_is_not_embedded() -> None:
    assert not load({}, broker_url="mqtts://broker.example").embedded_broker


def test_proxies_are_addresses_or_networks(tmp_path):
    found = load({"ARGOSY_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1"}, home=tmp_path)
    assert found.trusted_proxies == "10.0.0.0/8,2001:db8::1"
    for wrong in ("*", "proxy.local", "10.0.0.1/8", "10.0.0.0/8;::1"):
        with pytest.raises(Invalid, match="ARGOSY_TRUSTED_PROXIES"):
            load({"ARGOSY_TRUSTED_PROXIES": wrong}, home=tmp_path)
