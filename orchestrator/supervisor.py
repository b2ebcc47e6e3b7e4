"""``argosy up``: prepares the home and runs the platform's process tree."""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from orchestrator import health
from orchestrator.adapters import broker, processes
from orchestrator.adapters.authority import open_authority
from orchestrator.adapters.authority.served import given_to
from orchestrator.adapters.process_tree import (
    Child,
    EventKind,
    StopSignal,
    Supervisor,
    TreeEvent,
    restart_delay,
)
from orchestrator.adapters.trust import TrustStore
from orchestrator.errors import ArgosyError, Conflict, Unavailable
from orchestrator.home import Home, Up
from orchestrator.settings import LOOPBACK, Settings

__all__ = [
    "Child",
    "EventKind",
    "StopSignal",
    "Supervisor",
    "TreeEvent",
    "bootstrap",
    "check_ports",
    "children",
    "prepare",
    "restart_delay",
    "run",
]

_PORT_WAIT = 2.0  # seconds; sockets of a platform that was just killed may linger
_LEFTOVER_GRACE = 2.0
_PROBE_SECONDS = 0.8


def run(
    settings: Settings,
    on_event: Callable[[TreeEvent], None] = lambda _event: None,
    *,
    stop: StopSignal | None = None,
    prepare_database: Callable[[Settings], object] | None = None,
) -> None:
    """Run the platform until a stop is asked for (a signal, or ``stop.request()``).

    Args:
        settings: what it is started with.
        on_event: is told of every start, end and restart, from this thread.
        stop: lets another thread stop it.
        prepare_database: migrates the database and writes the credentials; by default
            that of ``orchestrator.wiring.database``.

    Raises:
        Conflict: the home or a port is in use; the message names by whom.
        Unavailable: something that is needed is missing, or a child does not stay up.
    """
    home = Home(settings.home)
    home.prepare()
    mark = mark_of(home)
    with home.lock():
        processes.end_marked(mark, _LEFTOVER_GRACE)
        check_programs(settings)
        check_ports(settings)
        prepare(settings, prepare_database or bootstrap)

        def tell(event: TreeEvent) -> None:
            if event.kind == "up":
                home.write_up(Up(os.getpid(), settings.url))
            on_event(event)

        Supervisor(
            children(settings, home),
            logs=home.logs,
            env={**os.environ, **settings.to_env()},
            mark=mark,
            stop=stop or StopSignal(),
            on_event=tell,
        ).run()


def prepare(settings: Settings, prepare_database: Callable[[Settings], object]) -> None:
    """Make what the platform needs, or see that it is there: idempotent.

    Called while nothing runs on the home: the home's folders, the CA and the server's
    certificate, the trust store, the broker's configuration, the database.
    """
    home = Home(settings.home)
    home.prepare()
    given_to(settings)
    authority = open_authority(home.ca, command=settings.ca_command, roots=settings.ca_roots)
    authority.ensure_server(settings.names)
    TrustStore.open_or_create(home.trust)
    broker.prepare(settings, home)
    prepare_database(settings)


def children(settings: Settings, home: Home) -> list[Child]:
    """The children of a platform, in their order of start."""
    where = ("--home", str(home.path))
    found: list[Child] = []
    if settings.embedded_broker:
        found.append(
            Child(
                name="broker",
                command=(str(broker.find_mosquitto()), "-c", str(home.broker / "mosquitto.conf")),
                ready=partial(_broker_ready, settings, home),
                ready_seconds=15.0,
                reload_on=(home.broker_reload,),
                stop_seconds=0.5,
                many_files=True,
            )
        )
    found.append(
        Child(
            name="server",
            command=(sys.executable, "-m", "orchestrator.server", *where),
            ready=partial(_server_ready, settings, home),
            stop_seconds=0.8,
        )
    )
    if settings.embedded_agent:
        agent = (sys.executable, "-m", "workers.cli", "agent", *where, "--embedded")
        found.append(Child(name="agent", command=agent, stop_seconds=2.2))
    return found


def mark_of(home: Home) -> str:
    """What every process of a home's platform carries in its environment."""
    return hashlib.sha256(str(home.path.resolve()).encode()).hexdigest()[:32]


def check_programs(settings: Settings) -> None:
    """See that the programs which the children run are installed.

    Raises:
        Unavailable: one is not; the hint is the command that installs it.
    """
    if settings.embedded_broker:
        program = broker.find_mosquitto()
        version = broker.mosquitto_version(program)
        if version is not None and version < broker.MIN_VERSION:
            msg = f"{program} is version {'.'.join(map(str, version))}; 2.0 or newer is needed"
            raise Unavailable(msg, hint=f"upgrade it with: {broker.install_command()}")
    if settings.embedded_agent and importlib.util.find_spec("ray") is None:
        msg = "the training agent needs Ray, which is not installed"
        hint = "pip install 'argosy[train]', or start without it: ARGOSY_EMBEDDED_AGENT=false"
        raise Unavailable(msg, hint=hint)


def check_ports(settings: Settings, wait: float = _PORT_WAIT) -> None:
    """See that the platform's ports can be listened on.

    Args:
        settings: name the ports.
        wait: seconds for which a port that is taken is tried again.

    Raises:
        Conflict: one is taken; the message names it, and its holder where that is known.
        Unavailable: one cannot be used for another reason.
    """
    wanted = [(settings.host, settings.port, "API", "ARGOSY_PORT")]
    if settings.embedded_broker:
        wanted.append((settings.mqtt_host, settings.mqtt_port, "broker", "ARGOSY_MQTT_PORT"))
    deadline = time.monotonic() + wait
    for host, port, name, variable in wanted:
        while (error := _bind_error(host, port)) == errno.EADDRINUSE:
            if time.monotonic() >= deadline:
                holder = processes.holder_of(port)
                by = f" by {holder}" if holder else ""
                msg = f"port {port} on {host}, for the {name}, is taken{by}"
                raise Conflict(msg, hint=f"end what holds it, or set {variable} to another port")
            time.sleep(0.05)
        if error:
            msg = f"cannot listen on {host}:{port} for the {name}: {os.strerror(error)}"
            raise Unavailable(msg, hint=f"set {variable}, or the host, to one that you may use")


def _bind_error(host: str, port: int) -> int:
    """The errno of an attempt to listen; 0 when it works."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _broker_ready(settings: Settings, home: Home) -> bool:
    gateway = broker.read_gateway(home)
    host = LOOPBACK if settings.mqtt_host in {"0.0.0.0", "::"} else settings.mqtt_host  # noqa: S104 - compared with
    return (
        gateway is not None
        and _connects(gateway.host, gateway.port)
        and _connects(host, settings.mqtt_port)
    )


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS / 2):
            return True
    except OSError:
        return False


def _server_ready(settings: Settings, home: Home) -> bool:
    return health.ask(settings, home, _PROBE_SECONDS) is not None


def bootstrap(settings: Settings) -> str | None:
    """Prepare the database (``orchestrator.wiring.database``); the first admin's token, if new."""
    # By name, so that supervising does not import the database's libraries.
    try:
        prepare_database = importlib.import_module("orchestrator.wiring.database").prepare_database
    except ImportError as error:
        msg = f"the server's packages are not installed: {error}"
        raise Unavailable(msg, hint="pip install 'argosy[server]'") from error
    try:
        first: str | None = prepare_database(settings)
    except ArgosyError:
        raise
    except OSError as error:
        msg = f"cannot prepare the database: {error}"
        raise Unavailable(msg) from error
    return first
