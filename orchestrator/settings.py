"""Settings: from ``ARGOSY_*`` in the environment and explicit overrides, by one pure function."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator import setting_values as reading
from orchestrator.artifact_url import Bucket, parse
from orchestrator.errors import Invalid
from schemas.api import MQTT_PORT, PORT

PREFIX = "ARGOSY_"
LOOPBACK = "127.0.0.1"

_WILDCARDS = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - compared with, never bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one platform is started with.

    Attributes:
        home: the folder that holds everything; absolute.
        host: the address that the API binds. Beyond loopback it is served with TLS.
        port: the API's port.
        public_url: how others reach the API, where that differs (a proxy, a DNS name).
        mqtt_host: the address that the embedded broker binds for devices.
        mqtt_port: the devices' port.
        mqtt_public_host: the host name of the broker that devices are told.
        database_url: an SQLAlchemy URL; None is SQLite in the home.
        broker_url: ``mqtts://user:password@host:port`` of a broker that is run elsewhere;
            None starts mosquitto.
        embedded_broker: start mosquitto as a child.
        embedded_agent: start a training agent as a child.
        lease_seconds: a job that is silent for so long is given to another agent.
        heartbeat_seconds: how often devices and agents say that they are there.
        certificate_days: how long a device's certificate is valid.
        ca_command: a program that issues to devices in place of the platform's own authority.
        ca_roots: the PEM file with that program's roots and the authorities below them.
        tls_cert: the PEM file of the API's certificate and its authorities; None is one of
            the platform's own authority, and so is the broker's always: devices pin it.
        tls_key: the private key of ``tls_cert``.
        renew_grace_days: for how long after its end a certificate is renewed by its key.
        tick_seconds: how often the services compare what is desired with what is.
        artifacts: where artifacts are kept: a folder, or ``s3://bucket/prefix`` with
            options (see ``artifact_url``); None is a folder in the home.
        max_artifact_bytes: the largest upload.
        event_days: how long what happened is kept for readers of events.
        window_days: how long windows of telemetry are kept; what is older is not taken.
        device_hour_days: how long what each device did in each hour is kept.
        class_hour_days: the same of each class of devices.
        sample_days: how long samples are kept.
        sample_bytes: of the samples of each model and stream; the oldest go.
        all_sample_bytes: of all samples together.
        prices: the price table; None is ``prices.yaml`` in the home, where there is one.
        https_links: offer devices links to files, which they fetch by HTTPS.
        link_key: 64 hex digits that sign these links, where several servers answer; None is
            a key of the home's own.
        transfer_rate: bytes a second of files that all devices together are sent; None is
            without limit.
        broadcast_from: when so many devices wait for a file, it is sent once to all; 0 is never.
        broadcast_rate: bytes a second of that to each device at most.
        patch_bytes: of all patches together that are kept; 0 makes none.
        trusted_proxies: addresses and networks of proxies, with commas between them; only
            these are believed when they name the client (``X-Forwarded-For``).
    """

    home: Path
    host: str = LOOPBACK
    port: int = PORT
    public_url: str | None = None
    mqtt_host: str = LOOPBACK
    mqtt_port: int = MQTT_PORT
    mqtt_public_host: str = LOOPBACK
    database_url: str | None = None
    broker_url: str | None = None
    embedded_broker: bool = True
    embedded_agent: bool = True
    lease_seconds: float = 30.0
    heartbeat_seconds: float = 10.0
    certificate_days: int = 7
    ca_command: Path | None = None
    ca_roots: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    renew_grace_days: int = 90
    tick_seconds: float = 0.25
    artifacts: str | None = None
    max_artifact_bytes: int = 2 * 1024**3
    event_days: int = 14
    window_days: int = 14
    device_hour_days: int = 60
    class_hour_days: int = 730
    sample_days: int = 30
    sample_bytes: int = 128 * 1024**2
    all_sample_bytes: int = 1024**3
    prices: Path | None = None
    https_links: bool = True
    link_key: str | None = field(default=None, repr=False)
    transfer_rate: int | None = None
    broadcast_from: int = 10
    broadcast_rate: int = 8 * 1024**2
    patch_bytes: int = 2 * 1024**3
    trusted_proxies: str | None = None

    @property
    def tls(self) -> bool:
        """Whether the API is served over HTTPS by itself."""
        return not is_loopback(self.host)

    @property
    def url(self) -> str:
        """The API's address for programs on this machine."""
        if self.tls_cert is not None and self.public_url is not None:
            # A certificate that was given is for a name, and for no address.
            return self.public_url
        host = LOOPBACK if self.host in _WILDCARDS else self.host
        return f"{'https' if self.tls else 'http'}://{_bracketed(host)}:{self.port}"

    @property
    def advertised_url(self) -> str:
        """The API's address for others."""
        return self.public_url or self.url

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.home / 'argosy.db'}"

    @property
    def artifact_place(self) -> Path | Bucket | None:
        """Where artifacts are kept; None is the home's own folder."""
        return None if self.artifacts is None else parse(self.artifacts, "ARGOSY_ARTIFACTS")

    @property
    def names(self) -> tuple[str, ...]:
        """Host names and addresses that the server's certificate must hold, sorted."""
        public = urlsplit(self.public_url).hostname if self.public_url else None
        found = {"localhost", LOOPBACK, "::1", self.host, self.mqtt_host, self.mqtt_public_host}
        return tuple(sorted((found | {public or ""}) - _WILDCARDS))

    def to_env(self) -> dict[str, str]:
        """The environment from which ``load`` makes these settings again."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            PREFIX + name.upper(): _text(value)
            for name, value in values.items()
            if value is not None
        }


def load(env: Mapping[str, str], **overrides: Any) -> Settings:
    """Read settings: an override that is not None, else the environment, else the default.

    Args:
        env: the process's environment; ``HOME`` gives the default home ``~/.argosy``.
        overrides: fields of ``Settings``, as text or already of their type.

    Raises:
        Invalid: a value is not what its field needs; the message names the setting.
    """
    unknown = sorted(set(overrides) - {f.name for f in fields(Settings)})
    if unknown:
        msg = f"there is no setting {unknown[0]!r}"
        raise Invalid(msg)
    values: dict[str, Any] = {}
    for name, read in _READERS.items():
        value, source = overrides.get(name), f"--{name.replace('_', '-')}"
        if value is None:
            value, source = env.get(PREFIX + name.upper()) or None, PREFIX + name.upper()
        if value is not None:
            values[name] = read(str(value).strip(), source)
    if "home" not in values:
        values["home"] = reading.home(
            str(Path(env.get("HOME") or "~").expanduser() / ".argosy"), "HOME"
        )
    if values.get("broker_url"):
        values["embedded_broker"] = False
    return _checked(Settings(**values))


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(settings: Settings) -> Settings:
    if not settings.embedded_broker and settings.broker_url is None:
        msg = "ARGOSY_EMBEDDED_BROKER is off and no broker is named"
        raise Invalid(msg, hint="set ARGOSY_BROKER_URL, as in mqtts://user:password@broker:8883")
    if settings.embedded_broker and settings.port == settings.mqtt_port:
        msg = f"the API and the broker cannot both use port {settings.port}"
        raise Invalid(msg, hint="set ARGOSY_PORT or ARGOSY_MQTT_PORT to another one")
    for one, other in (("ca_command", "ca_roots"), ("tls_cert", "tls_key")):
        if (getattr(settings, one) is None) != (getattr(settings, other) is None):
            msg = f"ARGOSY_{one.upper()} and ARGOSY_{other.upper()} go together: set both or none"
            raise Invalid(msg)
    if settings.tls_cert is not None and not settings.tls:
        msg = f"ARGOSY_TLS_CERT is set, but the API on {settings.host} is served without TLS"
        raise Invalid(msg, hint="set ARGOSY_HOST to an address beyond loopback, as 0.0.0.0")
    if settings.tls and settings.public_url and settings.public_url.startswith("http:"):
        msg = f"ARGOSY_PUBLIC_URL: the API on {settings.host} is served with TLS: use https://"
        raise Invalid(msg)
    return settings


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


_READERS: dict[str, Callable[[str, str], Any]] = {
    "home": reading.home,
    "host": reading.host,
    "port": reading.port,
    "public_url": reading.url("http", "https"),
    "mqtt_host": reading.host,
    "mqtt_port": reading.port,
    "mqtt_public_host": reading.host,
    "database_url": reading.database,
    "broker_url": reading.url("mqtt", "mqtts"),
    "embedded_broker": reading.boolean,
    "embedded_agent": reading.boolean,
    "lease_seconds": reading.seconds,
    "heartbeat_seconds": reading.seconds,
    "certificate_days": reading.days,
    "ca_command": reading.file,
    "ca_roots": reading.file,
    "tls_cert": reading.file,
    "tls_key": reading.file,
    "renew_grace_days": reading.days,
    "tick_seconds": reading.seconds,
    "artifacts": reading.artifacts,
    "max_artifact_bytes": reading.integer,
    "event_days": reading.days,
    "window_days": reading.days,
    "device_hour_days": reading.days,
    "class_hour_days": reading.days,
    "sample_days": reading.days,
    "sample_bytes": reading.integer,
    "all_sample_bytes": reading.integer,
    "prices": reading.file,
    "transfer_rate": reading.rate,
    "broadcast_from": reading.count,
    "broadcast_rate": reading.rate,
    "https_links": reading.boolean,
    "link_key": reading.key,
    "patch_bytes": reading.count,
    "trusted_proxies": reading.proxies,
}
