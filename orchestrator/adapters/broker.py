"""The embedded broker: finding mosquitto and writing all that it reads.

Two listeners: one for devices with mutual TLS, where the certificate's common name is
user name and client id at once, and one on loopback for the server, with a password.
Each has its own access list, so the server's rights cannot be had through the first.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.domain.gate import CANARY
from orchestrator.errors import Unavailable
from orchestrator.home import Home, read_json, write_atomic, write_json
from orchestrator.settings import LOOPBACK, Settings
from schemas.api import MQTT_PORT
from schemas.topics import ACL_DEVICE_READ, ACL_DEVICE_WRITES, ACL_SHARED_READ

GATEWAY_USER = "gateway"
MIN_VERSION = (2, 0)

_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
_INSTALLERS = {
    "apt-get": "sudo apt-get install mosquitto",
    "dnf": "sudo dnf install mosquitto",
    "brew": "brew install mosquitto",
    "apk": "sudo apk add mosquitto",
}
_VERSION = re.compile(r"mosquitto version (\d+)\.(\d+)(?:\.(\d+))?")
# Below the ports that systems hand out for outgoing connections, so that a restarted
# broker finds its port free.
_GATEWAY_PORTS = range(20_000, 32_000)
_PBKDF2_ROUNDS = 1000
_SALT_BYTES = 12
_HASH_BYTES = 64


@dataclass(frozen=True, slots=True)
class Gateway:
    """How the server reaches the broker (``broker/gateway.json``).

    ca: the path of a CA certificate, or None; with ``tls`` and None the system's CAs count.
    """

    host: str
    port: int
    username: str
    password: str
    tls: bool = False
    ca: str | None = None


def find_mosquitto() -> Path:
    """Where mosquitto is: on PATH, or where packages put daemons.

    Raises:
        Unavailable: it is not installed; the hint is the command that installs it.
    """
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS))
    found = shutil.which("mosquitto", path=folders)
    if found is None:
        msg = "the MQTT broker mosquitto is not installed"
        raise Unavailable(msg, hint=f"install it with: {install_command()}")
    return Path(found)


def install_command() -> str:
    """The command by which this system installs mosquitto."""
    known = (command for tool, command in _INSTALLERS.items() if shutil.which(tool))
    return next(known, "your package manager (the package is called mosquitto)")


def mosquitto_version(program: Path) -> tuple[int, int, int] | None:
    """The version that mosquitto says it has; None when it says none."""
    try:
        run = subprocess.run(
            [program, "-h"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(run.stdout + run.stderr)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def prepare(settings: Settings, home: Home) -> Gateway:
    """Write the broker's files, or for a broker elsewhere only how it is reached.

    Called while nothing runs on the home. The password stays as it was; so does the
    gateway's port unless someone else took it.
    """
    if settings.broker_url is not None:
        gateway = external_gateway(settings.broker_url)
        write_json(home.gateway_json, asdict(gateway))
        return gateway
    (home.broker / "data").mkdir(mode=0o700, exist_ok=True)
    gateway = _own_gateway(read_gateway(home))
    files = {
        "passwd": password_line(gateway.username, gateway.password, os.urandom(_SALT_BYTES)),
        "acl": device_acl(),
        "acl-gateway": gateway_acl(),
        "mosquitto.conf": configuration(settings, home, gateway, _user()),
    }
    for name, text in files.items():
        write_atomic(home.broker / name, text.encode())
    write_json(home.gateway_json, asdict(gateway))
    return gateway


def read_gateway(home: Home) -> Gateway | None:
    """How the server reaches the broker; None when that is not written, or damaged."""
    record = read_json(home.gateway_json)
    try:
        return None if record is None else Gateway(**record)
    except TypeError:
        return None


def external_gateway(url: str) -> Gateway:
    """A broker's URL (``mqtts://user:password@host:port``), taken apart."""
    parts = urlsplit(url)
    return Gateway(
        host=parts.hostname or LOOPBACK,
        port=parts.port or (MQTT_PORT if parts.scheme == "mqtts" else 1883),
        username=unquote(parts.username or GATEWAY_USER),
        password=unquote(parts.password or ""),
        tls=parts.scheme == "mqtts",
    )


def configuration(settings: Settings, home: Home, gateway: Gateway, user: str) -> str:
    """The text of ``mosquitto.conf`` (mosquitto ≥ 2.0).

    ``autosave_interval``: a killed broker loses at most that many seconds; by default it
    loses everything. ``max_queued_messages``: the default of 1000 drops acknowledged
    telemetry while the server restarts. ``per_listener_settings``: else a password that
    is known on one listener would count on the other.
    """
    return f"""\
# Written by argosy at each start; changes are lost.
per_listener_settings true
user {user}
persistence true
persistence_location {home.broker / "data"}/
autosave_interval 5
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
max_packet_size 1048576
log_dest stderr
log_type error
log_type warning
log_type notice
log_timestamp_format %Y-%m-%dT%H:%M:%S

listener {settings.mqtt_port} {settings.mqtt_host}
cafile {home.ca_pem}
certfile {home.server_pem}
keyfile {home.server_key}
crlfile {home.crl_pem}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {home.broker / "acl"}

listener {gateway.port} {gateway.host}
allow_anonymous false
password_file {home.broker / "passwd"}
acl_file {home.broker / "acl-gateway"}
"""


def ask_reload(home: Home) -> None:
    """Have the supervisor tell the broker to read its files anew: written after them."""
    write_atomic(home.broker_reload, f"{secrets.token_hex(8)}\n".encode())


def device_acl(shut: Iterable[str] = ()) -> str:
    """What a device may do: write its own up-topics, read its own down-topics.

    Args:
        shut: devices that may do nothing, even those that are connected yet. Canaries
            never may.
    """
    nobody = "".join(f"user {name}\ntopic deny #\n" for name in (CANARY, *sorted(shut)))
    writes = "".join(f"pattern write {one}\n" for one in ACL_DEVICE_WRITES)
    return f"{nobody}{writes}pattern read {ACL_DEVICE_READ}\npattern read {ACL_SHARED_READ}\n"


def gateway_acl() -> str:
    """What the server may do."""
    return f"user {GATEWAY_USER}\ntopic readwrite #\n"


def password_line(username: str, password: str, salt: bytes) -> str:
    """A line of mosquitto's password file: ``$7$``, PBKDF2 with HMAC-SHA-512.

    Few rounds are enough, because the password is 32 random bytes and cannot be guessed.
    """
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ROUNDS, _HASH_BYTES)
    fields = ("7", str(_PBKDF2_ROUNDS), *(base64.b64encode(b).decode() for b in (salt, digest)))
    return f"{username}:${'$'.join(fields)}\n"


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _own_gateway(old: Gateway | None) -> Gateway:
    password = secrets.token_urlsafe(32)
    if old is not None and old.username == GATEWAY_USER and not old.tls and old.host == LOOPBACK:
        password = old.password
        if port_is_free(LOOPBACK, old.port):
            return old
    return Gateway(LOOPBACK, _free_port(), GATEWAY_USER, password)


def _free_port() -> int:
    for port in random.SystemRandom().sample(_GATEWAY_PORTS, 200):
        if port_is_free(LOOPBACK, port):
            return port
    msg = f"no free port between {_GATEWAY_PORTS.start} and {_GATEWAY_PORTS.stop} on {LOOPBACK}"
    raise Unavailable(msg)


def _user() -> str:
    """Who runs the broker: as root it would else become one who cannot read the home."""
    return pwd.getpwuid(os.geteuid()).pw_name
